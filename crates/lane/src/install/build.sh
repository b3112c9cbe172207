#!/bin/sh
# Builds the programs of a release from the sources that were sent. As root: build.sh FOLDER
#
# What is built is kept beside, so that the next deploy builds only what changed; remove.sh removes it.
set -eu
umask 022

from=$1
export CARGO_TARGET_DIR=/var/lib/firelane-build
export HOME="${HOME:-/root}"

if ! command -v make >/dev/null; then
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600 install --no-install-recommends make
fi
mkdir -p "$CARGO_TARGET_DIR"
make -C "$from/sources" dist
mkdir -p "$from/bin"
cp "$CARGO_TARGET_DIR"/dist/firelane/bin/* "$from/bin/"
