#!/usr/bin/env bash
# Ends the test cluster and removes its disks. What build.sh made stays.
#
#   down.sh       all of it
#   down.sh nN    one node, as when it loses its power: its disk stays, and up.sh nN boots it again
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/bed.sh"

# Namespaces, mounts and cables go with the machine's processes.
end() {
    local pid inside
    pid=$(pid_of "$1") || return 0
    inside=$(pgrep --parent "$pid" || true)
    kill -9 "$pid"
    within 30 test ! -e "/proc/$pid"
    if [[ -n $inside ]]; then within 60 test ! -e "/proc/$inside"; fi
    rm "$bed/$1.pid"
}

# They can go when the last process in them has gone.
remove_groups() {
    find /sys/fs/cgroup/*/"$LINK" -depth -type d -delete 2>/dev/null
    ! compgen -G "/sys/fs/cgroup/*/$LINK" >/dev/null
}

no_cable() { ! ip link show "$LINK"; }

if [[ -n ${1:-} ]]; then
    end "$1"
    say "$1 has no power"
    exit
fi
if [[ ! -d $bed ]]; then exit; fi
for file in "$bed"/*.pid; do
    if [[ -e $file ]]; then end "$(basename "$file" .pid)"; fi
done
within 30 no_cable
within 30 remove_groups
rm -rf "$bed"
say 'down'
