// SPDX-License-Identifier: LGPL-2.1-or-later
//! Tests of the differences between layouts.

use super::super::budget::Budget;
use super::super::json::Json;
use super::super::parse::{Options, read_slice};
use super::super::stream::Stream;
use super::{Schema, Target};
use crate::testing::Builder;

/// Returns a stream of one device with these fields, as in a description, and this state.
fn stream(members: &str, state: &[u8]) -> Stream {
    let members = format!(r#""vmsd_name": "d", "version": 1, {members}"#);
    let mut stream = Builder::new();
    stream.configuration("pc").device(1, "d", 0, state, &members);
    let stream = read_slice(&stream.finish(true), Options::default());
    assert!(stream.damage.is_none(), "{:?}", stream.damage);
    stream
}

/// Returns the description of plain fields.
fn plain(fields: &[(&str, &str, u64)]) -> String {
    let field =
        |&(name, kind, size): &(&str, &str, u64)| format!(r#"{{"name": "{name}", "type": "{kind}", "size": {size}}}"#);
    format!(r#""fields": [{}]"#, fields.iter().map(field).collect::<Vec<_>>().join(", "))
}

fn findings(target: &Target, stream: &Stream) -> Vec<String> {
    let path = |finding: &super::Finding| format!("{} {}: {}", finding.severity.name(), finding.path, finding.message);
    target.check(stream).iter().map(path).collect()
}

/// Returns the findings about `have`, if `wanted` is the machine's own stream.
fn against_schema(have: &Stream, wanted: &Stream) -> Vec<String> {
    let mut text = Vec::new();
    Schema::write(wanted, &mut text).unwrap();
    findings(&Target::from_json(Json::parse(&text, &mut Budget::default()).unwrap()).unwrap(), have)
}

/// Returns the findings if the machine has these fields: name, whether it is conditional, size.
fn against_dump(have: &Stream, fields: &[(&str, bool, u64)]) -> Vec<String> {
    let field = |&(name, conditional, size): &(&str, bool, u64)| {
        format!(r#"{{"field": "{name}", "version_id": 0, "field_exists": {conditional}, "size": {size}}}"#)
    };
    let fields = fields.iter().map(field).collect::<Vec<_>>().join(", ");
    let dump = format!(
        r#"{{"vmschkmachine": {{"Name": "pc"}}, "d": {{"Name": "d", "version_id": 1, "minimum_version_id": 1,
        "Description": {{"name": "d", "version_id": 1, "minimum_version_id": 1, "Fields": [{fields}]}}}}}}"#
    );
    findings(&Target::from_json(Json::parse(dump.as_bytes(), &mut Budget::default()).unwrap()).unwrap(), have)
}

#[test]
fn dump_with_index_in_a_name_fits() {
    let have = stream(&plain(&[("port.ifs[0]", "uint32", 4), ("port[1]", "uint8", 1)]), &[0; 5]);
    assert_eq!(against_dump(&have, &[("port.ifs[0]", false, 4), ("port[1]", false, 1)]), [""; 0]);
}

#[test]
fn dump_with_repeated_names_is_numbered_as_the_stream_is() {
    let have = stream(&plain(&[("config[1]", "buffer", 4), ("irq", "uint8", 1)]), &[0; 5]);
    assert_eq!(against_dump(&have, &[("config", true, 2), ("config", true, 4), ("irq", false, 1)]), [""; 0]);
    let found = against_dump(&have, &[("config", true, 4), ("irq", false, 1)]);
    assert_eq!(found, ["note config[1]: the machine reads these bytes as config"]);
}

#[test]
fn dump_distinguishes_renamed_and_one_sided_fields() {
    let have = stream(&plain(&[("a", "uint8", 1), ("num", "uint8", 1), ("z", "uint32", 4)]), &[0; 6]);
    let renamed = against_dump(&have, &[("a", false, 1), ("opt", true, 8), ("num_save", false, 1), ("z", false, 4)]);
    assert_eq!(renamed, ["note num: the machine reads these bytes as num_save"]);
    let unknown = against_dump(&have, &[("a", false, 1), ("z", false, 4)]);
    assert_eq!(unknown, ["error num: the machine does not read this field"]);
    let more = against_dump(&have, &[("a", false, 1), ("num", false, 1), ("new", false, 2), ("z", false, 4)]);
    assert_eq!(more, ["risk new: the stream does not have this field"]);
    let optional = against_dump(&have, &[("a", false, 1), ("num", false, 1), ("new", true, 2), ("z", false, 4)]);
    assert_eq!(optional, [""; 0]);
}

#[test]
fn schema_renames_and_types_of_the_same_size_are_notes() {
    let have = stream(&plain(&[("n", "int32 equal", 4), ("num", "uint8", 1)]), &[0; 5]);
    let wanted = stream(&plain(&[("n", "uint32 equal", 4), ("num_save", "uint8", 1)]), &[0; 5]);
    assert_eq!(
        against_schema(&have, &wanted),
        [
            "note n: of type int32 equal, the machine's is uint32 equal, of the same size",
            "note num: in the machine's own stream these 1 bytes are num_save"
        ]
    );
    let have = stream(&plain(&[("runstate", "buffer", 100), ("x", "uint8", 1)]), &[0; 101]);
    let wanted = [("runstate", "buffer", 32), ("was", "uint8", 1), ("unused", "unused_buffer", 67), ("x", "uint8", 1)];
    let found = against_schema(&have, &stream(&plain(&wanted), &[0; 101]));
    let same = "note runstate: in the machine's own stream these 100 bytes are runstate, was, unused";
    assert_eq!(found, [same]);
}

#[test]
fn schema_fields_of_one_side_are_risks() {
    let both = stream(&plain(&[("a", "uint8", 1), ("b", "uint32", 4)]), &[0; 5]);
    let one = stream(&plain(&[("a", "uint8", 1)]), &[0; 1]);
    assert_eq!(against_schema(&one, &both), ["risk b: the stream does not have this field of 4 bytes"]);
    let here = "risk b: the machine's own stream did not have this field of 4 bytes";
    assert_eq!(against_schema(&both, &one), [here]);
    let swapped = stream(&plain(&[("b", "uint32", 4), ("a", "uint8", 1)]), &[0; 5]);
    assert!(against_schema(&swapped, &both).iter().any(|found| found.starts_with("risk")));
}

#[test]
fn schema_with_another_number_of_elements_does_not_fit() {
    let ports = |count: u64, nports: u8| {
        let fields = format!(
            r#""fields": [{{"name": "nports", "type": "uint8", "size": 1}},
            {{"name": "ports", "type": "uint16", "array_len": {count}, "size": 2}}]"#
        );
        stream(&fields, &[&[nports][..], &vec![0; 2 * count as usize]].concat())
    };
    let found = against_schema(&ports(8, 0), &ports(16, 0));
    assert_eq!(found, ["error ports: 8 elements, the machine's own stream had 16"]);
    let announced = against_schema(&ports(8, 8), &ports(16, 16));
    assert_eq!(announced, ["warning ports: 8 elements, the machine's own stream had 16"]);
}

#[test]
fn findings_are_limited_and_the_worst_is_kept() {
    let names: Vec<String> = (0..20_000).map(|at| format!("f{at}")).collect();
    let fields = |kind| -> Vec<(&str, &str, u64)> { names.iter().map(|name| (name.as_str(), kind, 1)).collect() };
    let (mut have, wanted) = (fields("int8"), fields("uint8"));
    have.push(("last", "uint32", 4));
    let have = stream(&plain(&have), &[0; 20_004]);
    let found = against_schema(&have, &stream(&plain(&wanted), &[0; 20_000]));
    assert_eq!(found.len(), 10_002);
    assert!(found[10_000].starts_with("risk last") && found[10_001].contains("10000 more differences"), "{found:?}");
}
