# A run over the API with a key of its own, and without one.
set -eu
set -a
. /etc/firelane/serve.env
set +a
owner() { runuser -u firelane-serve -- firelane "$@"; }
api=http://$FIRELANE_LISTEN
run='{"lang":"python","code":"print(6 * 7)","template":"'${FIRELANE_TEMPLATE:-default}'"}'
refused=$(curl --silent --max-time 30 --output /dev/null --write-out '%{http_code}' \
    --json "$run" "$api/v1/runs")
if [ "$refused" != 401 ]; then
    echo "a run without a key was answered with $refused"
    exit 1
fi
made=$(owner key create --json --name verify --scopes run)
key=$(printf '%s' "$made" | sed -n 's/.*"token": *"\([^"]*\)".*/\1/p')
id=$(printf '%s' "$made" | sed -n 's/.*"id": *"\([^"]*\)".*/\1/p')
said=$(printf 'header = "Authorization: Bearer %s"\n' "$key" | curl --silent --show-error --max-time 300 --config - \
    --json "$run" "$api/v1/runs") || true
owner key revoke "$id" >/dev/null
case $said in
*'"stdout":"42\n"'*) echo 'a run with a key: 42; without one: 401' ;;
*)
    echo "$said"
    exit 1
    ;;
esac
