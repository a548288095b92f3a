# SPDX-License-Identifier: LGPL-2.1-or-later
#
# For scripts that read this file: looks for objects in the built tree that
# QEMU_BUILD names, and ends the script if they are missing. Sets
#   unit     the unit test of VMState, whose commands compile and link the programs
#   object   its object
#   savevm   the object of savevm.c
unit=tests/unit/test-vmstate
# Up to 5.2.
[ -d "$QEMU_BUILD/$unit.p" ] || unit=tests/test-vmstate
object=$unit.p/test-vmstate.c.o
savevm=
# Up to 9.0, from 9.1, and from 10.1 on.
for library in libcommon.fa libcommon.a libsystem.a; do
    [ ! -e "$QEMU_BUILD/$library.p/migration_savevm.c.o" ] || savevm=$library.p/migration_savevm.c.o
done
if [ ! -e "$QEMU_BUILD/$unit" ] || [ ! -e "$QEMU_BUILD/$object" ] || [ -z "$savevm" ]; then
    echo "$QEMU_BUILD has no built $unit and qemu-system-x86_64 of an unmodified QEMU" >&2
    exit 1
fi
