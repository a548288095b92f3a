// SPDX-License-Identifier: LGPL-2.1-or-later
//! Tables and JSON of captures. `docs/inspect-json.md` describes the JSON document.

use std::io::Write;

use savevm_stream::inspect::json::Emitter;
use savevm_stream::inspect::printable;
use savevm_stream::wire::uuid_text;

use super::{Captures, Channel};
use crate::failure::Result;
use crate::output::{Output, Style};
use crate::words::{grouped, plural, shown, size};

/// Number of the document's format. It increases when a member changes its meaning or is removed.
const FORMAT: u32 = 1;

/// UUID of the machine in the hello of a connection, if it has one.
fn uuid(channel: &Channel) -> Option<String> {
    let uuid = &channel.capture.hello.uuid;
    (*uuid != [0; 16]).then(|| uuid_text(uuid))
}

/// Writes one capture of a further connection.
pub fn channel(captures: &Captures, out: &mut Output) -> Result<()> {
    for channel in &captures.channels {
        let capture = &channel.capture;
        let title = out.paint(Style::Heading, shown(&channel.path));
        writeln!(out, "{title}: multifd channel {} of a migration", capture.hello.id)?;
        if let Some(uuid) = uuid(channel) {
            writeln!(out, "UUID {uuid}")?;
        }
        let method = capture.method.map_or("none", |method| method.name());
        writeln!(
            out,
            "{}, {}, page size {}, compression {method}",
            plural(capture.packets, "packet"),
            plural(capture.syncs, "sync"),
            capture.page_size
        )?;
        for (name, counts) in &channel.blocks {
            let name = out.paint(Style::Name, printable(name));
            writeln!(out, "{name}: {} with content, {} zero", plural(counts.normal, "page"), grouped(counts.zero))?;
        }
        writeln!(out, "total {}, {} of it pages", size(capture.bytes), size(capture.payload))?;
    }
    Ok(())
}

/// Writes the captures of a directory, and the pages of each block.
pub fn directory(captures: &Captures, out: &mut Output) -> Result<()> {
    if let Some((path, stream)) = &captures.main {
        let name = out.paint(Style::Name, shown(path));
        let state = if stream.complete { "complete" } else { "incomplete" };
        writeln!(out, "{name}: main connection, {state}")?;
    }
    for Channel { path, capture, .. } in &captures.channels {
        let name = out.paint(Style::Name, shown(path));
        let pages = plural(capture.normal + capture.zero, "page");
        writeln!(out, "{name}: multifd channel {}, {pages}, {}", capture.hello.id, size(capture.bytes))?;
    }
    for (name, block) in &captures.account.blocks {
        let name = out.paint(Style::Name, name.clone());
        let missing = match block.missing() {
            0 => "none missing".to_owned(),
            missing => out.paint(Style::Bad, format!("{} missing", grouped(missing))).to_string(),
        };
        writeln!(
            out,
            "block {name}: {}; sent on the main connection {}, on channels {}; {missing}",
            plural(block.all(), "page"),
            grouped(block.main),
            grouped(block.further)
        )?;
    }
    Ok(())
}

/// Writes the document.
pub fn json(captures: &Captures, out: &mut Output) -> Result<()> {
    let mut json = Emitter::new(out, Some(2));
    json.object().name("savevm-captures").number(FORMAT).name("main");
    match &captures.main {
        None => json.null(),
        Some((path, stream)) => {
            let damage = stream.damage.as_ref().map(ToString::to_string);
            json.object().name("file").string(&shown(path)).name("length").number(stream.length);
            json.name("complete").bool(stream.complete).name("damage").optional_string(damage.as_deref()).end()
        }
    };
    json.name("channels").array();
    for channel in &captures.channels {
        put_channel(&mut json, channel);
    }
    json.end().name("unreadable").array();
    for (path, problem) in &captures.unreadable {
        json.object().name("file").string(&shown(path)).name("problem").string(problem).end();
    }
    json.end().name("wrong_numbers").bool(captures.wrong_numbers().is_some());
    json.name("blocks").array();
    for (name, block) in &captures.account.blocks {
        json.object().name("name").string(name).name("length").number(block.length);
        json.name("page_size").number(block.page_size).name("pages").number(block.all());
        json.name("main").number(block.main).name("channels").number(block.further);
        json.name("missing").number(block.missing()).end();
    }
    json.end().name("missing").number(captures.account.missing()).end();
    json.finish()?;
    Ok(())
}

fn put_channel<W: Write>(json: &mut Emitter<W>, channel: &Channel) {
    let capture = &channel.capture;
    json.object().name("file").string(&shown(&channel.path)).name("number").number(capture.hello.id);
    json.name("uuid").optional_string(uuid(channel).as_deref());
    json.name("length").number(capture.bytes).name("page_size").number(capture.page_size);
    json.name("packets").number(capture.packets).name("syncs").number(capture.syncs);
    json.name("method").optional_string(capture.method.map(|method| method.name()));
    json.name("normal").number(capture.normal).name("zero").number(capture.zero);
    json.name("payload").number(capture.payload).name("damage");
    match &capture.damage {
        None => json.null(),
        Some(damage) => json.object().name("offset").number(damage.offset).name("message").string(&damage.text).end(),
    };
    json.name("blocks").array();
    for (name, counts) in &channel.blocks {
        json.object().name("name").string(name).name("normal").number(counts.normal);
        json.name("zero").number(counts.zero).end();
    }
    json.end().end();
}
