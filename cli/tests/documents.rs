// SPDX-License-Identifier: LGPL-2.1-or-later
//! The command's JSON documents fit `docs/inspect-json.schema.json`.

mod support;

use std::io::Write;

use savevm_stream::testing::{Builder, Ram, fields, small};
use support::schema::Schema;
use support::{Place, arg, json, run};

fn fits(schema: &Schema, definition: &str, args: &[&str]) {
    let seen = run(args);
    assert!(seen.status < 2, "{args:?}: {}", seen.err);
    if let Some(complaint) = schema.complaint(definition, &json(seen.out.clone())) {
        panic!("{args:?} does not fit: {complaint}\n{}", seen.out);
    }
}

/// A stream with what `small` does not have: postcopy, a UUID, a list, NULL, a misfit, state without a description.
fn odd() -> Vec<u8> {
    let mut stream = Builder::new();
    stream.configuration("pc-q35-7.2").raw(&Builder::subsection("configuration/uuid", 1, &[9; 16]));
    stream.command(3, &[0; 16]).command(2, &[0, 0, 0, 7]);
    let list = r#""vmsd_name": "l", "version": 1, "fields": [{"name": "q", "type": "qtailq", "vmsd_name": "e",
        "version": 1, "fields": [{"name": "n", "type": "int64", "size": 8}], "size": 10},
        {"name": "p", "type": "nullptr", "size": 1}, {"name": "u", "type": "uint64", "size": 8}]"#;
    let state = [&[1][..], &[0xff; 8], &[0], b"0", &[0xff; 8]].concat();
    stream.device(1, "list", 0, &state, list);
    stream.device(2, "twin", 0, &[1], &fields("t", &[("a", "uint8", 1)]));
    stream.device(3, "twin", 0, &[2], &fields("t", &[("a", "uint8", 1)]));
    stream.device(4, "misfit", 0, &[1, 2, 3, 4], &fields("m", &[("a", "uint8", 1)]));
    stream.finish(true)
}

#[test]
fn documents_fit_their_schema() {
    let place = Place::new();
    let schema = Schema::from_docs("inspect-json.schema.json");
    let libvirt = {
        let mut out = b"LibvirtQemudPart\x02\0\0\0\0\0\0\0".to_vec();
        out.resize(16 + 4 * 19, 0);
        out
    };
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&small(true)).unwrap();
    let packed = packed.finish().unwrap();
    let mut memory = Builder::new();
    let list = Ram::default().blocks(&[("ram", 2 << 12)]).end();
    memory.named(1, 1, "ram", 0, 4, &list).further(3, 1, &Ram::default().zero(0, Some("ram")).end());
    let streams = [
        small(true),
        small(false),
        odd(),
        small(true)[..3000].to_vec(),
        b"\x7fELF".to_vec(),
        memory.finish(false),
        [&libvirt[..], &packed].concat(),
        packed[..packed.len() / 2].to_vec(),
    ];
    let files: Vec<_> = streams.iter().enumerate().map(|(at, bytes)| place.file(&format!("s{at}"), bytes)).collect();
    let layout = place.path("layout");
    run(&["schema", arg(&files[0]), "-o", arg(&layout)]).expect(0);
    for file in &files {
        fits(&schema, "inspect", &["inspect", "-f", "json", arg(file)]);
        fits(&schema, "inspect", &["inspect", "-f", "json", "-d", "*", arg(file)]);
        fits(&schema, "check", &["check", "-f", "json", arg(file)]);
        fits(&schema, "check", &["check", "-f", "json", "--against", arg(&layout), arg(file)]);
        fits(&schema, "diff", &["diff", "-f", "json", arg(&files[0]), arg(file)]);
        fits(&schema, "diff", &["diff", "-f", "json", arg(file), arg(&files[5])]);
        fits(&schema, "schema", &["schema", arg(file)]);
    }
}

#[test]
fn list_of_snapshots_fits_its_schema() {
    let place = Place::new();
    let schema = Schema::from_docs("inspect-json.schema.json");
    fits(&schema, "snapshots", &["snapshots", "-f", "json", arg(&place.path("."))]);
    let (base, identity) = support::snapshot(4096, Ram::default(), 1, None);
    place.file("base", &base);
    place.file("child", &support::snapshot(4096, Ram::default(), 2, Some((identity, "base"))).0);
    place.file("orphan", &support::snapshot(4096, Ram::default(), 2, Some((identity, "nothing"))).0);
    place.file("cut", b"QEVM");
    for flags in [&[][..], &["--verify"]] {
        fits(&schema, "snapshots", &[&["snapshots", "-f", "json", arg(&place.path("."))], flags].concat());
    }
}

#[test]
fn the_schema_tells_what_is_wrong() {
    let schema = Schema::from_docs("inspect-json.schema.json");
    for (text, wrong) in [
        (r#"{"savevm-check": 2, "passes": true, "verdict": "well-formed", "findings": []}"#, "savevm-check"),
        (r#"{"savevm-check": 1, "passes": 1, "verdict": "well-formed", "findings": []}"#, "passes"),
        (r#"{"savevm-check": 1, "passes": true, "verdict": "?", "findings": []}"#, "verdict"),
        (r#"{"savevm-check": 1, "passes": true, "verdict": "well-formed"}"#, "findings"),
        (r#"{"savevm-check": 1, "passes": true, "verdict": "well-formed", "findings": [{}]}"#, "findings[0]"),
        (r#"{"savevm-check": 1, "passes": true, "verdict": "well-formed", "findings": [], "new": 1}"#, "new"),
    ] {
        let complaint = schema.complaint("check", &json(text)).unwrap();
        assert!(complaint.contains(wrong), "{complaint}");
    }
}
