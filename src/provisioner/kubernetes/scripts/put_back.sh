# Gives a member's home again what was moved aside under the name $1, where anything was.
b=/bin/busybox
[ -e "/member/aside/$1" ] || exit 0
$b rm -rf /member/home && $b mv "/member/aside/$1" /member/home && $b sync
