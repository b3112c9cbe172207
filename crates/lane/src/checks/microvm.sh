# One program in a fresh microVM, its output and its exit code.
set -eu
set -a
. /etc/firelane/serve.env
set +a
code=0
said=$(runuser -u firelane-serve -- firelane run --template "${FIRELANE_TEMPLATE:-default}" --lang python -c 'import sys; print(6 * 7); sys.exit(3)' 2>&1) || code=$?
if [ "$said" != 42 ] || [ "$code" != 3 ]; then
    echo "$said"
    echo "a program that prints 42 and ends with 3 ended with $code"
    exit 1
fi
echo 'booted or restored, ran, gave its exit code'
