# Becomes a member's server, whose output goes to its log. Fails with 97 as prepare.sh does: the server may
# be started anew without it.
b=/tools/busybox
folder=$1 suffix=$2
shift 2
if [ -n "$suffix" ]; then
    found=
    for file in "/member/home/$folder"/*"$suffix"; do
        [ ! -e "$file" ] || found=yes
    done
    [ -n "$found" ] || exit 97
fi
cd /member/home || exit 1
log=/member/log/current
[ -e "$log" ] || : >"$log"
$b stat -c %s "$log" >/member/log/began
exec "$@" >>"$log" 2>&1
