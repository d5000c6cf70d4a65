# What a member printed from its last start on, at most $1 bytes of the end. Fails with 97 where it was
# never started.
b=/bin/busybox
log=/member/log/current
[ -e /member/log/began ] && [ -e "$log" ] || exit 97
from=$($b cat /member/log/began)
length=$($b stat -c %s "$log")
# A log that is shorter was turned over meanwhile: all of it is of later.
[ "$from" -le "$length" ] || from=0
bytes=$((length - from))
[ "$bytes" -le "$1" ] || bytes=$1
$b tail -c "$bytes" "$log"
