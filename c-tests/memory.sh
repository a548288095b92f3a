#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The C programs under the address sanitizer, which looks for leaks as well: the
# library and the C side are built for it, in a build directory of their own.
# Reports it and is skipped (77) if the compiler has no such sanitizer.
#
# usage: memory.sh BUILD
set -euo pipefail
source=$(cd "$(dirname "$0")/.." && pwd)
build=${1:?usage: memory.sh BUILD}

if ! echo 'int main(void) { return 0; }' | ${CC:-cc} -fsanitize=address -x c -o /dev/null - 2>/dev/null; then
    echo "SKIPPED: ${CC:-cc} has no address sanitizer; the C programs did not run under it"
    exit 77
fi

# A stable compiler can do it as well, with this variable. With a target of its own
# the flags are for the library alone, and not for what runs inside the compiler.
export RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address
CARGO_BUILD_TARGET=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_BUILD_TARGET
# leaks.txt names source files, which a build without full debug information does not always have.
export CARGO_PROFILE_DEV_DEBUG=full
[ -f "$build/build.ninja" ] || meson setup "$build" "$source" \
    -Dbuildtype=debug -Db_sanitize=address -Db_lundef=false -Dcli=false -Dexamples=false >/dev/null
ninja -C "$build" --quiet

export LSAN_OPTIONS="suppressions=$source/c-tests/leaks.txt:print_suppressions=0 ${LSAN_OPTIONS:-}" SAVEVM_TEST_SLOW=4
meson test -C "$build" --no-rebuild --suite c --suite vmstate --suite ram --suite faults --no-suite qemu --timeout-multiplier 4 \
    --print-errorlogs --quiet
