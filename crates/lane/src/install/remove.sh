#!/bin/sh
# Removes what install.sh put on this machine, as its manifest lists it, and nothing else. As root.
#
# Can be run again after it was interrupted: the manifest goes last.
set -eu

etc=/etc/firelane
manifest=$etc/manifest
# What was sent or downloaded, whether or not it was installed.
rm -rf /var/lib/firelane-incoming /var/lib/firelane-build /usr/local/lib/firelane/firecracker /usr/local/lib/firelane/firecracker.new
if [ -d /usr/local/lib/firelane ]; then rmdir --ignore-fail-on-non-empty /usr/local/lib/firelane; fi
if [ ! -e "$manifest" ]; then
    echo 'nothing to remove'
    exit 0
fi

units=$(sed -n 's#^file /etc/systemd/system/##p' "$manifest")
for unit in $units; do
    systemctl disable --now --quiet "$unit" || true
    systemctl reset-failed --quiet "$unit" 2>/dev/null || true
done

sed -n 's/^file //p' "$manifest" | while read -r path; do
    rm -f "$path" "$path.new"
done
[ -z "$units" ] || systemctl daemon-reload
sed -n 's/^user //p' "$manifest" | while read -r user; do
    if getent passwd "$user" >/dev/null; then userdel "$user"; fi
done
sed -n 's/^group //p' "$manifest" | while read -r group; do
    if getent group "$group" >/dev/null; then groupdel "$group"; fi
done
# The deepest first. Only the service's own folder is ours with all that is in it; others may have been used since.
sed -n 's/^folder //p' "$manifest" | sort -r | while read -r path; do
    case $path in
    /var/lib/firelane/serve) rm -rf "$path" ;;
    "$etc") ;;
    *) rmdir --ignore-fail-on-non-empty "$path" ;;
    esac
done
ours=$(grep -cxF "folder $etc" "$manifest" || true)
rm -f "$manifest"
if [ "$ours" = 1 ]; then rmdir --ignore-fail-on-non-empty "$etc"; fi
