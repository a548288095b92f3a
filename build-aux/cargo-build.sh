#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Lets cargo build for meson and copies what changed, so that nothing is linked again when nothing changed.
set -e
cargo=$1 profile=$2 source=$3 out=$4 soname=$5 command=$6 features=$7

# Only libraries and the command: tests and benches have their own builds. Prints what cargo says about each artifact.
build() {
    how=$1 package=$2
    shift 2
    "$cargo" "$how" --quiet --locked --package "$package" --profile "$profile" --manifest-path "$source/Cargo.toml" \
        --target-dir "$out/cargo" --message-format json-render-diagnostics "$@"
}
files='libsavevm.so libsavevm.a savevm'
artifacts=$(build build savevm --features "$features")
case $command in
    # Only the command itself: a library for others is never linked to the C library statically.
    static) artifacts=$artifacts$(build rustc savevm-cli --bin savevm -- -C target-feature=+crt-static) ;;
    dynamic) artifacts=$artifacts$(build build savevm-cli) ;;
    none) files='libsavevm.so libsavevm.a' ;;
esac
for file in $files; do
    built=$(printf '%s\n' "$artifacts" | sed -n "s|.*\"\([^\"]*/$file\)\".*|\1|p" | tail -n 1)
    cmp -s "$built" "$out/$file" || cp "$built" "$out/$file"
done
ln -sf libsavevm.so "$out/$soname"
