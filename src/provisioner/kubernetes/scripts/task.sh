# Becomes a task, whose standard error is told apart from its standard output.
cd /member || exit 1
exec "$@" 2>/dev/termination-log
