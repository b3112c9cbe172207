# One program in a fresh microVM, its output and its exit code, and nothing left of it.
set -eu
run() { runuser -u firelane-serve -- env FIRELANE_HOME=/var/lib/firelane/serve FIRELANE_SOCKET=/run/firelane-serve/serve.sock "$@"; }
code=0
said=$(run firelane run --lang python -c 'import sys; print(6 * 7); sys.exit(3)' 2>&1) || code=$?
if [ "$said" != 42 ] || [ "$code" != 3 ]; then
    echo "$said"
    echo "a program that prints 42 and ends with 3 ended with $code"
    exit 1
fi
echo 'booted or restored, ran, gave its exit code'
