# shellcheck shell=bash
# Machines of Hetzner Cloud by its own command, hcloud. They have no KVM: say --no-kvm.
#
#   HCLOUD_TOKEN=... firelane up --provider ./providers/hcloud.sh --label mine --no-kvm
#
# environment: HCLOUD_TOKEN HCLOUD_ENDPOINT HCLOUD_CONFIG

provider_default_instance_type() { echo cx43; }

provider_default_region() { echo fsn1; }

provider_up() { # LABEL FILE
    hcloud server create --name "firelane-$1" --type "$INSTANCE_TYPE" --location "$REGION" \
        --image ubuntu-24.04 --user-data-from-file "$2" \
        --label mvm-ephemeral=true --label "firelane-label=$1" \
        --label "firelane-lane=$LANE" --label "firelane-owner=$OWNER" --label "firelane-expires=$EXPIRES" >&2
    hcloud server ip "firelane-$1"
}

provider_down() { # LABEL, or nothing for all
    local selector='mvm-ephemeral=true' ids id
    if [ -n "$1" ]; then selector="$selector,firelane-label=$1"; fi
    # Somebody else may have a server with the same label.
    if [ -n "${LANE:-}" ]; then selector="$selector,firelane-lane=$LANE"; fi
    ids=$(hcloud server list --selector "$selector" --output noheader --output columns=id)
    for id in $ids; do
        hcloud server delete "$id" >&2
    done
}
