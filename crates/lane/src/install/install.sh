#!/bin/sh
# Puts a release into place and starts its services. As root: install.sh FOLDER
#
# Every step is written to /etc/firelane/deploy-status before it is done, so that a step that failed is
# known. What was not there before is added to the manifest first, and only then made: remove.sh takes
# away what the manifest lists, whether or not this script came to its end.
set -eu
umask 022

from=$1
etc=/etc/firelane
manifest=$etc/manifest

step() { # WORDS... : what is about to be done
    if [ -d "$etc" ]; then
        printf 'failed: %s\n' "$*" >"$etc/.deploy-status"
        mv "$etc/.deploy-status" "$etc/deploy-status"
    fi
    printf 'step: %s\n' "$*"
}

note() { # KIND NAME : it was not there before
    grep -qxF "$1 $2" "$manifest" 2>/dev/null || printf '%s %s\n' "$1" "$2" >>"$manifest"
    sync "$manifest"
}

folder() { # PATH MODE OWNER
    if [ ! -d "$1" ]; then
        note folder "$1"
        mkdir -p "$1"
    fi
    chmod "$2" "$1"
    chown "$3" "$1"
}

place() { # FROM TO MODE OWNER : whole or not at all
    if [ ! -e "$2" ]; then
        note file "$2"
    elif ! grep -qxF "file $2" "$manifest" && ! cmp -s "$1" "$2"; then
        printf '%s is there already, and was not put there by a lane\n' "$2" >&2
        exit 1
    fi
    if ! cmp -s "$1" "$2"; then
        cp "$1" "$2.new"
        chmod "$3" "$2.new"
        chown "$4" "$2.new"
        mv "$2.new" "$2"
        changed=1
    fi
}

if [ ! -d "$etc" ]; then
    mkdir -p "$etc"
    printf 'folder %s\n' "$etc" >"$manifest"
fi
[ -e "$manifest" ] || : >"$manifest"

step groups and users
if ! getent group firelane >/dev/null; then
    note group firelane
    groupadd --system firelane
fi
if ! getent passwd firelane-serve >/dev/null; then
    note user firelane-serve
    useradd --system --gid firelane --home-dir /var/lib/firelane/serve --no-create-home \
        --shell /usr/sbin/nologin firelane-serve
fi

step folders
chmod 0755 "$etc"
folder /var/lib/firelane 0755 root:root
folder /var/lib/firelane/serve 0750 firelane-serve:firelane

changed=0
while read -r kind name; do
    case $kind in
    program)
        step program "$name"
        place "$from/bin/$name" "/usr/local/bin/$name" 0755 root:root
        ;;
    unit)
        step unit "$name"
        place "$from/units/$name" "/etc/systemd/system/$name" 0644 root:root
        ;;
    setting)
        step setting "$name"
        place "$from/etc/$name" "$etc/$name" 0640 root:firelane
        ;;
    *)
        printf 'the plan has an unknown line: %s %s\n' "$kind" "$name" >&2
        exit 1
        ;;
    esac
done <"$from/plan"

# What the machine downloaded when it was prepared; what was brought comes first.
for program in firecracker jailer; do
    downloaded=/usr/local/lib/firelane/firecracker/$program
    if [ -e "$downloaded" ] && [ ! -e "$from/bin/$program" ]; then
        step program "$program"
        place "$downloaded" "/usr/local/bin/$program" 0755 root:root
    fi
done

if [ -d "$from/store" ]; then
    step templates
    cp -R --no-preserve=ownership "$from/store/." /var/lib/firelane/serve/
    chown -R firelane-serve:firelane /var/lib/firelane/serve
fi

step daemon-reload
systemctl daemon-reload
units=$(sed -n 's/^unit //p' "$from/plan")
for unit in $units; do
    step start "$unit"
    systemctl enable --quiet "$unit"
    if [ "$changed" = 1 ]; then
        systemctl restart "$unit"
    else
        systemctl start "$unit"
    fi
done

step health
# The services answer for themselves: hostd on its socket, the API on its address.
deadline=$(($(date +%s) + 600))
until curl --silent --fail --max-time 5 --output /dev/null "http://127.0.0.1:7300/readyz"; do
    for unit in $units; do
        # One that systemd starts again and again never counts as failed.
        restarts=$(systemctl show --property NRestarts --value "$unit")
        if systemctl is-failed --quiet "$unit" || [ "$restarts" -ge 3 ]; then
            journalctl --no-pager -n 40 -u "$unit" >&2
            printf '%s fails again and again\n' "$unit" >&2
            exit 1
        fi
    done
    if [ "$(date +%s)" -ge "$deadline" ]; then
        journalctl --no-pager -n 40 -u firelane.service >&2
        printf 'the API is not ready after 600 s\n' >&2
        exit 1
    fi
    sleep 1
done
for unit in $units; do
    systemctl is-active --quiet "$unit" || {
        printf '%s is not active\n' "$unit" >&2
        exit 1
    }
done

printf 'ready\n' >"$etc/.deploy-status"
mv "$etc/.deploy-status" "$etc/deploy-status"
grep -qxF "file $etc/deploy-status" "$manifest" || printf 'file %s\n' "$etc/deploy-status" >>"$manifest"
echo 'step: ready'
