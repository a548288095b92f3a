// SPDX-License-Identifier: LGPL-2.1-or-later
//! Gives the shared library its soname.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libsavevm.so.0");
}
