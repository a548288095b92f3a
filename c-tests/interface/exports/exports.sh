#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The exports of the shared library are exactly those of the list: functions (T)
# and data (D) with their sizes, which are part of the ABI too, as programs copy
# them. And its soname is what programs were linked for.
#
# usage: exports.sh LIBRARY LIST            compares
#        exports.sh --update LIBRARY LIST   writes the list
set -eu

update=
if [ "$1" = --update ]; then
    update=yes
    shift
fi
library=$1
list=$2
found=$(mktemp)
trap 'rm -f "$found"' EXIT INT TERM

nm -D --defined-only -S "$library" | LC_ALL=C awk '
    $3 == "T" { print "T", $4; next }
    { if ($3 == "R" || $3 == "B") $3 = "D"; sub(/^0+/, "", $2); print $3, $4, "0x" $2 }' |
    LC_ALL=C sort -k2 >"$found"
if [ -n "$update" ]; then
    cp "$found" "$list"
    exit 0
fi
failed=0
if ! diff -u "$list" "$found"; then
    echo "the exports changed; if that is meant: $0 --update $library $list"
    failed=1
fi
soname=$(readelf -d "$library" | sed -n 's/.*(SONAME).*\[\(.*\)\].*/\1/p')
if [ "$soname" != libsavevm.so.0 ]; then
    echo "the soname is '$soname', expected libsavevm.so.0"
    failed=1
fi
echo "$(wc -l <"$found") exports"
exit $failed
