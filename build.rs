// SPDX-License-Identifier: LGPL-2.1-or-later
//! Gives the shared library its soname. With the feature `headers`, generates the C headers into OUT_DIR as well; the copies
//! under include/ are committed. tests/headers.rs compares both, and renews the copies (`make headers`). A build without
//! the feature, such as a consumer's, does not compile cbindgen.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libsavevm.so.0");
    #[cfg(feature = "headers")]
    headers::generate();
}

#[cfg(feature = "headers")]
#[path = "build-aux/headers.rs"]
mod headers;
