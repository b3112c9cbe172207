# A run over the API with a key of its own, and without one.
set -eu
api=http://127.0.0.1:7300
owner() { runuser -u firelane-serve -- env FIRELANE_HOME=/var/lib/firelane/serve FIRELANE_SOCKET=/run/firelane-serve/serve.sock firelane "$@"; }
refused=$(curl --silent --max-time 30 --output /dev/null --write-out '%{http_code}' \
    --json '{"lang":"python","code":"print(1)"}' "$api/v1/runs")
if [ "$refused" != 401 ]; then
    echo "a run without a key was answered with $refused"
    exit 1
fi
made=$(owner key create --json --name verify --scopes run)
key=$(printf '%s' "$made" | sed -n 's/.*"token": *"\([^"]*\)".*/\1/p')
id=$(printf '%s' "$made" | sed -n 's/.*"id": *"\([^"]*\)".*/\1/p')
said=$(printf 'header = "Authorization: Bearer %s"\n' "$key" | curl --silent --show-error --max-time 300 --config - \
    --json '{"lang":"python","code":"print(6 * 7)"}' "$api/v1/runs") || true
owner key revoke "$id" >/dev/null
case $said in
*'"stdout":"42\n"'*) echo 'a run with a key: 42; without one: 401' ;;
*)
    echo "$said"
    exit 1
    ;;
esac
