# Shows what a member prints, and turns its log over at $1 bytes: copied away, then emptied, since the
# member appends to it and knows nothing of this.
b=/bin/busybox
trap 'exit 0' TERM
$b mkdir -p /member/home /member/log /member/aside
log=/member/log/current
[ -e "$log" ] || : >"$log"
$b tail -n 0 -F "$log" &
while :; do
    if [ "$($b stat -c %s "$log")" -gt "$1" ]; then
        $b cp "$log" /member/log/unfinished &&
            $b mv -f /member/log/unfinished /member/log/older &&
            : >"$log"
    fi
    $b sleep 2 &
    wait $!
done
