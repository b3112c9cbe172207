# What is on record outlives a restart of every service.
set -eu
set -a
. /etc/firelane/serve.env
set +a
owner() { runuser -u firelane-serve -- firelane "$@"; }
before=$(owner key list --json)
for unit in $UNITS; do systemctl restart "$unit"; done
deadline=$(($(date +%s) + 300))
until curl --silent --fail --max-time 5 --output /dev/null "http://$FIRELANE_LISTEN/readyz"; do
    if [ "$(date +%s)" -ge "$deadline" ]; then
        echo 'the API is not ready 300 s after a restart'
        exit 1
    fi
    sleep 1
done
after=$(owner key list --json)
if [ "$before" != "$after" ]; then
    echo "before: $before"
    echo "after: $after"
    exit 1
fi
for unit in $UNITS; do systemctl is-active --quiet "$unit"; done
echo 'every service came back, with its keys'
