#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Compiles every header the way unknown programs will: alone, twice, in any
# company, from two units of one program, as strict C99 and as C++. Then the
# type checks of the VMState macros: each wrong use is refused with one error, in
# all C standards, and by clang too where it is installed.
# All of it is done once for each QEMU version as well, except the single headers
# and the wrong uses.
#
# usage: check-headers.sh INCLUDE_DIR [INCLUDE_DIR...]
# CC and CXX name the compilers; without a C++ compiler that half is skipped
# and reported.
set -u

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT INT TERM

: "${CC:=cc}"
if [ -z "${CXX:-}" ]; then
    CXX=$(command -v c++ || command -v g++ || command -v clang++ || true)
fi

search=
for dir in "$@"; do
    dir=$(cd "$dir" && pwd) || exit 1
    search="$search -I$dir"
    (cd "$dir" && find . -name '*.h') | sed 's,^\./,,' >>"$work/list"
done
sort -u -o "$work/list" "$work/list"
headers=$(cat "$work/list")
count=$(wc -l <"$work/list")
if [ "$count" -lt 8 ]; then
    echo "only $count headers found in: $*"
    exit 1
fi

warnings='-Wall -Wextra -Werror'
c99="$CC -std=c99 $warnings -Wpedantic $search"
cxx="$CXX -std=c++11 $warnings $search"
failed=0

# $1 what is tried, in words
complain() {
    failed=$((failed + 1))
    echo "FAIL: $1"
    sed -n 's/^/    /; 1,8p' "$work/log"
}

# $1 what is tried, $2 object file, $3 unit, $4... command
compiles() {
    what=$1 object=$2 unit=$3
    shift 3
    "$@" -c -o "$object" "$unit" >"$work/log" 2>&1 || complain "$what"
}

include() {
    for name in "$@"; do
        printf '#include "%s"\n' "$name"
    done
}

reverse() {
    sed -n '1!G;h;$p' "$work/list"
}

# A unit is not empty even if the header is.
both_languages() {
    echo "extern int savevm_header_test;" >>"$work/unit.c"
    # shellcheck disable=SC2086
    compiles "$1 as C99" /dev/null "$work/unit.c" $c99
    if [ -n "$CXX" ]; then
        # shellcheck disable=SC2086
        compiles "$1 as C++" /dev/null "$work/unit.c" $cxx -x c++
    fi
}

for header in $headers; do
    include "$header" >"$work/unit.c"
    both_languages "$header alone"
    include "$header" "$header" >"$work/unit.c"
    both_languages "$header twice"
    # shellcheck disable=SC2046
    include "$header" $(reverse) >"$work/unit.c"
    both_languages "$header before all others"
done
# shellcheck disable=SC2086
include $headers $headers >"$work/unit.c"
both_languages "all headers twice"

# The headers of each QEMU version, with inline functions and without; every
# macro of the version; and a version that does not exist.
macros() {
    printf '#define SAVEVM_QEMU_VERSION %s\n%s\n' "$1" "$2"
    cat "$here/macros.c"
}
# shellcheck disable=SC2086
for version in 500 502 600 601 700 702 800 801 802 900 901 902 1000 1001 1002; do
    for names in '' '#define SAVEVM_PLAIN_NAMES'; do
        { printf '#define SAVEVM_QEMU_VERSION %s\n%s\n' $version "$names"; include $headers $headers; } >"$work/unit.c"
        both_languages "all headers of QEMU $version $names"
        macros $version "$names" >"$work/unit.c"
        both_languages "every macro of QEMU $version $names"
    done
done
for version in 402 1100; do
    { echo "#define SAVEVM_QEMU_VERSION $version"; include migration/vmstate.h; } >"$work/unit.c"
    # shellcheck disable=SC2086
    if $c99 -c -o /dev/null "$work/unit.c" >"$work/log" 2>&1; then
        complain "QEMU version $version is accepted"
    elif ! grep -q 'SAVEVM_QEMU_VERSION must be 500 to 1002' "$work/log"; then
        complain "QEMU version $version"
    fi
done

# Two units, and a third in C++, in one program: nothing is defined twice.
# shellcheck disable=SC2086
{
    include $headers >"$work/one.c"
    cp "$work/one.c" "$work/two.c"
    cp "$work/one.c" "$work/three.cc"
    echo 'int main(void) { return 0; }' >>"$work/one.c"
    echo 'extern int two; int two;' >>"$work/two.c"
    echo 'extern int three; int three;' >>"$work/three.cc"
    compiles "all headers, first unit" "$work/one.o" "$work/one.c" $c99
    compiles "all headers, second unit" "$work/two.o" "$work/two.c" $c99
    objects="$work/one.o $work/two.o"
    if [ -n "$CXX" ]; then
        compiles "all headers, C++ unit" "$work/three.o" "$work/three.cc" $cxx
        objects="$objects $work/three.o"
    fi
    $CC -o "$work/program" $objects >"$work/log" 2>&1 ||
        complain "linking the units together"
}

# Case 0 is right, all others are wrong and must not compile. Where the compiler
# can report the cause, it does so once.
cases=$(sed -n 's/^#elif CASE == \([0-9]*\).*/\1/p' "$here/wrong-types.c")
missing=34
refuse() {
    language=$1 message=$2
    shift 2
    compiles "right types as $language" /dev/null "$here/wrong-types.c" "$@" -DCASE=0
    for number in $cases; do
        if "$@" -DCASE="$number" -c -o /dev/null "$here/wrong-types.c" >"$work/log" 2>&1; then
            sed -n "/CASE == $number\$/{n;p;}" "$here/wrong-types.c" >"$work/log"
            complain "wrong-types.c, case $number compiles as $language"
        elif [ "$number" != $missing ] &&
            [ "$(grep -c "error: .*$message" "$work/log")/$(grep -c 'error: ' "$work/log")" != 1/1 ]; then
            complain "wrong-types.c, case $number as $language: expected one error with '$message'"
        fi
    done
}
# The name of an array, in strict C99, and a text without the member's name in C++.
array=does_not_have_the_type_that_the_macro_requires
template='VMSTATE: the member does not have the type that the macro requires'
member='VMSTATE: .* must '
# shellcheck disable=SC2086
{
    refuse C99 "$array" $c99
    for standard in gnu99 gnu11 gnu17; do
        refuse $standard "$member" $CC -std=$standard $warnings -Wpedantic $search
    done
    if command -v clang >/dev/null; then
        refuse 'C99 with clang' "$array" clang -std=c99 $warnings -Wpedantic $search
        refuse 'gnu17 with clang' "$member" clang -std=gnu17 $warnings -Wpedantic $search
    fi
    if [ -n "$CXX" ]; then
        refuse C++ "$template" $cxx -x c++
    else
        echo "no C++ compiler: the C++ half was left out"
    fi
}

# Every macro compiles in both languages, and none was forgotten there.
cp "$here/macros.c" "$work/unit.c"
both_languages "every macro"
for dir in "$@"; do
    sed -n 's/^#define \(VMSTATE_[A-Z0-9_]*[A-Z0-9]\)(.*/\1/p' \
        "$dir/migration/vmstate-fields.h" "$dir/migration/vmstate-scalars.h"
done 2>/dev/null | sort -u >"$work/macros"
if [ "$(wc -l <"$work/macros")" -lt 150 ]; then
    echo "only $(wc -l <"$work/macros") macros found" >"$work/log"
    complain "the macros in the headers"
fi
while read -r macro; do
    echo "$macro" >"$work/log"
    grep -q "$macro(" "$here/macros.c" || complain "not in macros.c"
done <"$work/macros"

echo "$count headers, $(wc -l <"$work/macros") macros, $(echo "$cases" | wc -w) wrong uses, $failed failures"
[ "$failed" -eq 0 ]
