# shellcheck shell=bash
# A machine that always runs, reached by the name in MACHINE: the smallest script that is a provider.
#
#   MACHINE=box.example firelane up --provider ./providers/fixed.sh --label mine
#
# The machine has to take the cloud-init document by itself: MACHINE_USER_DATA is a command that is given it.
# environment: MACHINE MACHINE_USER_DATA

provider_default_instance_type() { echo fixed; }

provider_default_region() { echo fixed; }

provider_up() { # LABEL FILE
    : "${MACHINE:?set it to the name of the machine}"
    if [ -n "${MACHINE_USER_DATA:-}" ]; then
        echo "giving the document of $1 to $MACHINE_USER_DATA" >&2
        "$MACHINE_USER_DATA" "$2" >&2
    fi
    echo "$MACHINE"
}

provider_down() { # LABEL or nothing: the machine stays
    echo "${1:-every lane}: $MACHINE stays" >&2
}
