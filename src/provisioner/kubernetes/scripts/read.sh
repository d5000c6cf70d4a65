# The bytes of the file $1 behind its first $2, $3 of them.
b=/bin/busybox
[ -f "$1" ] || exit 1
$b tail -c "+$(($2 + 1))" "$1" | $b head -c "$3"
