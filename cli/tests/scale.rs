// SPDX-License-Identifier: LGPL-2.1-or-later
//! Work grows with the size of the input, not with its square: with these numbers of blocks, devices and phases, a lookup
//! that goes through all of them each time takes longer than anybody waits for a test.

mod support;

use std::fmt::Write;

use savevm_stream::testing::{Builder, Ram};
use support::{Place, arg, run};

const MANY: usize = 50_000;

#[test]
fn many_blocks_are_compared() {
    let place = Place::new();
    let stream = |fill: u8, listed: bool| {
        let names: Vec<String> = (0..MANY).map(|at| format!("{at}")).collect();
        let blocks: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 4096)).collect();
        let pages = names.iter().fold(Ram::default(), |mut ram, name| {
            ram.0.extend([0, 0, 0, 0, 0, 0, 0, 2, name.len() as u8]);
            ram.0.extend(name.as_bytes());
            ram.0.push(fill);
            ram
        });
        let list = if listed { Ram::default().blocks(&blocks).end() } else { Ram::default().end() };
        let mut stream = Builder::new();
        stream.named(1, 1, "ram", 0, 4, &list).further(3, 1, &pages.end());
        stream.finish(false)
    };
    let (a, b) = (place.file("a", &stream(0, true)), place.file("b", &stream(1, true)));
    let text = run(&["diff", arg(&a), arg(&b)]).expect(1);
    assert_eq!(text.lines().filter(|line| line.contains("1 page differs")).count(), MANY);
    let unlisted = place.file("unlisted", &stream(0, false));
    assert!(run(&["inspect", arg(&unlisted)]).expect(0).contains("50,000 pages"));
    let schema = place.path("schema");
    run(&["schema", arg(&a), "-o", arg(&schema)]).expect(0);
    run(&["check", arg(&a), "--against", arg(&schema)]).expect(0);
}

#[test]
fn many_live_devices_are_shown() {
    let place = Place::new();
    let mut stream = Builder::new();
    for id in 0..MANY as u32 {
        stream.named(1, id, &format!("{id}/vfio"), 0, 1, &0xffff_ffff_ef10_0001u64.to_be_bytes());
    }
    let file = place.file("s", &stream.finish(false));
    let text = run(&["inspect", arg(&file), "-d", "*/vfio"]).expect(0);
    assert_eq!(text.lines().filter(|line| line.contains("1 section")).count(), MANY);
    assert!(run(&["inspect", arg(&file), "--plot"]).expect(0).ends_with("</svg>\n"));
}

#[test]
fn many_fields_fit_a_dump() {
    let place = Place::new();
    let names = || (0..MANY).map(|at| format!("f{at}"));
    let fields: Vec<String> =
        names().map(|name| format!(r#"{{"name": "{name}", "type": "uint8", "size": 1}}"#)).collect();
    let mut stream = Builder::new();
    let members = format!(r#""vmsd_name": "d", "version": 1, "fields": [{}]"#, fields.join(", "));
    stream.configuration("m").device(1, "d", 0, &vec![1; MANY], &members);
    let file = place.file("s", &stream.finish(true));
    let known = |name: String| format!(r#"{{"field": "{name}", "version_id": 0, "field_exists": false, "size": 1}}"#);
    let known: Vec<String> = names().map(known).collect();
    let dump = format!(
        r#"{{"vmschkmachine": {{"Name": "m"}}, "d": {{"Name": "d", "version_id": 1, "minimum_version_id": 1,
        "Description": {{"name": "d", "version_id": 1, "minimum_version_id": 1, "Fields": [{}]}}}}}}"#,
        known.join(", ")
    );
    let dump = place.file("dump", dump.as_bytes());
    run(&["check", arg(&file), "--against", arg(&dump)]).expect(0);
    let schema = place.path("schema");
    run(&["schema", arg(&file), "-o", arg(&schema)]).expect(0);
    run(&["check", arg(&file), "--against", arg(&schema), "--strict"]).expect(0);
}

#[test]
fn many_devices_phases_and_long_messages_are_drawn() {
    let place = Place::new();
    let mut trace = String::from("{\"t_ns\":0,\"event\":\"trace\",\"version\":1}\n");
    // All phases are open at once, each has a name of its own, and the first ends first.
    for (edge, from) in [("begin", 0), ("end", MANY)] {
        for at in 0..MANY {
            let time = from + at;
            writeln!(trace, r#"{{"t_ns":{time},"event":"phase","phase":"p{at}","edge":"{edge}"}}"#).unwrap();
        }
    }
    for at in 0..MANY {
        writeln!(trace, r#"{{"t_ns":{at},"event":"device","idstr":"d{at}","instance":0,"bytes":1,"duration_ns":1}}"#)
            .unwrap();
    }
    writeln!(trace, r#"{{"t_ns":1,"event":"error","message":"{}"}}"#, "long ".repeat(MANY)).unwrap();
    let trace = place.file("trace", trace.as_bytes());
    for picture in ["p.svg", "p.html"] {
        run(&["plot", arg(&trace), "-o", arg(&place.path(picture))]).expect(0);
    }
}
