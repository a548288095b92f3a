#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Links test programs with the objects of a built tree of QEMU 5.2, 7.2, 10.0 or
# 10.2 (x86_64-softmmu, with test-vmstate built): savevm.c, qemu-file.c, vmstate.c
# and what they depend on. The programs themselves are compiled with our headers,
# as unknown device code is, for the version of the tree.
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

. "$lib/qemu-objects.sh"
number_of() {
    sed -n "s/^#define QEMU_VERSION_$1 //p" "$QEMU_BUILD/config-host.h"
}
version=$(($(number_of MAJOR) * 100 + $(number_of MINOR)))

# Compile as QEMU compiles its own unit tests, and link as it links them.
command_of() {
    ninja -C "$QEMU_BUILD" -t commands "$unit" | grep -- " -o $1 "
}
flags=$(command_of "$object" | sed 's/^\(ccache \)\{0,1\}[^ ]* //; s/ -MD .*//')
link=$(command_of "$unit" | sed "s,^[^ ]* ,,; s, -o $unit ,&,")

# QEMU's flags only hold in its build directory, so the sources need full names.
sources=
for source in "$@"; do
    sources="$sources $(cd "$(dirname "$source")" && pwd)/$(basename "$source")"
done
cd "$QEMU_BUILD"
selected="-DSAVEVM_QEMU_VERSION=$version -DSAVEVM_PLAIN_NAMES"
differs=stubs_older_qemu
link_options=-Wl,--wrap=qemu_file_get_return_path
vmstate_if=libhwcore.fa.p/hw_core_vmstate-if.c.o
if [ "$version" -ge 1000 ]; then
    differs=stubs_newer_qemu
    # 10.2 has a stub of some functions of savevm.c beside another one that is needed; the first counts.
    link_options=$link_options,--allow-multiple-definition
    vmstate_if=libhwcore.a.p/hw_core_vmstate-if.c.o
elif [ "$version" -ge 700 ]; then
    selected=
    link_options=$link_options,--wrap=qemu_bh_new_full,--wrap=qemu_bh_schedule
else
    link_options=$link_options,--wrap=qemu_bh_new,--wrap=qemu_bh_schedule,--wrap=qemu_thread_create
    # The same functions by the names of 7.2.
    for names in total_transferred=qemu_ftell total_transferred_fast=qemu_ftell_fast \
        credit_transfer=qemu_update_position acct_rate_limit=qemu_file_update_transfer; do
        link_options=$link_options,--defsym=qemu_file_$names
    done
fi
units=
for unit_name in backend_qemu backend_files_qemu phases_qemu stubs_qemu $differs; do
    # shellcheck disable=SC2086
    $CC $flags -Wno-unused-parameter -DSAVEVM_QEMU_VERSION="$version" -iquote "$tests" -iquote "$lib" \
        -c -o "$out/$unit_name.o" "$here/$unit_name.c"
    units="$units $out/$unit_name.o"
done
ours="-O2 -g -std=gnu11 -Wall -Wextra -fPIE $selected -I$tests/../include -I$lib"
# shellcheck disable=SC2086
for source in "$here/never.c" "$lib/trace.c" "$lib/harness.c" "$lib/devices.c"; do
    $CC $ours -c -o "$out/$(basename "$source" .c).o" "$source"
done
# Archives: a program with a main() of its own takes no harness, and what QEMU's
# objects have themselves is not taken from never.c.
rm -f "$out/libtests.a" "$out/libnever.a"
ar rcs "$out/libtests.a" "$out/trace.o" "$out/harness.o" "$out/devices.o"
ar rcs "$out/libnever.a" "$out/never.o"
for source in $sources; do
    name=$(basename "$source" .c)
    # shellcheck disable=SC2086
    $CC $ours -c -o "$out/$name.o" "$source"
    objects="$out/$name.o $units $out/libtests.a $savevm $vmstate_if"
    # shellcheck disable=SC2086
    $CC $(printf '%s' "$link" | sed "s, -o $unit , -o $out/$name-qemu ,; s, $object , $objects ,
        s,-Wl\,--start-group,&,") $link_options "$out/libnever.a"
done
