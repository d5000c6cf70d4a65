# Writes what comes to the file $1 of the stage, whole or not at all.
b=/bin/busybox
$b cat >"/stage/.part" && $b sync && $b mv -f "/stage/.part" "/stage/$1"
