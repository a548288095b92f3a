// SPDX-License-Identifier: LGPL-2.1-or-later
//! The headers under include/ are true. Those that are generated are what the sources generate: `SAVEVM_UPDATE_HEADERS=1`
//! renews them. Those that are written by hand declare every function as the sources define it.

use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn compare(generated: &str, committed: &str) {
    let committed = Path::new(ROOT).join("include").join(committed);
    if std::env::var_os("SAVEVM_UPDATE_HEADERS").is_some() {
        std::fs::write(&committed, generated).expect("the header can be written");
    }
    let found = std::fs::read_to_string(&committed).expect("the header is there");
    assert!(found == generated, "{} is stale: run with SAVEVM_UPDATE_HEADERS=1", committed.display());
}

#[test]
fn savevm_h_is_what_the_sources_generate() {
    compare(include_str!(concat!(env!("OUT_DIR"), "/savevm.h")), "savevm.h");
}

#[test]
fn register_h_is_what_the_sources_generate() {
    compare(include_str!(concat!(env!("OUT_DIR"), "/register.h")), "migration/register.h");
}

/// The C compiler compares the functions that are defined under the names of hand-written headers with what these declare.
#[test]
fn functions_are_defined_as_the_hand_written_headers_declare_them() {
    let mut builder = cbindgen::Builder::new()
        .with_config(cbindgen::Config { usize_is_size_t: true, ..cbindgen::Config::default() })
        .with_language(cbindgen::Language::C)
        .with_documentation(false)
        .with_no_includes()
        .with_include("migration/qemu-file.h")
        .with_include("migration/savevm.h")
        .with_include("migration/vmstate.h")
        .with_include("savevm.h")
        .rename_item("CError", "Error")
        .with_parse_deps(false);
    for types in ["VMStateDescription", "VMStateField", "VMStateInfo", "SaveVMCheckOps", "SaveVMCheckSeverity"] {
        builder = builder.exclude_item(types);
    }
    for source in ["qemu_file.rs", "phases.rs", "vmstate/mod.rs"] {
        builder = builder.with_src(Path::new(ROOT).join("src/ffi").join(source));
    }
    let unit = Path::new(env!("CARGO_TARGET_TMPDIR")).join("definitions.c");
    builder.generate().expect("cbindgen reads the sources").write_to_file(&unit);
    let text = std::fs::read_to_string(&unit).expect("cbindgen wrote it");
    for function in ["qemu_fclose(", "qemu_loadvm_state(", "vmstate_register_with_alias_id("] {
        assert!(text.contains(function), "{function}) is not compared");
    }
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let said = Command::new(compiler)
        .args(["-std=gnu11", "-fsyntax-only", "-I"])
        .args([&Path::new(ROOT).join("include"), &unit])
        .output()
        .expect("there is a C compiler");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

#[test]
fn meson_has_the_version_of_the_crate() {
    let meson = std::fs::read_to_string(Path::new(ROOT).join("meson.build")).expect("meson.build is there");
    let version = concat!("version: '", env!("CARGO_PKG_VERSION"), "',\n");
    assert!(
        meson.contains(&format!("  {version}")),
        "meson.build has another version than {}",
        env!("CARGO_PKG_VERSION")
    );
}
