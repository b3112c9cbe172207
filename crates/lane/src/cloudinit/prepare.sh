#!/bin/sh
# Prepares a machine for Firelane: packages, folders, KVM. As root, by cloud-init or over SSH; again does no harm.
#
# WANT_KVM, ENDS, ROOT_KEY, FIRECRACKER_URL and FIRECRACKER_SHA256 are set by the line above. What it comes to is in STATUS, which is written whole:
# {"step": ..., "status": running|ready|failed, "kvm": usable|absent|unusable|skipped|unknown, "cause": ...}
set -eu
umask 022

STATUS=/run/firelane/prepare.json
LOG=/var/log/firelane-prepare.log
step=begin
kvm=unknown

status() { # running|ready|failed CAUSE
    # A cause is words of other programs: what JSON would have to escape is left out.
    cause=$(printf '%s' "$2" | tr -d '\042\134' | tr -c '[:print:]' ' ' | cut -c1-400)
    mkdir -p /run/firelane
    printf '{"step":"%s","status":"%s","kvm":"%s","cause":"%s"}\n' "$step" "$1" "$kvm" "$cause" >"$STATUS.new"
    mv "$STATUS.new" "$STATUS"
}

fail() { # CAUSE
    status failed "$1"
    echo "prepare: $step: $1" >&2
    exit 1
}

begin() { # STEP
    step=$1
    status running ''
    echo "prepare: $step"
}

# The last thing that a step wrote, for the status.
try() { # COMMAND...
    if ! "$@" >"$LOG" 2>&1; then
        cat "$LOG" >&2
        fail "$(tail -n 1 "$LOG")"
    fi
}

# First of all: whatever fails below, or whoever waits for it is gone, this machine ends.
begin end
if [ -n "$ENDS" ] && [ "$ENDS" -le "$(date +%s)" ]; then
    # A timer of a time that is over would never come.
    systemctl --no-block poweroff
    fail 'the time of this machine is over'
elif [ -n "$ENDS" ]; then
    cat >/etc/systemd/system/firelane-end.service <<EOF
[Unit]
Description=The time of this machine is over
[Service]
Type=oneshot
ExecStart=/usr/bin/systemctl --no-block poweroff
EOF
    cat >/etc/systemd/system/firelane-end.timer <<EOF
[Unit]
Description=When the time of this machine is over
[Timer]
OnCalendar=$(date -u -d "@$ENDS" '+%Y-%m-%d %H:%M:%S UTC')
Persistent=yes
[Install]
WantedBy=timers.target
EOF
    try systemctl daemon-reload
    try systemctl enable --now firelane-end.timer
fi

begin packages
missing=
for pair in curl:curl rsync:rsync python3:python3 sudo:sudo qemu-system-x86_64:qemu-system-x86; do
    command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
done
if [ -n "$missing" ]; then
    export DEBIAN_FRONTEND=noninteractive
    command -v apt-get >/dev/null || fail "the packages$missing are missing, and there is no apt-get"
    # The image may still be busy with its own upgrades.
    try apt-get -q -o DPkg::Lock::Timeout=600 update
    # shellcheck disable=SC2086 # a list of words
    try apt-get -q -y -o DPkg::Lock::Timeout=600 install --no-install-recommends $missing
fi

begin root
if [ -n "$ROOT_KEY" ]; then
    # Images put a key here that does nothing but tell of another user.
    mkdir -p /root/.ssh
    chmod 0700 /root/.ssh
    printf '%s\n' "$ROOT_KEY" >/root/.ssh/authorized_keys.new
    chmod 0600 /root/.ssh/authorized_keys.new
    mv /root/.ssh/authorized_keys.new /root/.ssh/authorized_keys
fi

begin kvm
# What Firecracker needs, asked of the kernel: a processor's flags promise it and do not keep it.
# KVM_GET_API_VERSION, KVM_CREATE_VM, KVM_CREATE_VCPU: linux/kvm.h, Documentation/virt/kvm/api.rst, section 4.
kvm=$(python3 - 2>"$LOG" <<'EOF'
import fcntl, os
try:
    device = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
except FileNotFoundError:
    print("absent")
except OSError:
    print("unusable")
else:
    try:
        if fcntl.ioctl(device, 0xAE00, 0) != 12:
            raise OSError("another version of the API")
        machine = fcntl.ioctl(device, 0xAE01, 0)
        fcntl.ioctl(machine, 0xAE41, 0)
        print("usable")
    except OSError:
        print("unusable")
EOF
) || fail "$(tail -n 1 "$LOG")"
if [ "$kvm" != usable ] && [ "$WANT_KVM" = 1 ]; then
    case $kvm in
    absent) fail 'there is no /dev/kvm: this type of machine has none, or nesting is not switched on' ;;
    *) fail '/dev/kvm is there, and makes no machine' ;;
    esac
fi

begin firecracker
place=/usr/local/lib/firelane/firecracker
if [ -n "$FIRECRACKER_URL" ] && [ "$(cat $place/sha256 2>/dev/null)" != "$FIRECRACKER_SHA256" ]; then
    rm -rf $place $place.new
    mkdir -p $place.new
    try curl --fail --silent --show-error --location --proto '=https,http,file' --retry 4 --connect-timeout 20 \
        --max-time 300 --max-filesize 100000000 --output $place.new/archive "$FIRECRACKER_URL"
    sum=$(sha256sum <$place.new/archive | cut -d ' ' -f 1)
    if [ "$sum" != "$FIRECRACKER_SHA256" ]; then
        rm -rf $place.new
        fail "the SHA-256 of $FIRECRACKER_URL is $sum, and not $FIRECRACKER_SHA256: it is not used"
    fi
    try tar -C $place.new -xzf $place.new/archive --no-same-owner --strip-components 1 --wildcards \
        'release-v*/firecracker-v*-x86_64' 'release-v*/jailer-v*-x86_64'
    rm $place.new/archive
    for program in firecracker jailer; do
        mv $place.new/$program-v* $place.new/$program
        chmod 0755 $place.new/$program
    done
    printf '%s' "$FIRECRACKER_SHA256" >$place.new/sha256
    mv $place.new $place
fi

step='the end'
status ready ''
rm -f "$LOG"
echo "prepare: done, KVM is $kvm"
