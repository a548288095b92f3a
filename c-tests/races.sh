#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The driver's programs under the thread sanitizer: the library, Rust's own
# library below it and the C side are all built for it. Reports it and is skipped
# (77) if Rust's sources can't be had.
#
# usage: races.sh [RUNS]      the number of migrations in the stress test (300)
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${1:-300}
target=${CARGO_TARGET_DIR:-$PWD/target}/races
host=$(rustc -vV | sed -n 's/^host: //p')

# A stable compiler can do it as well, with this variable.
export RUSTC_BOOTSTRAP=1
toolchain=
for name in "" +nightly; do
    # shellcheck disable=SC2086
    sysroot=$(rustc $name --print sysroot 2>/dev/null) || continue
    if [ -d "$sysroot/lib/rustlib/src/rust/library" ] || \
        rustup component add rust-src ${name:+--toolchain ${name#+}} >/dev/null 2>&1; then
        toolchain=$name
        break
    fi
    sysroot=
done
runtime=$(find "${sysroot:-/nonexistent}/lib/rustlib/$host/lib" -name 'librustc-*_rt.tsan.a' 2>/dev/null | head -n 1)
if [ -z "$runtime" ]; then
    echo "SKIPPED: no Rust sources or no thread sanitizer; races were not looked for"
    exit 77
fi

# shellcheck disable=SC2086
RUSTFLAGS=-Zsanitizer=thread cargo $toolchain rustc --quiet --locked --lib --crate-type staticlib \
    -Zbuild-std --target "$host" --target-dir "$target"

export TSAN_OPTIONS="exitcode=66 ${TSAN_OPTIONS:-}" SAVEVM_TEST_SLOW=10 SAVEVM_STRESS_RUNS=$runs
# Sources with tests are programs, the others help them. The sanitizer does not support threads in a process that was forked.
compile() {
    ${CC:-cc} -std=gnu11 -g -O1 -fsanitize=thread -Ic-tests/lib -Iinclude -c "$1" -o "$2"
}
programs=$(grep -l '^TEST(' c-tests/driver/*.c | xargs grep -L 'fork()')
helpers=$target/helpers.a
rm -f "$helpers"
for source in c-tests/lib/harness.c $(grep -L '^TEST(' c-tests/driver/*.c); do
    object=$target/$(basename "$source" .c).o
    compile "$source" "$object"
    ar rc "$helpers" "$object"
done
for source in $programs; do
    program=$target/$(basename "$source" .c)
    compile "$source" "$program.o"
    # The sanitizer's runtime is Rust's: there is one in a program.
    ${CC:-cc} -o "$program" "$program.o" "$helpers" "$target/$host/debug/libsavevm.a" \
        -Wl,--whole-archive "$runtime" -Wl,--no-whole-archive -Wl,--export-dynamic -lpthread -ldl -lm -lrt
    "$program"
done
