// SPDX-License-Identifier: LGPL-2.1-or-later
//! Names that try to look like output of the command.

mod support;

use savevm_stream::testing::{Builder, Ram, in_json};
use support::{Place, Run, arg, run};

/// Starts new lines, moves the cursor, reverses text, and hides.
const WILD: &str =
    "x\nFORGED\rFORGED\u{2028}FORGED\u{2029}\u{85}\u{b}\u{c}\u{202e}\u{2066}\u{200f}\u{feff}\x1b[2J\u{9b}2J";

/// All names of the stream are wild: machine, capability, device, block, fields, types, subsection.
fn wild(fill: u8) -> Builder {
    let mut stream = Builder::new();
    let name = in_json(WILD);
    let subsection = [&[5, WILD.len() as u8], WILD.as_bytes(), &[0, 0, 0, 1, fill]].concat();
    let state = [&[fill; 8][..], &subsection].concat();
    let members = format!(
        r#""vmsd_name": "{name}", "version": 1, "fields": [{{"name": "{name}", "type": "{name}", "size": 4}},
        {{"name": "a{name}", "type": "struct", "struct": {{"vmsd_name": "{name}", "version": 1, "fields":
        [{{"name": "{name}", "type": "uint16", "array_len": 2, "size": 2}}]}}, "size": 4}}],
        "subsections": [{{"vmsd_name": "{name}", "version": 1, "fields": [{{"name": "n", "type": "uint8", "size": 1}}]}}]"#
    );
    let capabilities = [&1u32.to_be_bytes()[..], &[WILD.len() as u8], WILD.as_bytes()].concat();
    let list = Ram::default().blocks(&[(WILD, 4 << 12), ("gone", 1 << 12)]).end();
    stream.configuration(WILD).raw(&Builder::subsection("configuration/capabilities", 1, &capabilities));
    stream.named(1, 1, "ram", 0, 4, &list);
    stream.further(3, 1, &Ram::default().page(0, Some(WILD), &[fill; 4096]).end());
    stream.device(2, WILD, 0, &state, &members);
    stream.device(3, &format!("b{WILD}"), 0, &[fill; 3], &members);
    stream.named(1, 7, WILD, 1, 1, &[fill; 20]);
    stream
}

/// No line starts with what is forged, and no character does what a terminal or a browser obeys.
fn check(what: &str, text: &str) {
    for c in ['\r', '\x1b', '\u{9b}', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}', '\u{202e}', '\u{2066}'] {
        assert!(!text.contains(c), "{what}: {c:?} in\n{text}");
    }
    for c in ['\u{200f}', '\u{feff}'] {
        assert!(!text.contains(c), "{what}: {c:?}");
    }
    assert!(!text.lines().any(|line| line.trim_start().starts_with("FORGED")), "{what}:\n{text}");
}

fn checked(args: &[&str]) -> Run {
    let seen = run(args);
    check(&format!("standard output of {args:?}"), &seen.out);
    check(&format!("standard error of {args:?}"), &seen.err);
    assert!((0..=2).contains(&seen.status), "{args:?}: {}", seen.err);
    seen
}

#[test]
fn names_forge_no_lines_in_any_output() {
    let place = Place::new();
    let (a, b) = (place.file("a", &wild(1).finish(true)), place.file("b", &wild(2).finish(true)));
    let bare = place.file("bare", &wild(1).finish(false));
    let whole = wild(1).finish(true);
    let schema = place.path("schema");
    for file in [&a, &bare] {
        let file = arg(file);
        for more in [&[][..], &["-d", "*"], &["-x"], &["-d", "*", "-x"], &["-f", "json", "-d", "*"], &["-f", "analyze"]]
        {
            let seen = checked(&[&["inspect", file], more].concat());
            // Without a description the names are not taken for names.
            assert!(seen.out.contains("FORGED") || file == arg(&bare), "{more:?} {}", seen.err);
        }
        checked(&["inspect", file, "--plot"]);
        checked(&["inspect", file, "-f", "description"]);
        checked(&["check", file]);
        checked(&["check", file, "-f", "json"]);
        checked(&["schema", file, "-o", arg(&schema)]);
        checked(&["schema", file]);
        checked(&["check", arg(&b), "--against", arg(&schema)]);
        checked(&["extract", file, "--ram", "nothing", "-o", arg(&place.path("image"))]);
        checked(&["extract", file, "--ram", WILD, "-o", arg(&place.path("image"))]);
        checked(&["inspect", file, "-d", "nothing\nFORGED"]);
    }
    assert!(checked(&["diff", arg(&a), arg(&b)]).out.contains("FORGED"));
    checked(&["diff", arg(&a), arg(&b), "-f", "json"]);
    // With the device of another: its fields differ in everything.
    let mut other = Builder::new();
    other.configuration("other").device(2, WILD, 0, &[1; 9], r#""vmsd_name": "d", "version": 1, "fields": []"#);
    let other = place.file("other", &other.finish(true));
    checked(&["diff", arg(&a), arg(&other)]);
    checked(&["check", arg(&other), "--against", arg(&schema)]);
    // What is wrong with a stream is said with its names.
    for cut in (0..whole.len()).step_by(41) {
        checked(&["inspect", arg(&place.file("cut", &whole[..cut]))]);
    }
}

#[test]
fn paths_forge_no_lines() {
    let place = Place::new();
    let file = place.file("s\nFORGED\u{202e}", &wild(1).finish(true));
    checked(&["inspect", arg(&file)]);
    checked(&["inspect", arg(&file), "--plot"]);
    checked(&["check", arg(&file)]);
    checked(&["inspect", arg(&place.path("missing\nFORGED"))]);
    checked(&["plot", arg(&place.path("missing\nFORGED")), "-o", arg(&place.path("p.svg"))]);
    checked(&["plot", "/dev/null", "-o", arg(&place.path("p\nFORGED"))]);
}

#[test]
fn traces_forge_no_lines() {
    let place = Place::new();
    let name = in_json(WILD);
    let trace = format!(
        r#"{{"t_ns":0,"event":"trace","version":1,"side":"{name}","uri":"{name}"}}
{{"t_ns":0,"event":"status","status":"{name}"}}
{{"t_ns":0,"event":"phase","phase":"{name}","edge":"begin"}}
{{"t_ns":9,"event":"device","idstr":"{name}","instance":0,"bytes":7,"duration_ns":4}}
{{"t_ns":10,"event":"error","message":"{name}"}}
{{"t_ns":11,"event":"{name}"}}
{{"t_ns":11,"event":"phase","{name}":1}}
"#
    );
    let trace = place.file("trace", trace.as_bytes());
    for picture in ["t.svg", "t.html"] {
        let picture = place.path(picture);
        checked(&["plot", arg(&trace), "-o", arg(&picture)]);
        let text = std::fs::read_to_string(&picture).unwrap();
        assert!(text.contains("FORGED"));
        check(arg(&picture), &text);
    }
}
