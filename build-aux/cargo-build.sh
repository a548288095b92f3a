#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Lets cargo build for meson and copies what changed, so that nothing is linked again when nothing changed.
set -e
cargo=$1 profile=$2 profile_dir=$3 source=$4 out=$5 soname=$6 what=$7

target=$out/cargo
packages='--package savevm'
files='libsavevm.so libsavevm.a'
if [ "$what" = cli ]; then
    packages='--workspace'
    files="$files savevm"
fi
# Only libraries and the command: tests and benches have their own builds.
# shellcheck disable=SC2086
"$cargo" build --quiet --locked $packages --profile "$profile" --manifest-path "$source/Cargo.toml" --target-dir "$target"
# Where cargo is told to build for another target, it has a directory for that.
built=$target/${CARGO_BUILD_TARGET:+$CARGO_BUILD_TARGET/}$profile_dir
for file in $files; do
    cmp -s "$built/$file" "$out/$file" || cp "$built/$file" "$out/$file"
done
ln -sf libsavevm.so "$out/$soname"
