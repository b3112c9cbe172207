# Every unit is active, was not restarted by systemd, and starts at boot.
set -eu
bad=0
for unit in $UNITS; do
    active=$(systemctl show --property ActiveState --value "$unit")
    restarts=$(systemctl show --property NRestarts --value "$unit")
    enabled=$(systemctl is-enabled "$unit" 2>/dev/null || true)
    echo "$unit is $active, $enabled, restarted $restarts times"
    if [ "$active" != active ] || [ "$restarts" != 0 ] || [ "$enabled" != enabled ]; then bad=1; fi
done
[ "$bad" = 0 ] || exit 1
echo "$(echo "$UNITS" | wc -w) units active, none restarted"
