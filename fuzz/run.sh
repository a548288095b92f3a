#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Runs each fuzz target for SECONDS, from the corpora that seeds.py writes.
# The first finding ends the run; its input is in artifacts/. Needs a nightly
# toolchain and cargo-fuzz: -i installs them if possible. Exits with status 77
# if they are missing.
#
# usage: run.sh [-i] SECONDS [TARGET...]
set -eu

cd "$(dirname "$0")"
install=
if [ "${1:-}" = -i ]; then
    install=yes
    shift
fi
seconds=${1:?usage: run.sh [-i] SECONDS [TARGET...]}
shift

skip() {
    echo "fuzzing is skipped: $1"
    exit 77
}

has_nightly() { cargo +nightly --version >/dev/null 2>&1; }
has_fuzz() { cargo fuzz --version >/dev/null 2>&1; }
if [ -n "$install" ]; then
    has_nightly || rustup toolchain install nightly --profile minimal >/dev/null 2>&1 || :
    has_fuzz || cargo install cargo-fuzz --locked --quiet || :
fi
has_nightly || skip 'there is no nightly toolchain'
has_fuzz || skip 'there is no cargo-fuzz'

export CARGO_TARGET_DIR="${FUZZ_TARGET_DIR:-$PWD/target}"
cargo +nightly fuzz build ${FUZZ_BUILD_FLAGS:-}
python3 seeds.py
[ $# -gt 0 ] || set -- $(cargo fuzz list)
for target; do
    echo "fuzzing $target for $seconds s"
    log=$(mktemp)
    if ! cargo +nightly fuzz run ${FUZZ_BUILD_FLAGS:-} "$target" -- -max_total_time="$seconds" -timeout=20 \
        -rss_limit_mb=3000 -print_final_stats=1 >"$log" 2>&1; then
        tail -n 60 "$log"
        rm -f "$log"
        exit 1
    fi
    grep -e number_of_executed_units "$log" || :
    rm -f "$log"
done
