// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm snapshots`: lists the snapshots of a directory with their parents.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use savevm_stream::chain::{FILES_MAX, Link};
use savevm_stream::inspect::{Options, printable, read_slice};

use crate::args::{ColourChoice, Snapshots};
use crate::failure::{Context, Failure, Result, Status};
use crate::input::chain;
use crate::output::{Output, Style};
use crate::words::{plural, shown, size};

/// Bytes of a block, in which the disk space of a file is counted (stat(2)).
const BLOCK: u64 = 512;

/// One snapshot of the list.
struct Row {
    name: String,
    /// Length of the file in bytes.
    length: u64,
    /// Bytes that the file takes on the disk: fewer if it has holes.
    disk: u64,
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
        quick_state(path, parent.clone())
    };
    let data = fs::metadata(path).ok()?;
    Some(Row {
        name,
        length: data.len(),
        disk: data.blocks().saturating_mul(BLOCK),
        machine: machine.unwrap_or_default(),
        parent: parent.map(|link| printable(&link.name).into_owned()),
        state: state.map_err(|failure| match failure {
            Failure::Message(text) => text,
            Failure::PipeClosed => String::new(),
        }),
    })
}

/// Compares the lengths of all ancestors with the expected ones. Reads only the first bytes of the files.
fn quick_state(path: &Path, mut parent: Option<Link<String>>) -> Result<String> {
    if parent.is_none() {
        return Ok("full".into());
    }
    let (mut child, mut files) = (path.to_owned(), 1);
    while let Some(link) = parent {
        if files == FILES_MAX {
            return Err(Failure::new(format!("the chain has more than {FILES_MAX} files")));
        }
        let path = chain::path_of_parent(&child, &link);
        let what = || format!("the parent {} of {}", shown(&path), shown(&child));
        let length = fs::metadata(&path).context(what)?.len();
        if length != link.parent.length {
            return Err(Failure::new(format!("{} has {length} bytes, expected {}", what(), link.parent.length)));
        }
        parent = chain::parent_of(&path)?;
        (child, files) = (path, files + 1);
    }
    Ok(format!("incremental, {}", plural(files as u64, "file")))
}

fn write(rows: &[Row], out: &mut Output) -> Result<()> {
    let width = |texts: &mut dyn Iterator<Item = &str>| texts.map(|text| text.chars().count()).max().unwrap_or(0);
    let names = width(&mut rows.iter().map(|row| &*row.name)).max("name".len());
    let machines = width(&mut rows.iter().map(|row| &*row.machine)).max("machine".len());
    let parents = width(&mut rows.iter().filter_map(|row| row.parent.as_deref())).max("parent".len());
    let heading = format!(
        "{:names$}  {:>10}  {:>10}  {:machines$}  {:parents$}  state",
        "name", "length", "on disk", "machine", "parent"
    );
    writeln!(out, "{}", out.paint(Style::Heading, heading))?;
    for row in rows {
        let parent = row.parent.as_deref().unwrap_or("-");
        let (style, state) = match &row.state {
            Ok(state) => (Style::Good, state),
            Err(state) => (Style::Bad, state),
        };
        let (name, length, disk, machine) = (&row.name, size(row.length), size(row.disk), &row.machine);
        let start = format!("{name:names$}  {length:>10}  {disk:>10}  {machine:machines$}  {parent:parents$}");
        writeln!(out, "{start}  {}", out.paint(style, state))?;
    }
    Ok(())
}
