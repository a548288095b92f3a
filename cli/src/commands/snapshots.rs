// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm snapshots`: lists the snapshots of a directory with their parents.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use savevm_stream::inspect::{Options, printable, read_slice};

use crate::args::{ColourChoice, Snapshots};
use crate::failure::{Context, Failure, Result, Status};
use crate::input::chain;
use crate::output::{Output, Style};
use crate::words::{plural, shown, size};

/// One snapshot of the list.
struct Row {
    name: String,
    bytes: u64,
    machine: String,
    parent: Option<String>,
    /// The state, and whether it is good.
    state: std::result::Result<String, String>,
}

/// Runs the command.
pub fn run(args: &Snapshots, colour: ColourChoice) -> Result<Status> {
    let list = fs::read_dir(&args.directory).context(|| format!("cannot read {}", shown(&args.directory)))?;
    let mut paths = Vec::new();
    for entry in list {
        let path = entry.context(|| shown(&args.directory))?.path();
        if path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    let rows: Vec<_> = paths.iter().filter_map(|path| row(path, args)).collect();
    let mut out = Output::stdout(colour);
    write(&rows, &mut out)?;
    out.flush()?;
    Ok(if rows.iter().all(|row| row.state.is_ok()) { Status::Success } else { Status::Found })
}

/// Returns the row of a file, or `None` if it is no snapshot.
fn row(path: &Path, args: &Snapshots) -> Option<Row> {
    let name = shown(Path::new(path.file_name()?));
    let start = chain::start_of(path).ok().filter(|start| start.starts_with(b"QEVM"))?;
    let stream = read_slice(&start, Options { footers: Some(true), ..Options::default() });
    let machine = stream.configuration.map(|configuration| printable(&configuration.machine).into_owned());
    let parent = stream.parent;
    let state = if args.verify {
        chain::open(path, args.max_memory).map(|chain| plural(chain.paths().count() as u64, "file") + ", verified")
    } else {
        quick_state(path, parent.as_ref().map(|link| (PathBuf::from(&link.name), link.parent.length)))
    };
    Some(Row {
        name,
        bytes: fs::metadata(path).map_or(0, |data| data.len()),
        machine: machine.unwrap_or_default(),
        parent: parent.map(|link| printable(&link.name).into_owned()),
        state: state.map_err(|failure| match failure {
            Failure::Message(text) => text,
            Failure::PipeClosed => String::new(),
        }),
    })
}

/// Compares the length of the parent with the expected one. Does not read the files.
fn quick_state(path: &Path, parent: Option<(PathBuf, u64)>) -> Result<String> {
    let Some((name, length)) = parent else { return Ok("full".into()) };
    let parent = path.parent().unwrap_or(Path::new("")).join(name);
    let data = fs::metadata(&parent).context(|| format!("the parent {}", shown(&parent)))?;
    if data.len() != length {
        let text = format!("the parent {} has {} bytes, expected {length}", shown(&parent), data.len());
        return Err(Failure::new(text));
    }
    Ok("incremental".into())
}

fn write(rows: &[Row], out: &mut Output) -> Result<()> {
    let width = |texts: &mut dyn Iterator<Item = &str>| texts.map(|text| text.chars().count()).max().unwrap_or(0);
    let names = width(&mut rows.iter().map(|row| &*row.name)).max("name".len());
    let machines = width(&mut rows.iter().map(|row| &*row.machine)).max("machine".len());
    let parents = width(&mut rows.iter().filter_map(|row| row.parent.as_deref())).max("parent".len());
    let heading = format!("{:names$}  {:>10}  {:machines$}  {:parents$}  state", "name", "size", "machine", "parent");
    writeln!(out, "{}", out.paint(Style::Heading, heading))?;
    for row in rows {
        let parent = row.parent.as_deref().unwrap_or("-");
        let (style, state) = match &row.state {
            Ok(state) => (Style::Good, state),
            Err(state) => (Style::Bad, state),
        };
        let start =
            format!("{:names$}  {:>10}  {:machines$}  {parent:parents$}", row.name, size(row.bytes), row.machine);
        writeln!(out, "{start}  {}", out.paint(style, state))?;
    }
    Ok(())
}
