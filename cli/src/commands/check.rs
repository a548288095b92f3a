// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm check`: checks whether a stream is well-formed, and whether it would load into a machine.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use savevm_stream::inspect::compat::{Dump, Finding, Severity, Target};
use savevm_stream::inspect::json::{Emitter, Json};
use savevm_stream::inspect::{Budget, Device, FieldSink, Group, Leaf, Stream, Unwatched, decode};

use crate::args::{Check, ColourChoice, ReportFormat};
use crate::failure::{Context, Failure, Result, Status};
use crate::input::Input;
use crate::output::{Output, Style};
use crate::words::{plural, shown};

/// Runs the command.
pub fn run(args: &Check, colour: ColourChoice) -> Result<Status> {
    let target = args.against.as_deref().map(|path| read_target(path, args.reading.max_memory)).transpose()?;
    if let Some(target) = target.as_ref().filter(|_| is_json(&args.file)) {
        return check_dump(args, target, colour);
    }
    let input = Input::open(&args.file, &args.reading)?;
    let name = input.name.clone();
    let stream = input.read(&mut Unwatched)?;
    let mut findings = well_formed(&stream);
    if let Some(target) = &target {
        findings.extend(target.check(&stream));
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let fails_from = if args.strict { Severity::Warning } else { Severity::Risk };
    let verdict = Verdict::of(&findings, fails_from, target.is_some());
    if !args.quiet {
        let mut out = Output::stdout(colour);
        match args.format {
            ReportFormat::Text => {
                let devices = plural(stream.devices().count() as u64, "device");
                let about = format!("{devices}, {}", plural(stream.length, "byte"));
                write_text(&name, &about, &findings, verdict, &mut out)?;
            }
            ReportFormat::Json => write_json(&findings, verdict, &mut out)?,
        }
        out.flush()?;
    }
    Ok(if verdict.fails() { Status::Found } else { Status::Success })
}

/// Returns whether a file begins as JSON. No stream begins with a brace.
fn is_json(path: &Path) -> bool {
    let mut first = [0];
    let is_file = std::fs::metadata(path).is_ok_and(|data| data.is_file());
    is_file && File::open(path).and_then(|mut file| file.read_exact(&mut first)).is_ok() && first == *b"{"
}

/// Checks what one QEMU sends, by the output of its -dump-vmstate, against that of another one.
fn check_dump(args: &Check, target: &Target, colour: ColourChoice) -> Result<Status> {
    let name = || shown(&args.file);
    let text = std::fs::read(&args.file).context(name)?;
    let json = Json::parse(&text, &mut Budget::new(args.reading.max_memory)).map_err(Failure::new).context(name)?;
    let source = Dump::from_json(&json).map_err(Failure::new).context(name)?;
    let mut findings = target
        .check_dump(&source)
        .ok_or_else(|| Failure::new("a dump can be checked against another dump only"))
        .context(name)?;
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let fails_from = if args.strict { Severity::Warning } else { Severity::Risk };
    let verdict = Verdict::of(&findings, fails_from, true);
    if !args.quiet {
        let mut out = Output::stdout(colour);
        let about = plural(source.len() as u64, "description");
        match args.format {
            ReportFormat::Text => write_text(&name(), &about, &findings, verdict, &mut out)?,
            ReportFormat::Json => write_json(&findings, verdict, &mut out)?,
        }
        out.flush()?;
    }
    Ok(if verdict.fails() { Status::Found } else { Status::Success })
}

/// The result of the findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    WellFormed,
    NotWellFormed,
    WouldLoad,
    MayNotLoad,
    WouldNotLoad,
}

impl Verdict {
    fn of(findings: &[Finding], fails_from: Severity, against: bool) -> Self {
        let worst = findings.iter().map(|finding| finding.severity).max();
        let fails = worst >= Some(fails_from);
        match (fails, against) {
            (false, false) => Self::WellFormed,
            (true, false) => Self::NotWellFormed,
            (false, true) => Self::WouldLoad,
            (true, true) if worst == Some(Severity::Error) => Self::WouldNotLoad,
            (true, true) => Self::MayNotLoad,
        }
    }

    fn fails(self) -> bool {
        !matches!(self, Self::WellFormed | Self::WouldLoad)
    }

    /// Returns the text and the word in JSON.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::WellFormed => ("well-formed", "well-formed"),
            Self::NotWellFormed => ("not well-formed", "not-well-formed"),
            Self::WouldLoad => ("nothing prevents loading it", "would-load"),
            Self::MayNotLoad => ("it may not load", "may-not-load"),
            Self::WouldNotLoad => ("it would not load", "would-not-load"),
        }
    }
}

fn read_target(path: &Path, max_memory: usize) -> Result<Target> {
    let name = || shown(path);
    let text = std::fs::read(path).context(name)?;
    let json = Json::parse(&text, &mut Budget::new(max_memory)).map_err(Failure::new).context(name)?;
    Target::from_json(json).map_err(Failure::new).context(name)
}

/// Returns the faults of the stream itself.
fn well_formed(stream: &Stream) -> Vec<Finding> {
    let finding =
        |severity, device: Option<Device>, path: String, message: String| Finding { severity, device, path, message };
    let mut findings = Vec::new();
    if let Some(damage) = &stream.damage {
        findings.push(finding(Severity::Error, None, String::new(), damage.to_string()));
    }
    if let Some(damage) = stream.container.damage() {
        findings.push(finding(Severity::Error, None, String::new(), damage));
    }
    for note in stream.container.notes() {
        findings.push(finding(Severity::Warning, None, String::new(), note));
    }
    for (_, section) in stream.devices() {
        let device = || Some(section.device.clone());
        if section.twin > 0 {
            let message = "a second device of the same name and instance; QEMU loads both into the first";
            findings.push(finding(Severity::Warning, device(), String::new(), message.into()));
        }
        if let (Some(layout), Some(data)) = (stream.layout(section), &section.data) {
            if let Err(misfit) = decode(layout, data, &mut Unseen) {
                findings.push(finding(Severity::Warning, device(), misfit.path.clone(), misfit.to_string()));
            }
        }
    }
    if stream.trailing > 0 {
        let message = format!("{} follow the stream", plural(stream.trailing, "byte"));
        findings.push(finding(Severity::Note, None, String::new(), message));
    }
    findings
}

/// A sink that ignores the fields, to see whether they fit.
struct Unseen;

impl FieldSink for Unseen {
    fn enter(&mut self, _name: &str, _group: Group) {}
    fn leave(&mut self) {}
    fn field(&mut self, _leaf: &Leaf<'_>) {}
}

fn write_text(name: &str, about: &str, findings: &[Finding], verdict: Verdict, out: &mut Output) -> Result<()> {
    for finding in findings {
        let style = match finding.severity {
            Severity::Error | Severity::Risk => Style::Bad,
            Severity::Warning => Style::Notable,
            Severity::Note => Style::Faint,
        };
        let severity = out.paint(style, finding.severity.name());
        writeln!(out, "{severity}: {finding}")?;
    }
    let style = if verdict.fails() { Style::Bad } else { Style::Good };
    let verdict = out.paint(style, verdict.names().0);
    writeln!(out, "{name}: {verdict} ({about})")?;
    Ok(())
}

fn write_json(findings: &[Finding], verdict: Verdict, out: &mut Output) -> Result<()> {
    let mut json = Emitter::new(out, Some(2));
    json.object().name("savevm-check").number(1).name("passes").bool(!verdict.fails());
    json.name("verdict").string(verdict.names().1).name("findings").array();
    for finding in findings {
        json.object().name("severity").string(finding.severity.name());
        json.name("device").optional_string(finding.device.as_ref().map(|device| &*device.name));
        json.name("instance").optional_number(finding.device.as_ref().map(|device| device.instance.into()));
        json.name("path").string(&finding.path).name("message").string(&finding.message).end();
    }
    json.end().end();
    json.finish()?;
    Ok(())
}
