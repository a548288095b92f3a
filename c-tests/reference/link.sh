#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Links test programs with the objects of a built QEMU 7.2 tree (x86_64-softmmu,
# with tests/unit/test-vmstate built): savevm.c, qemu-file.c, vmstate.c and what
# they depend on. The programs themselves are compiled with our headers, as
# unknown device code is.
#
# usage: QEMU_BUILD=tree link.sh OUTDIR SOURCE...
# Every SOURCE has a main() and becomes OUTDIR/<its name>-qemu.
set -eu

: "${QEMU_BUILD:?names the built QEMU tree}"
: "${CC:=cc}"
here=$(cd "$(dirname "$0")" && pwd)
tests=$(dirname "$here")
lib=$tests/lib
out=$1
shift
mkdir -p "$out"
out=$(cd "$out" && pwd)

object=tests/unit/test-vmstate.p/test-vmstate.c.o
if [ ! -e "$QEMU_BUILD/$object" ] || [ ! -e "$QEMU_BUILD/libcommon.fa.p/migration_savevm.c.o" ]; then
    echo "$QEMU_BUILD has no built tests/unit/test-vmstate and qemu-system-x86_64" >&2
    exit 1
fi

# Compile as QEMU compiles its own unit tests, and link as it links them.
command_of() {
    ninja -C "$QEMU_BUILD" -t commands "$1" | sed '/^ninja: /d' | tail -n 1
}
flags=$(command_of "$object" | sed 's/^[^ ]* //; s/ -MD .*//')
link=$(command_of tests/unit/test-vmstate)
before=$(printf '%s' "$link" | sed "s,^[^ ]* ,,; s, -o [^ ]* [^ ]*test-vmstate.c.o.*,,")
after=$(printf '%s' "$link" | sed 's,.*test-vmstate\.c\.o ,,')

# QEMU's flags only hold in its build directory, so the sources need full names.
sources=
for source in "$@"; do
    sources="$sources $(cd "$(dirname "$source")" && pwd)/$(basename "$source")"
done
cd "$QEMU_BUILD"
for unit in backend_qemu backend_files_qemu stubs_qemu; do
    # shellcheck disable=SC2086
    $CC $flags -Wno-unused-parameter -iquote "$tests" -iquote "$lib" -c -o "$out/$unit.o" "$here/$unit.c"
done
ours="-O2 -g -std=gnu11 -Wall -Wextra -I$tests/../include -I$lib"
# shellcheck disable=SC2086
for unit in "$here/never.c" "$lib/trace.c" "$lib/harness.c" "$lib/devices.c"; do
    name=$(basename "$unit" .c)
    $CC $ours -fPIE -c -o "$out/$name.o" "$unit"
done
# An archive, as a program with a main() of its own takes no harness.
ar rcs "$out/libtests.a" "$out/trace.o" "$out/harness.o" "$out/devices.o"
for source in $sources; do
    name=$(basename "$source" .c)
    # shellcheck disable=SC2086
    $CC $ours -fPIE -c -o "$out/$name.o" "$source"
    # shellcheck disable=SC2086
    $CC $before -o "$out/$name-qemu" "$out/$name.o" "$out/backend_qemu.o" "$out/backend_files_qemu.o" "$out/stubs_qemu.o" "$out/never.o" \
        "$out/libtests.a" \
        libcommon.fa.p/migration_savevm.c.o libhwcore.fa.p/hw_core_vmstate-if.c.o \
        -Wl,--wrap=qemu_file_get_return_path,--wrap=qemu_bh_new_full,--wrap=qemu_bh_schedule $after
done
