// SPDX-License-Identifier: LGPL-2.1-or-later
//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use savevm_stream::inspect::Budget;

use crate::words;

const STATUS_HELP: &str = "Exit status:
  0  all is well
  1  the stream is damaged, the streams differ, or the check fails
  2  the question could not be answered: wrong usage, unreadable file";

/// Look into QEMU migration streams and snapshots.
#[derive(Debug, Parser)]
#[command(name = "savevm", version, after_help = STATUS_HELP, max_term_width = 100)]
#[command(disable_help_subcommand = true, arg_required_else_help = true)]
pub struct Cli {
    /// When to use colours
    #[arg(long = "color", alias = "colour", value_enum, default_value_t, global = true, value_name = "WHEN")]
    pub colour: ColourChoice,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColourChoice {
    /// On a terminal
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what a stream holds
    Inspect(Inspect),
    /// Show what differs between two streams
    Diff(Diff),
    /// Check whether a stream is well-formed, and whether it would load into a machine
    Check(Check),
    /// Write the layout of a stream's devices, for `check --against`
    Schema(Schema),
    /// Write guest memory as an image, for debuggers and crash tools
    Extract(Extract),
    /// Draw the trace of a migration: bandwidth, dirty rate, what is left, phases, downtime
    Plot(Plot),
    /// Write the manual pages
    #[command(hide = true)]
    Man {
        /// Directory that they go to
        #[arg(value_hint = ValueHint::DirPath)]
        directory: PathBuf,
    },
    /// Write the completions for a shell
    #[command(hide = true)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// How a stream is read.
#[derive(Args, Clone, Debug)]
pub struct Reading {
    /// The internal snapshot to read, by name or number, if FILE is a qcow2 image
    #[arg(long, value_name = "NAME")]
    pub snapshot: Option<String>,
    /// Take the description of the devices from this stream of the same machine, for a stream that has none
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub describe_by: Option<PathBuf>,
    /// Where the stream starts in FILE, in bytes, such as the offset of a `file:` URI
    #[arg(long, value_name = "SIZE", value_parser = words::parse_size, default_value_t = 0, hide_default_value = true)]
    pub offset: u64,
    /// How much memory reading may take (default 1G)
    #[arg(long, value_name = "SIZE", value_parser = parse_usize, default_value_t = Budget::DEFAULT)]
    #[arg(hide_default_value = true)]
    pub max_memory: usize,
    /// How much room a temporary copy of a stream may take, which `diff` needs for pipes and compressed files (default 16G)
    #[arg(long, value_name = "SIZE", value_parser = words::parse_size, default_value_t = 16 << 30)]
    #[arg(hide_default_value = true)]
    pub max_temporary: u64,
}

fn parse_usize(text: &str) -> Result<usize, String> {
    words::parse_size(text).map(|size| usize::try_from(size).unwrap_or(usize::MAX))
}

/// What `inspect` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// For programs, stable
    Json,
    /// The document that QEMU's analyze-migration.py prints
    Analyze,
    /// The stream's own description of its devices
    Description,
}

const INSPECT_EXAMPLES: &str = "Examples:
  savevm inspect vm.mig                          what the stream holds
  savevm inspect vm.mig --device 'cpu*'          with the CPUs' fields
  savevm inspect vm.mig --device vga --hex       with the raw bytes, too
  savevm inspect disk.qcow2 --snapshot clean     an internal snapshot
  ssh host cat vm.mig.zst | savevm inspect -     compressed, from a pipe
  savevm inspect vm.mig --plot -o vm.svg         where the bytes went";

/// Show what a stream holds.
#[derive(Args, Debug)]
#[command(after_help = format!("{INSPECT_EXAMPLES}\n\n{STATUS_HELP}"))]
pub struct Inspect {
    /// The stream: a file, `-` for standard input, plain or compressed with gzip or zstd, a qcow2 image with an internal
    /// snapshot, or what libvirt's `save` wrote
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Show the fields of the devices whose name matches, in whole or behind its last slash; NAME#2 is instance 2 alone
    #[arg(short, long, value_name = "GLOB")]
    pub device: Vec<String>,
    /// Show the raw bytes of the selected devices, or of all
    #[arg(short = 'x', long)]
    pub hex: bool,
    /// What to print
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
    /// Draw where the bytes of the stream went, as SVG
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "treemap")]
    #[arg(conflicts_with_all = ["device", "hex", "format"])]
    pub plot: Option<InspectPlot>,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    /// How it is read
    pub reading: Reading,
}

/// What `inspect` draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InspectPlot {
    /// Rectangles as large as what they stand for
    Treemap,
}

const DIFF_EXAMPLES: &str = "Examples:
  savevm diff before.mig after.mig                 devices by field, memory by page ranges
  savevm diff a.mig b.mig --device 'cpu*' --no-ram
  savevm diff disk.qcow2 disk.qcow2 --snapshot one --snapshot-b two";

/// Show what differs between two streams.
#[derive(Args, Debug)]
#[command(after_help = format!("{DIFF_EXAMPLES}\n\n{STATUS_HELP}"))]
pub struct Diff {
    /// The one stream
    #[arg(value_hint = ValueHint::FilePath)]
    pub a: PathBuf,
    /// The other
    #[arg(value_hint = ValueHint::FilePath)]
    pub b: PathBuf,
    /// Compare only the devices whose name matches
    #[arg(short, long, value_name = "GLOB")]
    pub device: Vec<String>,
    /// Leave out guest memory
    #[arg(long)]
    pub no_ram: bool,
    /// Show at most so many page ranges per block
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub ranges: usize,
    /// The snapshot to read from B; otherwise the same as from A
    #[arg(long, value_name = "NAME")]
    pub snapshot_b: Option<String>,
    /// What to print
    #[arg(short, long, value_enum, default_value_t)]
    pub format: ReportFormat,
    #[command(flatten)]
    /// How they are read
    pub reading: Reading,
}

/// What `diff` and `check` print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

const CHECK_EXAMPLES: &str = "Examples:
  savevm check vm.mig && echo whole
  savevm schema good.mig > machine.json; savevm check vm.mig --against machine.json
  qemu-system-x86_64 -machine q35 -dump-vmstate q35.json; savevm check vm.mig --against q35.json";

/// Check whether a stream is well-formed, and whether it would load into a machine.
#[derive(Args, Debug)]
#[command(after_help = format!("{CHECK_EXAMPLES}\n\n{STATUS_HELP}"))]
pub struct Check {
    /// The stream
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// The machine that it should load into: what `savevm schema` wrote of one of its streams, or what QEMU's
    /// -dump-vmstate wrote
    #[arg(long, value_name = "SCHEMA", value_hint = ValueHint::FilePath)]
    pub against: Option<PathBuf>,
    /// Fail on warnings too
    #[arg(long)]
    pub strict: bool,
    /// Print nothing, the exit status says it
    #[arg(short, long)]
    pub quiet: bool,
    /// What to print
    #[arg(short, long, value_enum, default_value_t)]
    pub format: ReportFormat,
    #[command(flatten)]
    /// How it is read
    pub reading: Reading,
}

const SCHEMA_EXAMPLES: &str = "Examples:
  savevm schema good.mig -o machine.json
  savevm check other.mig --against machine.json";

/// Write the layout of a stream's devices, for `check --against`.
#[derive(Args, Debug)]
#[command(after_help = format!("{SCHEMA_EXAMPLES}\n\n{STATUS_HELP}"))]
pub struct Schema {
    /// A stream of the machine
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    /// How it is read
    pub reading: Reading,
}

const EXTRACT_EXAMPLES: &str = "Examples:
  savevm extract vm.mig --ram pc.ram -o memory.img
  gdb -ex 'restore memory.img binary 0' ...
  savevm inspect vm.mig            names the blocks";

/// Write guest memory as an image, for debuggers and crash tools.
///
/// The image is sparse: pages of zeroes take no room. Where the stream sends a page more than once the last one counts.
#[derive(Args, Debug)]
#[command(after_help = format!("{EXTRACT_EXAMPLES}\n\n{STATUS_HELP}"))]
pub struct Extract {
    /// The stream
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// The block of memory, as `inspect` names it
    #[arg(long, value_name = "BLOCK")]
    pub ram: String,
    /// The image
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    #[command(flatten)]
    /// How it is read
    pub reading: Reading,
}

const PLOT_EXAMPLES: &str = "Examples:
  savevm plot trace.jsonl -o migration.svg
  savevm plot trace.jsonl -o migration.html";

/// Draw the trace of a migration: bandwidth, dirty rate, what is left, phases, downtime.
#[derive(Args, Debug)]
#[command(after_help = format!("{PLOT_EXAMPLES}\n\n{STATUS_HELP}"))]
pub struct Plot {
    /// The trace, JSON in lines; `-` for standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub trace: PathBuf,
    /// The picture; its name ends in .svg or .html
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
}
