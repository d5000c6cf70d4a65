#!/usr/bin/env bash
# What befalls the API server of the test cluster.
#
#   api.sh hang     it takes connections and answers nothing
#   api.sh go-on    it answers again
#   api.sh end      it ends at once, and is started again
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/bed.sh"

pid=$(pid_of control) || die 'the test cluster does not run'
server=$(pgrep --ns "$(pgrep --parent "$pid")" --nslist pid --exact kube-apiserver) || die 'there is no API server'
case ${1:-} in
    hang) kill -STOP "$server" ;;
    go-on) kill -CONT "$server" ;;
    end) kill -KILL "$server" ;;
    *) die 'usage: api.sh hang|go-on|end' ;;
esac
