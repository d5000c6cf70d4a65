# Moves what is in a member's home aside, under the name $1. What was moved there before stays.
b=/bin/busybox
$b mkdir -p /member/aside
[ -e "/member/aside/$1" ] || [ ! -e /member/home ] || $b mv /member/home "/member/aside/$1"
$b mkdir -p /member/home && $b sync
