// SPDX-License-Identifier: LGPL-2.1-or-later
//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use savevm_stream::inspect::Budget;

use crate::words;

const STATUS_HELP: &str = "Exit status:
  0  success
  1  the stream is damaged or incomplete, the streams differ, or the check fails
  2  error: wrong usage, or a file that cannot be read or written";

/// Inspect QEMU migration streams and snapshots.
#[derive(Debug, Parser)]
#[command(name = "savevm", version, after_help = STATUS_HELP, max_term_width = 100)]
#[command(disable_help_subcommand = true, arg_required_else_help = true)]
pub struct Cli {
    /// When to use colours
    #[arg(long = "color", alias = "colour", value_enum, default_value_t, global = true, value_name = "WHEN")]
    pub colour: ColourChoice,
    /// Subcommand
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
    /// Show the contents of a stream
    Inspect(Inspect),
    /// Show the differences between two streams
    Diff(Diff),
    /// Check whether a stream is well-formed and whether it would load into a machine
    Check(Check),
    /// Write the layout of a stream's devices for `check --against`
    Schema(Schema),
    /// Write a RAM block as an image for debuggers and crash tools
    Extract(Extract),
    /// Write a full snapshot from an incremental one and its ancestors
    Merge(Merge),
    /// Write where the pages of a snapshot are, so that a lazy restore starts at once
    Index(Index),
    /// List the snapshots of a directory
    Snapshots(Snapshots),
    /// Draw the trace of a migration: bandwidth, dirty rate, remaining bytes, phases, downtime
    Plot(Plot),
    /// Write the manual pages
    #[command(hide = true)]
    Man {
        /// Output directory
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
    /// Name or number of the internal snapshot to read, if FILE is a qcow2 image
    #[arg(long, value_name = "NAME")]
    pub snapshot: Option<String>,
    /// Stream of the same machine whose description of the devices is used if the stream has none
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub describe_by: Option<PathBuf>,
    /// Offset in FILE at which the stream starts, such as that of a `file:PATH,offset=N` URI (default 0)
    #[arg(long, value_name = "SIZE", value_parser = words::parse_size, default_value_t = 0, hide_default_value = true)]
    pub offset: u64,
    /// Maximum memory for reading a stream and for decompressing it (default 1G)
    #[arg(long, value_name = "SIZE", value_parser = parse_usize, default_value_t = Budget::DEFAULT)]
    #[arg(hide_default_value = true)]
    pub max_memory: usize,
    /// Maximum size of the temporary copy that `diff` makes of a pipe or a compressed file (default 16G)
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
    /// Tables for reading
    #[default]
    Table,
    /// A JSON document with a stable format
    Json,
    /// The document that QEMU's analyze-migration.py prints
    Analyze,
    /// The stream's own description of its devices
    Description,
}

const INSPECT_EXAMPLES: &str = "Examples:
  savevm inspect vm.mig                          the contents of the stream
  savevm inspect vm.mig --device 'cpu*'          the fields of the CPUs
  savevm inspect vm.mig --device vga --hex       fields and raw bytes
  savevm inspect disk.qcow2 --snapshot clean     an internal snapshot
  ssh host cat vm.mig.zst | savevm inspect -     compressed, from a pipe
  savevm inspect vm.mig --plot -o vm.svg         the sizes of its parts";

/// Show the contents of a stream.
#[derive(Args, Debug)]
#[command(after_help = format!("{INSPECT_EXAMPLES}\n\n{STATUS_HELP}"))]
pub struct Inspect {
    /// File with the stream, or `-` for standard input: plain or compressed (gzip, zstd, xz), a qcow2 image with an internal
    /// snapshot, or a save of libvirt
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Show the fields of matching devices: by the whole name or by the part after the last slash; NAME#2 selects instance 2
    #[arg(short, long, value_name = "GLOB")]
    pub device: Vec<String>,
    /// Show the raw bytes of the selected devices, or of all devices
    #[arg(short = 'x', long)]
    pub hex: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
    /// Draw the sizes of the stream's parts as SVG
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
    /// One rectangle per part, its area in proportion to the part's bytes
    Treemap,
}

const DIFF_EXAMPLES: &str = "Examples:
  savevm diff before.mig after.mig                 devices by field, memory by page ranges
  savevm diff a.mig b.mig --device 'cpu*' --no-ram
  savevm diff disk.qcow2 disk.qcow2 --snapshot one --snapshot-b two";

/// Show the differences between two streams.
#[derive(Args, Debug)]
#[command(after_help = format!("{DIFF_EXAMPLES}\n\n{STATUS_HELP}"))]
pub struct Diff {
    /// First stream
    #[arg(value_hint = ValueHint::FilePath)]
    pub a: PathBuf,
    /// Second stream
    #[arg(value_hint = ValueHint::FilePath)]
    pub b: PathBuf,
    /// Compare only the devices whose name matches
    #[arg(short, long, value_name = "GLOB")]
    pub device: Vec<String>,
    /// Do not compare guest memory
    #[arg(long)]
    pub no_ram: bool,
    /// Maximum number of page ranges to show per RAM block
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub ranges: usize,
    /// Snapshot to read from B (default: the same as from A)
    #[arg(long, value_name = "NAME")]
    pub snapshot_b: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    pub format: ReportFormat,
    #[command(flatten)]
    /// How they are read
    pub reading: Reading,
}

/// What `diff`, `check` and `snapshots` print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// Text for reading
    #[default]
    Text,
    /// A JSON document with a stable format
    Json,
}

const CHECK_EXAMPLES: &str = "Examples:
  savevm check vm.mig && echo well-formed
  savevm schema good.mig > machine.json; savevm check vm.mig --against machine.json
  qemu-system-x86_64 -machine q35 -dump-vmstate q35.json; savevm check vm.mig --against q35.json
  savevm check old-qemu.json --against new-qemu.json";

/// Check whether a stream is well-formed and whether it would load into a machine.
#[derive(Args, Debug)]
#[command(after_help = format!("{CHECK_EXAMPLES}\n\n{STATUS_HELP}"))]
pub struct Check {
    /// File with the stream, or `-` for standard input; with --against, also the output of QEMU's -dump-vmstate
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Description of the machine to load into: written by `savevm schema` from one of its streams, or by QEMU's
    /// -dump-vmstate
    #[arg(long, value_name = "SCHEMA", value_hint = ValueHint::FilePath)]
    pub against: Option<PathBuf>,
    /// Exit with status 1 on warnings too
    #[arg(long)]
    pub strict: bool,
    /// Print nothing; only set the exit status
    #[arg(short, long)]
    pub quiet: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    pub format: ReportFormat,
    #[command(flatten)]
    /// How it is read
    pub reading: Reading,
}

const SCHEMA_EXAMPLES: &str = "Examples:
  savevm schema good.mig -o machine.json
  savevm check other.mig --against machine.json";

/// Write the layout of a stream's devices for `check --against`.
#[derive(Args, Debug)]
#[command(after_help = format!("{SCHEMA_EXAMPLES}\n\n{STATUS_HELP}"))]
pub struct Schema {
    /// File with a stream of the machine, or `-` for standard input
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
  savevm inspect vm.mig            lists the RAM blocks";

/// Write a RAM block as an image for debuggers and crash tools.
///
/// The image is sparse: zero pages take no disk space. If the stream sends a page more than once, the last one counts. Pages
/// that are not in the stream are zeros in the image; their number is reported, and the exit status is 1. Offsets in the
/// image are offsets in the RAM block. On a PC whose memory is split, the guest-physical addresses of both parts are printed.
#[derive(Args, Debug)]
#[command(after_help = format!("{EXTRACT_EXAMPLES}\n\n{STATUS_HELP}"))]
pub struct Extract {
    /// File with the stream, or `-` for standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Name of the RAM block, as `inspect` prints it
    #[arg(long, value_name = "BLOCK")]
    pub ram: String,
    /// Image file to write
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    #[command(flatten)]
    /// How it is read
    pub reading: Reading,
}

const MERGE_EXAMPLES: &str = "Examples:
  savevm merge monday.snap -o whole.snap
  savevm merge monday.snap --format mapped -o whole.mapped";

/// The format of a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SnapshotFormat {
    /// A migration stream
    #[default]
    Stream,
    /// Each page has a fixed place
    Mapped,
}

/// Write a full snapshot from an incremental one and its ancestors.
///
/// QEMU can load the result. It has the devices of FILE and the last copy of each page. All files are checked before. A full
/// snapshot is converted to the other format, or copied.
#[derive(Args, Debug)]
#[command(after_help = format!("{MERGE_EXAMPLES}\n\n{STATUS_HELP}"))]
pub struct Merge {
    /// Incremental snapshot
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// File to write; it is replaced only by a complete snapshot
    #[arg(short, long, value_name = "WHOLE", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    /// Format of WHOLE: QEMU's migration stream, or a file with fixed places of pages (mapped-ram, QEMU 9.0 and later)
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = SnapshotFormat::Stream)]
    pub format: SnapshotFormat,
    /// Maximum memory for the places of pages (default 1G)
    #[arg(long, value_name = "SIZE", value_parser = parse_usize, default_value_t = Budget::DEFAULT)]
    #[arg(hide_default_value = true)]
    pub max_memory: usize,
}

const INDEX_EXAMPLES: &str = "Example:
  savevm index vm.mig -o vm.mig.index";

/// Write where the pages of a snapshot are, so that a lazy restore starts at once.
///
/// Without an index, a lazy restore looks at the record of every page before the guest runs. A program names the index in
/// SaveVMSnapshotOptions.index. It belongs to FILE as it is now: copying, renaming, linking or changing FILE makes it invalid.
/// It determines the contents of guest memory, so protect it as FILE.
#[derive(Args, Debug)]
#[command(after_help = format!("{INDEX_EXAMPLES}\n\n{STATUS_HELP}"))]
pub struct Index {
    /// Full snapshot whose pages have no fixed places
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Index file to write
    #[arg(short, long, value_name = "INDEX", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    #[command(flatten)]
    /// How it is read
    pub reading: Reading,
}

const SNAPSHOTS_EXAMPLES: &str = "Examples:
  savevm snapshots /var/lib/vm
  savevm snapshots /var/lib/vm --verify";

/// List the snapshots of a directory.
///
/// A file with fixed places of pages is as long as memory, and takes only the space of its pages on the disk. The state of an
/// incremental snapshot shows how many files it needs, and whether all its ancestors exist and have the expected lengths. A
/// damaged or unreadable file is listed with the reason; the exit status is 1 or 2 then. Files that do not begin as a migration
/// stream are not listed.
#[derive(Args, Debug)]
#[command(after_help = format!("{SNAPSHOTS_EXAMPLES}\n\n{STATUS_HELP}"))]
pub struct Snapshots {
    /// Directory
    #[arg(value_hint = ValueHint::DirPath)]
    pub directory: PathBuf,
    /// Read all files and check them, with their ancestors
    #[arg(long)]
    pub verify: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    pub format: ReportFormat,
    /// Maximum memory for the places of pages (default 1G)
    #[arg(long, value_name = "SIZE", value_parser = parse_usize, default_value_t = Budget::DEFAULT)]
    #[arg(hide_default_value = true)]
    pub max_memory: usize,
}

const PLOT_EXAMPLES: &str = "Examples:
  savevm plot trace.jsonl -o migration.svg
  savevm plot trace.jsonl -o migration.html";

/// Draw the trace of a migration: bandwidth, dirty rate, remaining bytes, phases, downtime.
#[derive(Args, Debug)]
#[command(after_help = format!("{PLOT_EXAMPLES}\n\n{STATUS_HELP}"))]
pub struct Plot {
    /// Trace file with one JSON object per line, or `-` for standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub trace: PathBuf,
    /// Picture file to write; its name ends in .svg or .html
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
}
