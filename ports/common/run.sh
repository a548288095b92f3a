#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Builds a QEMU with libsavevm and tests it. A version's `run` sets `port`, its directory, and sources version.sh there:
#   version      of QEMU
#   suite        Debian's suite with this version; empty: that of the system
#   package      Debian's source package, for a version that is in Debian's pool and in no suite
#   package_sha256  the SHA-256 of its description, the file whose name ends with .dsc
#   glue         the files of glue/ that this version uses
#   options      further options of configure
#   features     what configure enables; default: below
#   unit_test    where the build leaves test-vmstate; default: tests/unit/test-vmstate
#   firmware     where an emulator in the build directory looks for firmware; default: below
#   skipped      cases of migration-test that fail on some machines, also without the library; default: none
#   quick_cases  cases of migration-test for a quick test
#   cases        number of cases of migration-test, without those that are skipped
#   image_tests  QEMU's tests of qcow2 images that save, load or migrate; default: below
#   quick_image_tests  a selection of them; default: below
#   raw_image_tests    the same for raw images; default: below
#   own_tests    the programs of tests/ that this version passes
set -euo pipefail

usage() {
    cat >&2 <<'EOF'
usage: run build DIR           build QEMU with libsavevm in DIR/build; a second run builds only what has changed;
                               exit status 77: QEMU's source could not be fetched
       run test DIR [quick]    run QEMU's own tests and the tests in tests/; quick: a selection
       run source DIR          only fetch QEMU's source to DIR/src, unless it exists; exit status 77 as above

environment:
  QEMU_SOURCE      source tree of QEMU, which is copied, or a tar archive of one; default: Debian's source package, fetched
                   with apt-get source
  SAVEVM_LIB       a built libsavevm.so; default: cargo builds it
  QEMU_UNMODIFIED  directory with further unmodified qemu-system-* of this version to migrate to and from, such as /usr/bin;
                   streams are always compared with emulators that are linked with QEMU's own four files
  QEMU_FIRMWARE    directories with BIOS and option ROMs; default: those of Debian's packages
  QEMU_CONFIGURE   further options of QEMU's configure, such as "--enable-zstd --python=/opt/meson/bin/python3"
  QEMU_TARGETS     further targets to build, such as "s390x-softmmu ppc64-softmmu"
EOF
    exit 2
}

[ $# -ge 2 ] || usage
mkdir -p "$2"
dir=$(cd "$2" && pwd)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
features=(--without-default-features --enable-system --enable-tools --enable-kvm --enable-tcg --enable-gnutls
          --enable-fdt=system --enable-replication --disable-docs --disable-werror)
unit_test=tests/unit/test-vmstate
firmware=qemu-bundle/usr/local/share/qemu
skipped=()
image_tests="007 015 068 091 181 194 201 203 234 262 267 280 286 300 backing-file-invalidation export-incoming-iothread
             migrate-bitmaps-postcopy-test migrate-bitmaps-test migrate-during-backup qcow2-internal-snapshots"
quick_image_tests="267 286 qcow2-internal-snapshots"
raw_image_tests=migration-permissions
. "$port/version.sh"

say() {
    echo "port: $*" >&2
}

skip() {
    say "SKIPPED: $*"
    exit 77
}

# Collects the package sources of the system's apt in its own directory.
list_sources() {
    rm -rf "$apt"
    mkdir -p "$apt/lists/partial" "$apt/sources"
    cp /etc/apt/sources.list.d/*.sources "$apt/sources/" 2>/dev/null || true
    sed -i 's/^Types:.*/Types: deb-src/' "$apt"/sources/*.sources 2>/dev/null || true
    { cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null || true; } |
        sed -n 's/^deb /deb-src /p' >"$apt/sources/all.list"
    mirror=$(cat "$apt"/sources/* | grep -vE '^#|security' | grep -oE '(https?|file):[^ ]+' | head -1)
}

# Uses its own package lists, so that the system's configuration of apt does not change.
fetch_source() {
    local apt=$dir/apt mirror keys=/usr/share/keyrings/debian-archive-keyring.gpg
    list_sources
    if [ -n "${package:-}" ]; then
        fetch_package || skip "the source of QEMU $version could not be fetched"
        return
    fi
    if [ -n "$suite" ]; then
        rm -f "$apt"/sources/*
        echo "deb-src $([ ! -e $keys ] || echo "[signed-by=$keys]") $mirror $suite main" >"$apt/sources/all.list"
    fi
    local get=(timeout 300 apt-get -q -o "Dir::Etc::sourcelist=/dev/null" -o "Dir::Etc::sourceparts=$apt/sources"
               -o "Dir::State::lists=$apt/lists" -o "Acquire::Retries=2" -o "Acquire::http::Timeout=60")
    "${get[@]}" -o "APT::Update::Error-Mode=any" update &&
        (cd "$apt" && "${get[@]}" source qemu) &&
        mv "$apt/qemu-$version"*/ "$dir/src" || skip "the source of QEMU $version could not be fetched"
    rm -rf "$apt"
}

# Fetches a source package of the pool. Its description has the checksums of the other files.
fetch_package() {
    local file pool=${mirror:-http://deb.debian.org/debian}/pool/main/q/qemu
    local get=(timeout 600 /usr/lib/apt/apt-helper -o "Acquire::Retries=2" -o "Acquire::http::Timeout=60" download-file)
    for file in "$package.dsc" "${package%-*}.orig.tar.xz" "$package.debian.tar.xz"; do
        "${get[@]}" "$pool/$file" "$apt/$file" || return
    done
    echo "$package_sha256  $apt/$package.dsc" | sha256sum -c --quiet &&
        dpkg-source -x "$apt/$package.dsc" "$apt/tree" &&
        mv "$apt/tree" "$dir/src" && rm -rf "$apt"
}

take_source() {
    if [ -d "$dir/src" ]; then
        return
    fi
    if [ -n "${QEMU_SOURCE:-}" ]; then
        say "copying $QEMU_SOURCE"
        rm -rf "$dir/src.new"
        if [ -d "$QEMU_SOURCE" ]; then
            cp -a "$QEMU_SOURCE" "$dir/src.new"
        else
            mkdir "$dir/src.new"
            tar -C "$dir/src.new" --strip-components=1 -xf "$QEMU_SOURCE"
        fi
        mv "$dir/src.new" "$dir/src"
    else
        say "fetching Debian's source package"
        fetch_source
    fi
}

# Copies a file only if it differs, so that unchanged files are not built again.
refresh() {
    cmp -s "$1" "$2" || cp -f "$1" "$2"
}

take_library() {
    local lib=${SAVEVM_LIB:-}
    if [ -z "$lib" ]; then
        (cd "$root" && cargo build --release --lib --locked)
        lib=${CARGO_TARGET_DIR:-$root/target}/release/libsavevm.so
    fi
    mkdir -p "$dir/lib/pkgconfig" "$dir/include/savevm"
    refresh "$lib" "$dir/lib/libsavevm.so.0"
    ln -sf libsavevm.so.0 "$dir/lib/libsavevm.so"
    local header
    for header in savevm.h savevm/ram.h savevm/file.h savevm/inspect.h savevm/check.h savevm/host-driver.h \
        savevm/abi.h; do
        [ ! -e "$root/include/$header" ] || refresh "$root/include/$header" "$dir/include/$header"
    done
    cat >"$dir/lib/pkgconfig/savevm.pc" <<EOF
Name: savevm
Description: QEMU's migration state engine as a library
Version: 0.1.0
Cflags: -I$dir/include
Libs: -L$dir/lib -lsavevm -Wl,-rpath,$dir/lib
EOF
}

put_glue_in() {
    local into=$dir/src/migration/libsavevm file files=("$port"/glue/*)
    mkdir -p "$into"
    for file in glue.h $glue; do
        files+=("$here/glue/$file")
    done
    # Files of an earlier build that are no longer in use.
    for file in "$into"/*; do
        [[ " ${files[*]##*/} layout.h " == *" ${file##*/} "* ]] || rm -f "$file"
    done
    for file in "${files[@]}"; do
        refresh "$file" "$into/${file##*/}"
    done
    python3 "$here/describe-layout.py" "$dir/src" >"$dir/layout.h"
    refresh "$dir/layout.h" "$into/layout.h"
    python3 "$here/edit-build.py" "$dir/src"
}

# From QEMU 8.1 on, configure wants a meson that is a package of its Python. If it is missing, an environment gets it.
python_of_configure() {
    local list=$dir/src/pythondeps.toml environment=$dir/python wanted
    if [ ! -e "$list" ] || [[ " ${QEMU_CONFIGURE:-}" == *" --python="* ]]; then
        return
    fi
    wanted=$(sed -n 's/^meson = .*installed = "\([0-9.]*\)".*/\1/p' "$list" | head -1)
    if ! "$environment/bin/python3" -c 'import mesonbuild' 2>/dev/null; then
        rm -rf "$environment"
        { python3 -m venv "$environment" &&
            timeout 600 "$environment/bin/pip" install -q "meson==$wanted" 'tomli; python_version < "3.11"'; } >&2 ||
            skip "meson $wanted could not be installed; QEMU_CONFIGURE=--python=PATH names a Python that has it"
    fi
    echo "--python=$environment/bin/python3"
}

# Runs configure once for each choice of targets and features.
configure() {
    local list=${targets[*]} python
    python=$(python_of_configure)
    local all=("--target-list=${list// /,}" "${features[@]}" "${options[@]}" $python ${QEMU_CONFIGURE:-})
    [ "$(cat "$dir/build/configured" 2>/dev/null)" != "${all[*]}" ] || return 0
    rm -rf "$dir/build/unmodified"
    mkdir -p "$dir/build"
    (cd "$dir/build" && ../src/configure "${all[@]}" >"$dir/configure.log" 2>&1) ||
        { tail -20 "$dir/configure.log" >&2; exit 1; }
    echo "${all[*]}" >"$dir/build/configured"
    echo "$list" >"$dir/build/targets"
}

# Debian's source package does not contain the firmware.
link_firmware() {
    local data=$dir/build/$firmware from file
    for from in ${QEMU_FIRMWARE:-/usr/share/qemu /usr/share/seabios /usr/lib/ipxe/qemu}; do
        for file in "$from"/*.bin "$from"/*.rom "$from"/*.img; do
            [ ! -e "$file" ] || ln -sf "$file" "$data/"
        done
    done
}

build() {
    mkdir -p "$dir"
    take_source
    take_library
    put_glue_in
    export PKG_CONFIG_PATH=$dir/lib/pkgconfig
    local targets=(x86_64-softmmu ${QEMU_TARGETS:-})
    configure
    local emulators=("${targets[@]/#/qemu-system-}")
    emulators=("${emulators[@]%-softmmu}")
    local programs=("${emulators[@]}" qemu-img qemu-io qemu-nbd storage-daemon/qemu-storage-daemon "$unit_test"
                    tests/qtest/migration-test)
    ninja -C "$dir/build" "${programs[@]}"
    if [ $unit_test != tests/unit/test-vmstate ]; then
        mkdir -p "$dir/build/tests/unit"
        ln -sf "$dir/build/$unit_test" "$dir/build/tests/unit/test-vmstate"
    fi
    [ -e "$dir/build/unmodified/${firmware%%/*}" ] || build_unmodified "${emulators[@]}"
    link_firmware
}

# Prints the command that links a program. The arguments of a long one are in a file, which exists only while ninja runs it.
link_command() {
    local command
    command=$(ninja -t commands "$1" | tail -1)
    if [[ $command == *" @$1.rsp"* ]]; then
        command=$(ninja -t compdb -x | python3 -c 'if True:
            import json, sys
            print(next(rule["command"] for rule in json.load(sys.stdin) if rule["output"] == sys.argv[1]))' "$1")
    fi
    echo "$command"
}

# Removes the library from a linker command.
without_library='s| [^ ]*/libsavevm\.so||g'

# Links the same emulators with QEMU's own four files. The tests compare with these emulators.
build_unmodified() {
    local at=$dir/build object objects="" compile link file emulator
    cd "$at"
    mkdir -p unmodified
    # The library of common objects has the suffix .fa or .a. From QEMU 10.2 on the object is in that of the emulators.
    local like
    like=$(ninja -t targets all | sed -n 's,^\(lib\(common\|system\)\.f\{0\,1\}a\.p/migration_migration\.c\.o\):.*,\1,p')
    compile=$(ninja -t commands "$like" | tail -1)
    for file in qemu-file savevm vmstate vmstate-types; do
        object=unmodified/$file.o
        objects+=" $object"
        eval "$(sed "s|$like|unmodified/$file.o|g
                     s|migration/migration\.c|migration/$file.c|" <<<"$compile")"
    done
    for emulator in "$@"; do
        link=$(link_command "$emulator")
        eval "$(sed -E "s/ [^ ]*migration_libsavevm_[a-z-]+\.c\.o//g; $without_library
                        s|-o $emulator |-o unmodified/$emulator $objects |" <<<"$link")"
        [ -x "unmodified/$emulator" ]
    done
    ln -s "../${firmware%%/*}" unmodified/
    cd - >/dev/null
}

# Prints how many cases of migration-test passed. Those that are skipped are listed as "ok" as well.
count_passed() {
    grep '^ok' "$dir/migration-test.log" | grep -vc '# SKIP'
}

qtest() {
    export QTEST_QEMU_BINARY=./qemu-system-x86_64 PYTHON
    # For the case that runs QEMU's script on a stream.
    PYTHON=$(command -v python3)
    local case select=()
    if [ "$1" = quick ]; then
        for case in "${quick_cases[@]}"; do
            select+=(-p "/x86_64/migration/$case")
        done
    else
        for case in "${skipped[@]}"; do
            select+=(-s "/x86_64/migration/$case")
        done
    fi
    timeout 2400 ./tests/qtest/migration-test --tap -k "${select[@]}" >"$dir/migration-test.log" 2>&1 ||
        { grep -v '^# starting' "$dir/migration-test.log" | tail -30 >&2; exit 1; }
    local passed
    passed=$(count_passed)
    # QEMU's test program ignores unknown cases without a message, so count the cases.
    [ "$passed" -ge "$([ "$1" = quick ] && echo ${#quick_cases[@]} || echo "$cases")" ]
}

# Runs QEMU's image tests for a format. A test that is skipped counts as a failure.
image_tests() {
    local log=$dir/image-tests.log
    (cd tests/qemu-iotests && TEST_DIR=$dir/image-tests timeout 1200 ./check "$@") >>"$log" 2>&1 &&
        ! grep -q ' not run ' "$log" || { tail -30 "$log" >&2; exit 1; }
}

# The image tests that save, load or migrate.
all_image_tests() {
    mkdir -p "$dir/image-tests"
    : >"$dir/image-tests.log"
    if [ "$1" = quick ]; then
        image_tests -qcow2 $quick_image_tests
    else
        [ -z "$raw_image_tests" ] || image_tests -raw $raw_image_tests
        image_tests -qcow2 $image_tests
    fi
}

# Runs a program of tests/, which prints "ok" for each case.
own_test() {
    local program=$1
    shift
    python3 "$here/tests/$program.py" "$@" 2>&1 | tee -a "$dir/own-tests.log"
}

# Tests the hooks of RDMA, with the port's file and with QEMU's own.
hooks_test() {
    local test=$unit_test compile link program
    mkdir -p hooks
    compile=$(ninja -t commands $test.p/test-vmstate.c.o | tail -1)
    link=$(link_command $test | sed "s|$test.p/test-vmstate.c.o|hooks/hooks.o|")
    eval "$(sed "s|$test.p/test-vmstate.c.o|hooks/hooks.o|g; s|[^ ]*/test-vmstate.c$|$here/tests/hooks.c|" <<<"$compile")"
    eval "$(sed "s|-o $test |-o hooks/ported |" <<<"$link")"
    eval "$(sed "s|-o $test |-o hooks/unmodified unmodified/qemu-file.o |; $without_library" <<<"$link")"
    for program in ported unmodified; do
        timeout 60 hooks/$program --tap | sed -n "s|^ok [0-9]* /|ok   $program: |p" | tee -a "$dir/own-tests.log"
    done
}

run_tests() {
    cd "$dir/build"
    timeout 120 ./tests/unit/test-vmstate --tap >"$dir/test-vmstate.log" 2>/dev/null ||
        { tail -20 "$dir/test-vmstate.log" >&2; exit 1; }
    qtest "$1"
    all_image_tests "$1"
    : >"$dir/own-tests.log"
    local test
    for test in $own_tests; do
        case $test in
        hooks) hooks_test ;;
        colo) ;;
        *) own_test "$test" ./qemu-system-x86_64 ./qemu-img ;;
        esac
    done
    local target emulator
    for target in $(cat targets); do
        target=${target%-softmmu}
        emulator=qemu-system-$target
        own_test cross "./$emulator" "unmodified/$emulator" "$target" "$1"
        [ -z "${QEMU_UNMODIFIED:-}" ] || own_test cross "./$emulator" "$QEMU_UNMODIFIED/$emulator" "$target" foreign
    done
    [[ " $own_tests " != *" colo "* ]] ||
        own_test colo ./qemu-system-x86_64 unmodified/qemu-system-x86_64 "$1"
    [ "$1" = quick ] || python3 "$here/tests/downtime.py" ./qemu-system-x86_64 unmodified/qemu-system-x86_64
    echo "passed: $(grep -c '^ok' "$dir/test-vmstate.log") of test-vmstate," \
        "$(count_passed) of migration-test," \
        "$(grep -c 'pass  ' "$dir/image-tests.log") of the image tests, $(grep -c '^ok' "$dir/own-tests.log") of tests/"
}

case $1 in
build) build ;;
test) run_tests "${3:-all}" ;;
source) take_source ;;
*) usage ;;
esac
