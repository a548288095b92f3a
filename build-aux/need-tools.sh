#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Names the tools that are missing; on Debian, as root, installs them.
set -e
packages=
need() { command -v "$1" >/dev/null 2>&1 || packages="$packages $2"; }
need meson meson
need ninja ninja-build
need cc gcc
need c++ g++
need pkg-config pkg-config
need nm binutils
need python3 python3
if ! command -v cargo >/dev/null 2>&1; then
    echo "cargo is missing: install Rust 1.87 or later (https://rustup.rs)" >&2
    exit 1
fi
[ -z "$packages" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update -q
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages
else
    echo "missing tools; install:$packages" >&2
    exit 1
fi
