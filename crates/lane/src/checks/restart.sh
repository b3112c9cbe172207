# What is on record outlives a restart of every service.
set -eu
owner() { runuser -u firelane-serve -- env FIRELANE_HOME=/var/lib/firelane/serve FIRELANE_SOCKET=/run/firelane-serve/serve.sock firelane "$@"; }
before=$(owner key list --json)
for unit in $UNITS; do systemctl restart "$unit"; done
deadline=$(($(date +%s) + 300))
until curl --silent --fail --max-time 5 --output /dev/null http://127.0.0.1:7300/readyz; do
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
