// SPDX-License-Identifier: LGPL-2.1-or-later
//! Captures of the connections of one migration.

mod support;

use savevm_stream::inspect::json::Json;
use savevm_stream::testing::{Builder, Ram};
use savevm_stream::wire::multifd::{Head, Hello, Method, Packet};
use std::path::{Path, PathBuf};
use support::schema::Schema;
use support::{Place, arg, json, run};

/// The main connection, with one zero page of four.
fn main_stream() -> Vec<u8> {
    let mut pages = Ram::default();
    pages.0.extend([0, 0, 0, 0, 0, 0, 0, 2, 6]);
    pages.0.extend(b"pc.ram\0");
    let mut stream = Builder::new();
    stream.named(1, 1, "ram", 0, 4, &Ram::default().blocks(&[("pc.ram", 4 * 4096)]).end()).further(3, 1, &pages.end());
    stream.finish(false)
}

/// A further connection with these normal and zero pages.
fn channel(id: u8, normal: &[u64], zero: &[u64]) -> Vec<u8> {
    let mut bytes = Hello { uuid: [0x5a; 16], id }.encode().to_vec();
    Packet::encode(&mut bytes, Head { sync: true, ..Head::default() }, b"", &[], 12);
    let payload = 77 * normal.len() as u32;
    let (normal_pages, zero_pages) = (normal.len() as u32, zero.len() as u32);
    let head = Head { method: Method::Zstd, normal: normal_pages, zero: zero_pages, payload, ..Head::default() };
    let offsets: Vec<u64> = normal.iter().chain(zero).map(|page| page * 4096).collect();
    Packet::encode(&mut bytes, head, b"pc.ram", &offsets, 12);
    bytes.extend(vec![1; payload as usize]);
    bytes
}

/// A directory with the captures of a main connection "c" and of two further ones, "a" and "b".
fn captures(place: &Place) -> PathBuf {
    let directory = place.path("captures");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("c"), main_stream()).unwrap();
    std::fs::write(directory.join("a"), channel(1, &[1], &[3])).unwrap();
    std::fs::write(directory.join("b"), channel(0, &[1, 2], &[])).unwrap();
    directory
}

#[test]
fn capture_of_a_further_connection_is_named() {
    let place = Place::new();
    let file = place.file("x", &channel(2, &[1, 2], &[3]));
    let text = run(&["inspect", arg(&file)]).expect(0);
    for part in ["multifd channel 2", "UUID 5a5a5a5a-5a5a-", "2 packets, 1 sync, page size 4096, compression zstd"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.contains("pc.ram: 2 pages with content, 1 zero"), "{text}");
    let cut = place.file("cut", &channel(2, &[1], &[])[..64 + 1344 + 100]);
    let run = run(&["inspect", arg(&cut)]);
    assert!(run.err.contains("offset 1408: the capture ends in a packet"), "{}", run.err);
    run.expect(1);
}

#[test]
fn directory_of_captures_accounts_for_all_pages() {
    let place = Place::new();
    let directory = captures(&place);
    let text = run(&["inspect", arg(&directory)]).expect(0);
    assert!(
        text.contains("block pc.ram: 4 pages; sent on the main connection 1, on channels 4; none missing"),
        "{text}"
    );
    assert!(text.contains("multifd channel 0") && text.contains("multifd channel 1"), "{text}");
    std::fs::remove_file(directory.join("a")).unwrap();
    std::fs::write(directory.join("note.txt"), "not a capture").unwrap();
    let run_again = run(&["inspect", arg(&directory)]);
    assert!(run_again.err.contains("note.txt: note: no capture"), "{}", run_again.err);
    assert!(run_again.expect(1).contains("1 missing"));
    std::fs::write(directory.join("a"), channel(3, &[1], &[3])).unwrap();
    let gap = run(&["inspect", arg(&directory)]);
    assert!(gap.err.contains("the channels have the numbers [0, 3]"), "{}", gap.err);
    gap.expect(1);
    std::os::unix::fs::symlink("loop", directory.join("loop")).unwrap();
    let unreadable = run(&["inspect", arg(&directory)]);
    assert!(unreadable.err.contains("/loop: Too many levels of symbolic links"), "{}", unreadable.err);
    assert!(unreadable.expect(2).contains("multifd channel 3"));
    let list = document(&directory, 2);
    let [one] = list.get("unreadable").unwrap().elements() else { panic!("{list:?}") };
    assert!(one.get("file").and_then(Json::as_str).unwrap().ends_with("/loop"));
    assert!(one.get("problem").and_then(Json::as_str).unwrap().contains("Too many levels"));
    std::fs::remove_file(directory.join("c")).unwrap();
    let without = run(&["inspect", arg(&directory)]);
    assert!(without.err.contains("0 main connections, expected 1"), "{}", without.err);
    without.expect(2);
}

/// The document about captures, which fits its schema.
fn document(path: &Path, status: i32) -> Json<'static> {
    let text = run(&["inspect", "--format", "json", arg(path)]).expect(status);
    let document = json(text.clone());
    if let Some(complaint) = Schema::from_docs("inspect-json.schema.json").complaint("captures", &document) {
        panic!("{complaint}: {text}");
    }
    document
}

#[test]
fn json_of_a_directory_accounts_for_all_pages() {
    let place = Place::new();
    let directory = captures(&place);
    let number = |value: &Json<'_>, name: &str| value.get(name).and_then(Json::as_u64).unwrap();
    let whole = document(&directory, 0);
    let blocks = whole.get("blocks").unwrap().elements();
    let [block] = blocks else { panic!("{blocks:?}") };
    assert_eq!(["pages", "main", "channels", "missing"].map(|name| number(block, name)), [4, 1, 4, 0]);
    let channels = whole.get("channels").unwrap().elements();
    let of_b = channels.iter().find(|channel| number(channel, "number") == 0).unwrap();
    assert_eq!(["normal", "zero", "packets", "payload"].map(|name| number(of_b, name)), [2, 0, 2, 154]);
    assert_eq!(of_b.get("method").and_then(Json::as_str), Some("zstd"));
    assert_eq!(of_b.get("uuid").and_then(Json::as_str), Some("5a5a5a5a-5a5a-5a5a-5a5a-5a5a5a5a5a5a"));
    std::fs::remove_file(directory.join("b")).unwrap();
    let part = document(&directory, 1);
    assert_eq!(number(&part, "missing"), 1);
    // Without one of the channels, the numbers have a gap.
    assert!(matches!(part.get("wrong_numbers"), Some(Json::Bool(true))));
}

#[test]
fn json_of_one_capture_has_its_damage() {
    let place = Place::new();
    let single = document(&place.file("x", &channel(2, &[1, 2], &[3])), 0);
    assert!(matches!(single.get("main"), Some(Json::Null)));
    let cut = document(&place.file("cut", &channel(2, &[1], &[])[..64 + 1344 + 100]), 1);
    let channels = cut.get("channels").unwrap().elements();
    assert_eq!(channels[0].get("damage").and_then(|damage| damage.get("offset")).and_then(Json::as_u64), Some(1408));
    for format in ["analyze", "description"] {
        let run = run(&["inspect", "--format", format, arg(&place.path("x"))]);
        assert!(run.err.contains("as a table or as JSON only"), "{}", run.err);
        run.expect(2);
    }
}
