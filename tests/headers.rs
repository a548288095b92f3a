// SPDX-License-Identifier: LGPL-2.1-or-later
//! The headers under include/ are true. Those that are generated are what the sources generate: `make headers` renews
//! them. Those that are written by hand declare every function as the sources define it.

use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

const GENERATED: [&str; 8] = [
    "migration/register.h",
    "savevm.h",
    "savevm/ram.h",
    "savevm/file.h",
    "savevm/inspect.h",
    "savevm/check.h",
    "savevm/host-driver.h",
    "savevm/abi.h",
];

#[test]
fn generated_headers_are_what_the_sources_generate() {
    for name in GENERATED {
        let generated = std::fs::read_to_string(Path::new(env!("OUT_DIR")).join("include").join(name));
        let generated = generated.expect("the build generates the header");
        let committed = Path::new(ROOT).join("include").join(name);
        if std::env::var_os("SAVEVM_UPDATE_HEADERS").is_some() {
            std::fs::create_dir_all(committed.parent().expect("it is under include/")).expect("the folder can be made");
            std::fs::write(&committed, &generated).expect("the header can be written");
        }
        let found = std::fs::read_to_string(&committed).unwrap_or_default();
        assert!(found == generated, "{} is stale: run `make headers`", committed.display());
    }
}

/// The C compiler compares the functions that are defined under the names of hand-written headers with what these declare.
#[test]
fn functions_are_defined_as_the_hand_written_headers_declare_them() {
    let sources = ["exports/qemu_file.rs", "exports/older_file.rs", "exports/phases.rs", "vmstate/mod.rs"];
    compare_definitions(702, &sources, &["qemu_fclose(", "qemu_loadvm_state(", "vmstate_register_with_alias_id("]);
    compare_definitions(502, &["exports/older_file.rs"], &["qemu_ftell(", "ram_control_save_page("]);
    compare_definitions(1000, &["exports/newer_file.rs"], &["qemu_fflush(", "qemu_file_put_fd("]);
}

/// Compares the functions of `sources`, of which `functions` are some, with the headers for a version of QEMU.
fn compare_definitions(version: u32, sources: &[&str], functions: &[&str]) {
    let mut builder = cbindgen::Builder::new()
        .with_config(cbindgen::Config { usize_is_size_t: true, ..cbindgen::Config::default() })
        .with_language(cbindgen::Language::C)
        .with_documentation(false)
        .with_no_includes()
        .with_include("migration/qemu-file.h")
        .with_include("migration/savevm.h")
        .with_include("migration/vmstate.h")
        .with_include("savevm.h")
        .with_include("savevm/check.h")
        .rename_item("CError", "Error")
        .with_parse_deps(false);
    for types in ["VMStateDescription", "VMStateField", "VMStateInfo", "SaveVMCheckOps", "SaveVMCheckSeverity"] {
        builder = builder.exclude_item(types);
    }
    for source in sources {
        builder = builder.with_src(Path::new(ROOT).join("src/ffi").join(source));
    }
    let unit = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("definitions-{version}.c"));
    builder.generate().expect("cbindgen reads the sources").write_to_file(&unit);
    let text = std::fs::read_to_string(&unit).expect("cbindgen wrote it");
    for function in functions {
        assert!(text.contains(function), "{function}) is not compared");
    }
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let said = Command::new(compiler)
        .args([
            "-std=gnu11",
            "-fsyntax-only",
            &format!("-DSAVEVM_QEMU_VERSION={version}"),
            "-DSAVEVM_PLAIN_NAMES",
            "-I",
        ])
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
