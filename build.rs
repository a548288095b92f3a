// SPDX-License-Identifier: LGPL-2.1-or-later
//! Gives the shared library its soname, and generates the headers that C sees to OUT_DIR. The copies under include/ are
//! committed; a test compares them and, with SAVEVM_UPDATE_HEADERS=1, renews them.

use std::path::{Path, PathBuf};

const LICENSE: &str = "/* SPDX-License-Identifier: LGPL-2.1-or-later */";
const GENERATED: &str = "/* Generated from the Rust sources by cbindgen. Do not edit. */";

const RULES: &str = "\
libsavevm's own functions: contexts, files, migrations, snapshots, RAM, looking into streams, errors. QEMU's names are in
 * migration/.
 *
 * Where a function says nothing else:
 *  - It may be called from any thread, with the hypervisor's big lock or without it. \"The lock\" is that one
 *    (SaveVMHostOps.lock), \"with the lock\" means that the caller holds it.
 *  - `int` results are 0 or -errno, pointers NULL on failure. A handle that is NULL is -EINVAL, a `vm` that is NULL this
 *    thread's context. -EIO comes from a context that was given up (savevm_is_broken()).
 *  - `errp` may be NULL. The error that it gets is the caller's, to be freed by error_free(). On failure nothing else is
 *    written.
 *  - Strings and tables that are given are copied or done with when it returns; what `host` and `opaque` pointers lead to
 *    has to stay. Strings that are got belong to what they came from.
 *  - Threads that the library starts take no signals; callbacks that run on them must not wait for one.
 *  - Times are in the unit that the name ends in, sizes and lengths in bytes.
 *  - What a migration does and when is QEMU 7.2's, migration/migration.c, migration/savevm.c and migration/ram.c; contexts,
 *    deadlines, owners, checks and errors are libsavevm's own.";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/ffi");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libsavevm.so.0");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    generate(
        &["src/ffi/register.rs"],
        "MIGRATION_REGISTER_H",
        "",
        "A device's callbacks, and their registration.",
        &out.join("register.h"),
    );
    generate(
        &[
            "src/ffi/api/migration.rs",
            "src/ffi/api/types.rs",
            "src/ffi/api/context.rs",
            "src/ffi/api/owner.rs",
            "src/ffi/api/device.rs",
            "src/ffi/api/file.rs",
            "src/ffi/api/migrate.rs",
            "src/ffi/api/snapshot.rs",
            "src/ffi/api/ram.rs",
            "src/ffi/api/inspect.rs",
            "src/ffi/api/error.rs",
            "src/ffi/vmstate/check.rs",
        ],
        "SAVEVM_H",
        concat!(
            "\n/** The version of these headers; savevm_version() has the library's. */\n#define SAVEVM_VERSION_MAJOR ",
            env!("CARGO_PKG_VERSION_MAJOR"),
            "\n#define SAVEVM_VERSION_MINOR ",
            env!("CARGO_PKG_VERSION_MINOR"),
            "\n#define SAVEVM_VERSION_PATCH ",
            env!("CARGO_PKG_VERSION_PATCH"),
            "\n\n/** A context: one virtual machine with its devices. */\ntypedef struct SaveVM SaveVM;\n\n\
             /** A migration in either direction. */\ntypedef struct SaveVMMigration SaveVMMigration;\n\n\
             /** What was read of a stream without loading it. */\ntypedef struct SaveVMInspect SaveVMInspect;\n",
            include_str!("build-aux/initialisers.h"),
        ),
        RULES,
        &out.join("savevm.h"),
    );
}

fn generate(sources: &[&str], guard: &str, declarations: &str, what: &str, to: &Path) {
    let mut config = cbindgen::Config { usize_is_size_t: true, ..cbindgen::Config::default() };
    config.export.rename.insert("iovec".into(), "struct iovec".into());
    config.export.rename.insert("CError".into(), "Error".into());
    config.after_includes = Some(declarations.to_owned());
    let mut builder = cbindgen::Builder::new()
        .with_config(config)
        .with_language(cbindgen::Language::C)
        .with_cpp_compat(true)
        .with_include_guard(guard)
        .with_style(cbindgen::Style::Both)
        .with_documentation(true)
        .with_no_includes()
        .with_sys_include("stdbool.h")
        .with_sys_include("stddef.h")
        .with_sys_include("stdint.h")
        .with_sys_include("sys/types.h")
        .with_sys_include("sys/uio.h")
        .with_include("hw/vmstate-if.h")
        .with_include("qemu/typedefs.h")
        .with_header(format!("{LICENSE}\n/* {what} */\n{GENERATED}"))
        .with_parse_deps(false);
    for source in sources {
        builder = builder.with_src(source);
    }
    let mut text = Vec::new();
    builder.generate().expect("cbindgen reads the sources").write(&mut text);
    let text = String::from_utf8(text).expect("the sources are UTF-8");
    let text = with_initialisers(&text.replace(" * # Safety\n", " * The caller promises:\n"));
    std::fs::write(to, text).expect("OUT_DIR can be written");
}

/// Adds the initialiser behind each struct that the caller gives the size of.
fn with_initialisers(text: &str) -> String {
    let mut out = String::new();
    let mut sized = false;
    for line in text.lines() {
        out.push_str(line);
        out.push('\n');
        if let Some(size_of) = line.strip_prefix("   * sizeof(SaveVM") {
            sized = size_of.ends_with(").");
        }
        if let Some(name) = line.strip_prefix("} ").and_then(|line| line.strip_suffix(';')) {
            if std::mem::take(&mut sized) {
                let init = initialiser(name);
                out.push_str(&format!(
                    "\n/**\n * Initialises a {name}.\n */\n#define {init} SAVEVM_INITIALISED({name})\n"
                ));
            }
        }
    }
    out
}

/// `SAVEVM_HOST_OPS_INIT` for `SaveVMHostOps`.
fn initialiser(name: &str) -> String {
    let words = name.strip_prefix("SaveVM").expect("the structs of the interface are named so");
    let mut init = String::from("SAVEVM");
    for letter in words.chars() {
        if letter.is_ascii_uppercase() {
            init.push('_');
        }
        init.push(letter.to_ascii_uppercase());
    }
    init + "_INIT"
}
