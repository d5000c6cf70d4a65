# Empties a member's home.
b=/bin/busybox
$b rm -rf /member/home && $b mkdir -p /member/home && $b sync
