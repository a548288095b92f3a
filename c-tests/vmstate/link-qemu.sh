#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Links the cases with QEMU's own vmstate.c, vmstate-types.c and qemu-file.c,
# out of a built tree of QEMU (x86_64-softmmu is enough, with test-vmstate):
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
for file in "$@"; do
    objects="$objects $(absolute "$file")"
done

. "$here/../lib/qemu-objects.sh"
cd "$QEMU_BUILD"
ninja -t commands $unit >"$output.commands"
compile=$(grep -- "-o $object " "$output.commands" | sed 's, -MD .*,,')
link=$(grep -- "-o $unit " "$output.commands")
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
command=$(echo "$link" | sed "s| -o $unit | -o $output |; s| $object | $ours |
    s/-Wl,--no-undefined//; s/-Wl,-z,now//; s/ -pie / /")
# shellcheck disable=SC2086
$command ${QEMU_LINK_OPTIONS:-} -no-pie -Wl,-z,notext -Wl,--allow-multiple-definition -Wl,--unresolved-symbols=ignore-all 2>"$output.log" ||
    { cat "$output.log" >&2; exit 1; }
