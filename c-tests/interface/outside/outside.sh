#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A program outside the tree finds the library through pkg-config after an
# installation, and as a meson subproject; shared and static each.
#
# usage: outside.sh SOURCE_ROOT BUILD_ROOT PROGRAM_DIR
set -eu

source=$(cd "$1" && pwd)
build=$(cd "$2" && pwd)
program=$(cd "$3" && pwd)
: "${CC:=cc}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

quietly() {
    if ! "$@" >"$work/log" 2>&1; then
        echo "failed: $*"
        tail -n 40 "$work/log"
        exit 1
    fi
}

# Installed, to a place of its own. Nothing is built for that: the tests come after the build.
quietly meson install -C "$build" --no-rebuild --destdir "$work/root"
pc=$(find "$work/root" -name savevm.pc)
PKG_CONFIG_PATH=$(dirname "$pc")
PKG_CONFIG_SYSROOT_DIR=$work/root
export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR
libdir=$(cd "$(dirname "$pc")/.." && pwd)
if [ ! -e "$libdir/libsavevm.so.0" ]; then
    echo "libsavevm.so.0 is not installed"
    exit 1
fi
# The command installs its manual pages and completions.
if [ -n "$(find "$work/root" -path '*/bin/savevm')" ]; then
    for file in man/man1/savevm.1 man/man1/savevm-inspect.1 bash-completion/completions/savevm \
        zsh/site-functions/_savevm fish/vendor_completions.d/savevm.fish; do
        if [ -z "$(find "$work/root" -path "*/$file" -size +0)" ]; then
            echo "$file is not installed"
            exit 1
        fi
    done
fi
warnings='-std=c99 -Wall -Wextra -Wpedantic -Werror'
# shellcheck disable=SC2046,SC2086
quietly $CC $warnings -o "$work/shared" "$program/program.c" $(pkg-config --cflags --libs savevm)
LD_LIBRARY_PATH=$libdir "$work/shared" | tee "$work/said"
if ! grep -q "^libsavevm $(pkg-config --modversion savevm):" "$work/said"; then
    echo "pkg-config has another version: $(pkg-config --modversion savevm)"
    exit 1
fi
if ! readelf -d "$work/shared" | grep -q 'NEEDED.*libsavevm\.so\.0'; then
    echo "the program is not linked with libsavevm.so.0"
    exit 1
fi
# savevm-static takes the static library although the shared one is beside it.
# shellcheck disable=SC2046,SC2086
quietly $CC $warnings -o "$work/static" "$program/program.c" $(pkg-config --cflags --libs savevm-static)
"$work/static"
if readelf -d "$work/static" | grep -q libsavevm; then
    echo "the static program needs the shared library"
    exit 1
fi
# --static is for a program without shared libraries, where there is a static C library.
if echo 'int main(void) { return 0; }' | $CC -static -x c -o /dev/null - 2>/dev/null; then
    # shellcheck disable=SC2046,SC2086
    quietly $CC $warnings -static -o "$work/all-static" "$program/program.c" \
        $(pkg-config --static --cflags --libs savevm)
    "$work/all-static"
    if readelf -d "$work/all-static" | grep -q NEEDED; then
        echo "the program linked with -static needs a shared library"
        exit 1
    fi
fi

# What the README shows.
awk '/^```c$/ { shown = 1; next } /^```/ { shown = 0 } shown' "$source/README.md" >"$work/readme.c"
# shellcheck disable=SC2046,SC2086
quietly $CC -std=c99 -Wall -Werror -o "$work/readme" "$work/readme.c" $(pkg-config --cflags --libs savevm)
export LD_LIBRARY_PATH="$libdir"
"$work/readme" save "exec:gzip >$work/state.gz" >"$work/said"
"$work/readme" load "exec:zcat $work/state.gz" >>"$work/said"
if [ "$(tr '\n' ' ' <"$work/said")" != "41 41 " ] || "$work/readme" load "file:$work/said" 2>"$work/log"; then
    echo "the program in the README says:"
    cat "$work/said" "$work/log"
    exit 1
fi
unset LD_LIBRARY_PATH PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR

# As a subproject. What cargo built already is taken over, so that this is a matter of seconds.
for kind in shared static; do
    mkdir -p "$work/$kind-project/subprojects"
    cp "$program/program.c" "$program/meson.build" "$work/$kind-project/"
    ln -s "$source" "$work/$kind-project/subprojects/savevm"
    quietly meson setup "$work/$kind-build" "$work/$kind-project" -Ddefault_library=$kind \
        --wrap-mode=nodownload
    if [ -d "$build/cargo" ]; then
        mkdir -p "$work/$kind-build/subprojects/savevm"
        ln -s "$build/cargo" "$work/$kind-build/subprojects/savevm/cargo"
    fi
    quietly meson compile -C "$work/$kind-build"
    quietly meson test -C "$work/$kind-build" program
    echo "as a $kind subproject: built and run"
done
