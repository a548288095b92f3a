// SPDX-License-Identifier: LGPL-2.1-or-later
//! Generates the headers: cbindgen renders each group of sources, and this module joins the groups of a header.

use std::path::PathBuf;

const LICENSE: &str = "/* SPDX-License-Identifier: LGPL-2.1-or-later */\n";
const GENERATED: &str = "/* Generated from the Rust sources by cbindgen. Do not edit. */\n";

/// Part of a header: its title, and the sources whose items it has.
struct Group {
    title: &'static str,
    sources: &'static [&'static str],
}

struct Header {
    /// Path under include/.
    path: &'static str,
    guard: &'static str,
    /// What the comment at its top says.
    about: &'static str,
    includes: &'static [&'static str],
    /// C that comes before the groups: declarations that cbindgen does not know.
    preamble: &'static str,
    /// The header that replaces the groups if SAVEVM_QEMU_VERSION is defined, or an empty text.
    of_versions: &'static str,
    groups: &'static [Group],
}

const HEADERS: [Header; 8] = [
    Header {
        path: "migration/register.h",
        guard: "MIGRATION_REGISTER_H",
        about: "A device's callbacks, and their registration.",
        includes: &["hw/vmstate-if.h", "qemu/typedefs.h", "savevm/qemu-version.h"],
        preamble: "",
        of_versions: "migration/register-versions.h",
        groups: &[Group { title: "", sources: &["types/handler_table.rs", "exports/register.rs"] }],
    },
    Header {
        path: "savevm.h",
        guard: "SAVEVM_H",
        about: include_str!("headers/savevm.txt"),
        includes: &["hw/vmstate-if.h", "qemu/typedefs.h"],
        preamble: include_str!("headers/savevm.h"),
        of_versions: "",
        groups: &[
            Group { title: "Context: one virtual machine with its devices", sources: &["exports/context.rs"] },
            Group { title: "Devices by description, in a named context", sources: &["exports/device.rs"] },
            Group { title: "Host: what the library asks of the hypervisor", sources: &["exports/host.rs"] },
            Group { title: "Migration", sources: &["exports/info.rs", "exports/migrate.rs"] },
            Group { title: "Before a migration", sources: &["exports/preflight.rs"] },
            Group { title: "Owner of the guest", sources: &["exports/owner.rs"] },
            Group { title: "Snapshots", sources: &["exports/snapshot.rs", "exports/restore.rs"] },
            Group { title: "Checkpoints in this process", sources: &["exports/checkpoint.rs"] },
            Group { title: "Errors", sources: &["types/error_info.rs", "exports/error.rs"] },
            Group { title: "Log", sources: &["exports/log.rs"] },
        ],
    },
    Header {
        path: "savevm/ram.h",
        guard: "SAVEVM_RAM_H",
        about: "Guest memory: the library's RAM device, and how a RAM device of the host's own takes part in postcopy. The \
                general\n * rules of savevm.h hold.",
        includes: &["savevm.h"],
        preamble: "",
        of_versions: "",
        groups: &[
            Group { title: "The library's RAM device", sources: &["types/ram_tables.rs", "exports/ram.rs"] },
            Group { title: "Live update on one host", sources: &["exports/live_update.rs"] },
            Group { title: "A RAM device of the host's own in postcopy", sources: &["exports/postcopy.rs"] },
        ],
    },
    Header {
        path: "savevm/file.h",
        guard: "SAVEVM_FILE_H",
        about: "Files: a QEMUFile over a descriptor, memory, a URI or a channel of the hypervisor. The general rules of\n * \
                savevm.h hold. Free a file with qemu_fclose() of migration/qemu-file.h.",
        includes: &["savevm.h"],
        preamble: "",
        of_versions: "",
        groups: &[Group { title: "", sources: &["types/channel_table.rs", "exports/file.rs"] }],
    },
    Header {
        path: "savevm/inspect.h",
        guard: "SAVEVM_INSPECT_H",
        about: "Reading a stream without loading it. No context is touched, no lock is needed, and a SaveVMInspect does not \
                change:\n * any threads may use it at the same time. The general rules of savevm.h hold.",
        includes: &["savevm.h"],
        preamble: "/** A stream that was read without loading it. */\ntypedef struct SaveVMInspect SaveVMInspect;\n",
        of_versions: "",
        groups: &[Group { title: "", sources: &["types/inspect_items.rs", "exports/inspect.rs"] }],
    },
    Header {
        path: "savevm/check.h",
        guard: "SAVEVM_CHECK_H",
        about: "Checks of devices and descriptions, for the tests of their authors. The general rules of savevm.h hold.",
        includes: &["savevm.h"],
        preamble: "",
        of_versions: "",
        groups: &[Group { title: "", sources: &["vmstate/check.rs"] }],
    },
    Header {
        path: "savevm/host-driver.h",
        guard: "SAVEVM_HOST_DRIVER_H",
        about: "For a host with a migration driver of its own, such as QEMU: answers to the commands of an incoming stream, and\n \
                * phases of newer versions. Functions without a context act on the current context of the calling thread\n * \
                (savevm_set_current()). The general rules of savevm.h hold.",
        includes: &["savevm.h"],
        preamble: "",
        of_versions: "",
        groups: &[
            Group { title: "Commands of an incoming stream", sources: &["exports/host_driver.rs"] },
            Group { title: "Phases of newer QEMU versions", sources: &["exports/driver_phases.rs"] },
        ],
    },
    Header {
        path: "savevm/abi.h",
        guard: "SAVEVM_ABI_H",
        about: "Layouts of SaveVMHandlers and VMStateDescription in QEMU versions other than 7.2. The general rules of savevm.h\n * \
                hold.",
        includes: &["savevm.h"],
        preamble: include_str!("headers/abi.h"),
        of_versions: "",
        groups: &[Group { title: "", sources: &["types/abi.rs", "exports/abi.rs"] }],
    },
];

/// Structs that a group mentions before the header that declares them: by their tags, which savevm.h declares.
const TAGS: [&str; 6] =
    ["SaveVMHostOps", "SaveVMEvent", "SaveVMStallEvent", "SaveVMIncomingOps", "SaveVMPostcopyOps", "SaveVMChannelOps"];

/// Initialisers of structs whose defaults are not all zero.
const INITIALISERS: [(&str, &str); 1] = [("SaveVMTls", "{ sizeof(SaveVMTls), NULL, NULL, true, NULL }")];

/// Callback types, which cbindgen declares as pointers: `typedef void SaveVMLogFn(...)` and `SaveVMLogFn *` in C.
const FUNCTION_TYPES: [&str; 4] = ["SaveVMLogFn", "SaveVMInspectFieldFn", "SaveVMCheckReportFn", "SaveVMLoadThread"];

pub fn generate() {
    println!("cargo:rerun-if-changed=src/ffi");
    println!("cargo:rerun-if-changed=build-aux");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("include");
    for header in &HEADERS {
        let path = out.join(header.path);
        std::fs::create_dir_all(path.parent().expect("it is under OUT_DIR")).expect("OUT_DIR can be written");
        std::fs::write(path, render(header)).expect("OUT_DIR can be written");
    }
}

fn render(header: &Header) -> String {
    let Header { guard, about, .. } = header;
    let mut text = format!("{LICENSE}/* {} */\n{GENERATED}\n#ifndef {guard}\n#define {guard}\n\n", about.trim_end());
    for system in ["stdbool.h", "stddef.h", "stdint.h", "sys/types.h", "sys/uio.h"] {
        text += &format!("#include <{system}>\n");
    }
    for include in header.includes {
        text += &format!("#include \"{include}\"\n");
    }
    let preamble = header
        .preamble
        .replace("@MAJOR@", env!("CARGO_PKG_VERSION_MAJOR"))
        .replace("@MINOR@", env!("CARGO_PKG_VERSION_MINOR"))
        .replace("@PATCH@", env!("CARGO_PKG_VERSION_PATCH"));
    if !preamble.is_empty() {
        text += &format!("\n{}\n", preamble.trim_end());
    }
    if !header.of_versions.is_empty() {
        text += &format!("\n#ifdef SAVEVM_QEMU_SELECTED_\n#include \"{}\"\n#else\n", header.of_versions);
    }
    text += "\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n";
    for group in header.groups {
        if !group.title.is_empty() {
            text += &format!("\n/* ---- {} ---- */\n", group.title);
        }
        text += &format!("\n{}\n", items(group).trim());
    }
    text += "\n#ifdef __cplusplus\n}\n#endif\n";
    if !header.of_versions.is_empty() {
        text += "\n#endif\n";
    }
    text + "\n#endif\n"
}

/// What cbindgen says of the group's sources.
fn items(group: &Group) -> String {
    let mut config = cbindgen::Config { usize_is_size_t: true, ..cbindgen::Config::default() };
    config.export.rename.insert("iovec".into(), "struct iovec".into());
    config.export.rename.insert("CError".into(), "Error".into());
    let sources: Vec<_> = group.sources.iter().map(|source| format!("src/ffi/{source}")).collect();
    let defined: String =
        sources.iter().map(|path| std::fs::read_to_string(path).expect("the source is there")).collect();
    for tag in TAGS {
        if !defined.contains(&format!("pub struct {tag} ")) {
            config.export.rename.insert(tag.into(), format!("struct {tag}"));
        }
    }
    // Without this, cbindgen leaves out what no function of the group mentions.
    for keyword in ["pub struct ", "pub enum "] {
        let names = defined.lines().filter_map(|line| line.strip_prefix(keyword));
        config.export.include.extend(names.filter_map(|rest| rest.split([' ', ';']).next()).map(str::to_owned));
    }
    let mut builder = cbindgen::Builder::new()
        .with_config(config)
        .with_language(cbindgen::Language::C)
        .with_style(cbindgen::Style::Both)
        .with_documentation(true)
        .with_no_includes()
        .with_parse_deps(false);
    for source in sources {
        builder = builder.with_src(source);
    }
    let mut text = Vec::new();
    builder.generate().expect("cbindgen reads the sources").write(&mut text);
    let text = String::from_utf8(text).expect("the sources are UTF-8");
    with_initialisers(&with_function_types(&without_safety(&text)))
}

/// Leaves out the `# Safety` section of each comment: the rules at the top of savevm.h say the same to C.
fn without_safety(text: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    let mut skipping = false;
    for line in text.lines() {
        if line.trim() == "* # Safety" {
            skipping = true;
            while lines.last().is_some_and(|last| last.trim() == "*") {
                lines.pop();
            }
        }
        skipping &= line.trim() != "*/";
        if !skipping {
            lines.push(line);
        }
    }
    lines.join("\n") + "\n"
}

fn with_function_types(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let is_comment = line.trim_start().starts_with('*');
        let line = FUNCTION_TYPES.iter().filter(|_| !is_comment).fold(line.to_owned(), |line, name| {
            line.replace(&format!("{name} "), &format!("{name} *")).replace(&format!("(*{name})("), &format!("{name}("))
        });
        out += &line;
        out.push('\n');
    }
    out
}

/// Adds the initialiser after each struct whose size the caller gives.
fn with_initialisers(text: &str) -> String {
    let mut out = String::new();
    let mut sized = false;
    for line in text.lines() {
        out.push_str(line);
        out.push('\n');
        if let Some(size_of) = line.strip_prefix("   * sizeof(SaveVM") {
            sized = size_of.ends_with(").");
        }
        if let Some(name) = line.strip_prefix("} ").and_then(|line| line.strip_suffix(';'))
            && std::mem::take(&mut sized)
        {
            let init = initialiser(name);
            let zeroed = format!("SAVEVM_INITIALISED({name})");
            let value = INITIALISERS.iter().find(|(named, _)| *named == name).map_or(&*zeroed, |(_, value)| value);
            out.push_str(&format!("\n/**\n * Initialises a {name}.\n */\n#define {init} {value}\n"));
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
