#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Links the cases with QEMU's own vmstate.c, vmstate-types.c and qemu-file.c,
# out of a tree of QEMU 7.2, 10.0 or 10.2 that was built (x86_64-softmmu is enough,
# with tests/unit/test-vmstate):
#
#   QEMU_BUILD=tree link-qemu.sh OUTPUT OBJECT_OR_ARCHIVE...
#
# The objects are those that libsavevm is tested with, compiled for the version
# of the tree. QEMU_UNITS are compiled with the flags of QEMU's unit test; the
# default is files_qemu.c, beside this script. QEMU_LINK_OPTIONS are passed to the
# compiler.
set -eu

: "${QEMU_BUILD:?names the built QEMU tree}"
here=$(cd "$(dirname "$0")" && pwd)
absolute() {
    echo "$(cd "$(dirname "$1")" && pwd)/$(basename "$1")"
}

output=$(absolute "$1")
shift
objects=
for object in "$@"; do
    objects="$objects $(absolute "$object")"
done

cd "$QEMU_BUILD"
program=tests/unit/test-vmstate
unit=$program.p/test-vmstate.c.o
savevm=
# Up to 9.0, from 9.1, and from 10.1 on.
for library in libcommon.fa libcommon.a libsystem.a; do
    [ ! -e $library.p/migration_savevm.c.o ] || savevm=$library.p/migration_savevm.c.o
done
if [ ! -e $program ] || [ -z "$savevm" ]; then
    echo "$QEMU_BUILD has no built $program and qemu-system-x86_64" >&2
    exit 1
fi
ninja -t commands $program >"$output.commands"
compile=$(grep -- "-o $unit " "$output.commands" | sed 's, -MD .*,,')
link=$(grep -- "-o $program " "$output.commands")
rm -f "$output.commands"

# shellcheck disable=SC2086
for source in ${QEMU_UNITS:-"$here/files_qemu.c"}; do
    name=$output.$(basename "$source" .c).o
    $compile -Wno-unused-parameter -iquote "$here/.." -iquote "$here/../lib" -I"$here" -o "$name" -c "$source"
    objects="$objects $name"
done

# Timers live in savevm.c. Nothing else of it is called, so what that would
# need may stay open, which takes a program at a fixed address. 10.2 has a stub of
# some functions of savevm.c beside another one that is needed; the first counts.
ours="-Wl,--whole-archive $objects -Wl,--no-whole-archive $savevm"
command=$(echo "$link" | sed "s| -o $program | -o $output |; s| $unit | $ours |
    s/-Wl,--no-undefined//; s/-Wl,-z,now//; s/ -pie / /")
# shellcheck disable=SC2086
$command ${QEMU_LINK_OPTIONS:-} -no-pie -Wl,-z,notext -Wl,--allow-multiple-definition -Wl,--unresolved-symbols=ignore-all 2>"$output.log" ||
    { cat "$output.log" >&2; exit 1; }
