# The sources that the programs were built of pass their own checks here: format, lints, licences, tests. What of
# them needs KVM says so by name. On a lane without KVM only: that is what such a lane is for, and it takes long.
set -eu
sources=/var/lib/firelane-incoming/sources
if [ "$WANT_KVM" = 1 ]; then
    echo 'only on a lane without KVM'
    exit 10
fi
if [ ! -d "$sources" ]; then
    echo 'the programs were brought, not built here'
    exit 10
fi
export CARGO_TARGET_DIR=/var/lib/firelane-build
export HOME="${HOME:-/root}"
log=$CARGO_TARGET_DIR/check.log
if ! make -C "$sources" check >"$log" 2>&1; then
    tail -n 40 "$log"
    exit 1
fi
# The last line that is of the checks, and not of make.
grep '^checks: ' "$log" | tail -n 1
