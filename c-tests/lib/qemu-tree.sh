# SPDX-License-Identifier: LGPL-2.1-or-later
#
# For scripts that read this file: sets QEMU_BUILD to the built tree of QEMU
# $version, which a variable such as QEMU_BUILD_10_2 names, or QEMU_BUILD for
# 7.2. Without such a tree the script ends, and its test is skipped.
variable=QEMU_BUILD
[ "$version" = 7.2 ] || variable=QEMU_BUILD_$(echo "$version" | tr . _)
eval "QEMU_BUILD=\${$variable:-}"
if [ -z "$QEMU_BUILD" ]; then
    echo "$variable names no built tree of QEMU $version: skipped"
    exit 77
fi
export QEMU_BUILD
