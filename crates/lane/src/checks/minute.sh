# Every unit has run for a minute, and was not restarted by systemd: none crashes and comes back. Most
# of the minute has gone by while the checks before this one ran.
set -eu
bad=0
for unit in $UNITS; do
    since=$(systemctl show --property ActiveEnterTimestampMonotonic --value "$unit")
    # Microseconds, and hundredths of a second, since the kernel's start.
    runs=$(($(cut -d ' ' -f 1 /proc/uptime | tr -d .) / 100 - since / 1000000))
    if [ "$runs" -lt 60 ]; then sleep $((60 - runs)); fi
    active=$(systemctl show --property ActiveState --value "$unit")
    restarts=$(systemctl show --property NRestarts --value "$unit")
    echo "$unit is $active, restarted $restarts times"
    if [ "$active" != active ] || [ "$restarts" != 0 ]; then bad=1; fi
done
[ "$bad" = 0 ] || exit 1
echo 'every unit has run for a minute or more, none restarted'
