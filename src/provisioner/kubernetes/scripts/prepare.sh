# Before a program of an image that has nothing else in it: brings the shell that begins it. Fails with
# 97 when files of the folder $1 whose names end in $2 must be there, and none is. Where $3 is given, waits for
# the files that are brought to the stage.
b=/bin/busybox
$b cp /bin/busybox /tools/busybox
$b mkdir -p /member/home /member/log /member/aside
if [ -n "$2" ]; then
    found=
    for file in "/member/home/$1"/*"$2"; do
        [ ! -e "$file" ] || found=yes
    done
    [ -n "$found" ] || exit 97
fi
if [ -n "$3" ]; then
    trap 'exit 1' TERM
    until [ -e /stage/.whole ]; do
        $b sleep 0.1
    done
fi
