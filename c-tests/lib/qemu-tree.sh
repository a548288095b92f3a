# SPDX-License-Identifier: LGPL-2.1-or-later
#
# For scripts that read this file: sets QEMU_BUILD to the built tree of QEMU
# $version. Without such a tree the script ends, and its test is skipped.
case $version in
5.2) QEMU_BUILD=${QEMU_BUILD_5_2:-} ;;
10.0) QEMU_BUILD=${QEMU_BUILD_10:-} ;;
10.2) QEMU_BUILD=${QEMU_BUILD_10_2:-} ;;
esac
if [ -z "${QEMU_BUILD:-}" ]; then
    echo "no built tree of QEMU $version: QEMU_BUILD_5_2 (5.2), QEMU_BUILD (7.2), QEMU_BUILD_10 (10.0) or" \
        "QEMU_BUILD_10_2 (10.2) names one"
    exit 77
fi
export QEMU_BUILD
