// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm snapshots`: lists the snapshots of a directory with their parents. A file that can't be read may be a snapshot, so it is
//! listed with the reason.

use std::fs::{self, Metadata};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use savevm_stream::chain::{FILES_MAX, Link, START};
use savevm_stream::inspect::json::Emitter;
use savevm_stream::inspect::{Options, Stream, printable, read_slice};

use crate::args::{ColourChoice, ReportFormat, Snapshots};
use crate::failure::{Context, Failure, Result, Status};
use crate::input::chain;
use crate::output::{Output, Style};
use crate::report;
use crate::words::{plural, shown, size};

/// Bytes of a block, in which the disk space of a file is counted (stat(2)).
const BLOCK: u64 = 512;

/// One file of the list.
struct Row {
    name: String,
    /// The properties of the file, if they are known.
    data: Option<Metadata>,
    machine: Option<String>,
    parent: Option<String>,
    state: State,
}

enum State {
    /// It can be loaded with this number of files, as far as was checked.
    Usable(usize),
    /// It or an ancestor is damaged or missing.
    Unusable(String),
    /// The file can't be read.
    Unreadable(String),
}

impl Row {
    /// Length of the file in bytes.
    fn length(&self) -> Option<u64> {
        self.data.as_ref().map(Metadata::len)
    }

    /// Bytes that the file takes on the disk: fewer than its length if it has holes.
    fn disk(&self) -> Option<u64> {
        self.data.as_ref().map(|data| data.blocks().saturating_mul(BLOCK))
    }

    fn problem(&self) -> Option<&str> {
        match &self.state {
            State::Usable(_) => None,
            State::Unusable(problem) | State::Unreadable(problem) => Some(problem),
        }
    }

    fn status(&self) -> Status {
        match self.state {
            State::Usable(_) => Status::Success,
            State::Unusable(_) => Status::Found,
            State::Unreadable(_) => Status::Error,
        }
    }
}

/// Runs the command.
pub fn run(args: &Snapshots, colour: ColourChoice) -> Result<Status> {
    let what = || format!("cannot read {}", shown(&args.directory));
    let list = fs::read_dir(&args.directory).context(what)?;
    let (mut rows, mut status) = (Vec::new(), Status::Success);
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in list {
        match entry.context(what) {
            Ok(entry) => paths.push(entry.path()),
            Err(failure) => {
                report(&text_of(failure));
                status = Status::Error;
                break;
            }
        }
    }
    paths.sort();
    for path in &paths {
        let Some(row) = row(path, args) else { continue };
        if let State::Unreadable(problem) = &row.state {
            report(&format!("{}: {problem}", shown(path)));
        }
        status = status.max(row.status());
        rows.push(row);
    }
    let mut out = Output::stdout(colour);
    match args.format {
        ReportFormat::Text => write(&rows, args.verify, &mut out)?,
        ReportFormat::Json => write_json(&rows, args.verify, &mut out)?,
    }
    out.flush()?;
    Ok(status)
}

fn text_of(failure: Failure) -> String {
    match failure {
        Failure::Message(text) => text,
        Failure::PipeClosed => String::new(),
    }
}

/// Returns the row of a file, or `None` if it is no snapshot.
fn row(path: &Path, args: &Snapshots) -> Option<Row> {
    let name = shown(Path::new(path.file_name()?));
    let unreadable = |failure: Failure, data| {
        let state = State::Unreadable(text_of(failure));
        Some(Row { name: name.clone(), data, machine: None, parent: None, state })
    };
    let data = match fs::metadata(path) {
        Ok(data) if !data.is_file() => return None,
        Ok(data) => data,
        Err(error) => return unreadable(error.into(), None),
    };
    let start = match chain::start_of(path) {
        Ok(start) => start,
        Err(failure) => return unreadable(failure, Some(data)),
    };
    if !start.starts_with(b"QEVM") {
        return None;
    }
    let stream = read_slice(&start, Options { footers: Some(true), ..Options::default() });
    let state = match damage(&start, &stream) {
        Some(damage) => Err(Failure::new(damage)),
        None if args.verify => chain::open(path, args.max_memory).map(|chain| chain.paths().count()),
        None => quick_state(path, stream.parent.clone()),
    };
    Some(Row {
        name,
        data: Some(data),
        machine: stream.configuration.map(|configuration| printable(&configuration.machine).into_owned()),
        parent: stream.parent.map(|link| printable(&link.name).into_owned()),
        state: state.map_or_else(|failure| State::Unusable(text_of(failure)), State::Usable),
    })
}

/// Returns the damage that the first bytes of a file show: before its devices, or anywhere if they are the whole file.
fn damage(start: &[u8], stream: &Stream) -> Option<String> {
    if start.len() < START {
        return read_slice(start, Options::default()).damage.map(|damage| damage.to_string());
    }
    let damage = stream.damage.as_ref().filter(|damage| !damage.cut && damage.section.is_none())?;
    stream.sections().next().is_none().then(|| damage.to_string())
}

/// Compares the lengths of all ancestors with the expected ones. Reads only the first bytes of the files. Returns the number of
/// files.
fn quick_state(path: &Path, mut parent: Option<Link<String>>) -> Result<usize> {
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
    Ok(files)
}

fn write(rows: &[Row], verified: bool, out: &mut Output) -> Result<()> {
    let width = |texts: &mut dyn Iterator<Item = &str>| texts.map(|text| text.chars().count()).max().unwrap_or(0);
    let names = width(&mut rows.iter().map(|row| &*row.name)).max("name".len());
    let machines = width(&mut rows.iter().filter_map(|row| row.machine.as_deref())).max("machine".len());
    let parents = width(&mut rows.iter().filter_map(|row| row.parent.as_deref())).max("parent".len());
    let heading = format!(
        "{:names$}  {:>10}  {:>10}  {:machines$}  {:parents$}  state",
        "name", "length", "on disk", "machine", "parent"
    );
    writeln!(out, "{}", out.paint(Style::Heading, heading))?;
    for row in rows {
        let bytes = |number: Option<u64>| number.map_or("-".into(), size);
        let (name, length, disk) = (&row.name, bytes(row.length()), bytes(row.disk()));
        let (machine, parent) = (row.machine.as_deref().unwrap_or(""), row.parent.as_deref().unwrap_or("-"));
        let start = format!("{name:names$}  {length:>10}  {disk:>10}  {machine:machines$}  {parent:parents$}");
        let (style, state) = match &row.state {
            State::Usable(files) if verified => (Style::Good, plural(*files as u64, "file") + ", verified"),
            State::Usable(1) => (Style::Good, "full".into()),
            State::Usable(files) => (Style::Good, format!("incremental, {}", plural(*files as u64, "file"))),
            State::Unusable(problem) | State::Unreadable(problem) => (Style::Bad, problem.clone()),
        };
        writeln!(out, "{start}  {}", out.paint(style, state))?;
    }
    Ok(())
}

fn write_json(rows: &[Row], verified: bool, out: &mut Output) -> Result<()> {
    let mut json = Emitter::new(out, Some(2));
    json.object().name("savevm-snapshots").number(1).name("verified").bool(verified).name("snapshots").array();
    for row in rows {
        let (state, files) = match &row.state {
            State::Usable(files) => ("usable", Some(*files as u64)),
            State::Unusable(_) => ("unusable", None),
            State::Unreadable(_) => ("unreadable", None),
        };
        json.object().name("name").string(&row.name);
        json.name("length").optional_number(row.length()).name("on_disk").optional_number(row.disk());
        json.name("machine").optional_string(row.machine.as_deref());
        json.name("parent").optional_string(row.parent.as_deref());
        json.name("state").string(state).name("files").optional_number(files);
        json.name("problem").optional_string(row.problem()).end();
    }
    json.end().end();
    json.finish()?;
    Ok(())
}
