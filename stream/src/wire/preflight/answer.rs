// SPDX-License-Identifier: LGPL-2.1-or-later
//! The answers of the destination.

use super::VERSION;
use super::body::{BodyError, Result, get_bool, get_device_count, get_list, get_string, limited, put_string};
use crate::wire::io::{Input, Output};
use crate::wire::limits::PREFLIGHT_PROBLEMS_MAX;

const VERDICT: u8 = 1;
const WANTED: u8 = 2;
const REPORT: u8 = 3;

/// How serious a difference is. The numbers are those on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Severity {
    /// A note. It has no effect on loading.
    Note = 0,
    /// An unusual difference that is accepted in most cases.
    Warning = 1,
    /// A difference that makes the destination read later bytes as other fields, unless the machine's own state happens to
    /// match.
    Risk = 2,
    /// The stream will not load.
    Error = 3,
}

/// A difference between two machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How serious it is.
    pub severity: Severity,
    /// Name and instance id of the device, if it is about one.
    pub device: Option<(Vec<u8>, u32)>,
    /// The field or subsection in the device, or the block of RAM; may be empty.
    pub path: String,
    /// The difference as text.
    pub message: String,
}

/// The time that one device took to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadTime {
    /// idstr, with the path.
    pub name: Vec<u8>,
    /// Instance id.
    pub instance: u32,
    /// Time in microseconds.
    pub micros: u64,
}

/// An answer of the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The verdict.
    Verdict {
        /// Whether the destination accepts the guest.
        passes: bool,
        /// What was found, passing or not.
        problems: Vec<Problem>,
    },
    /// The layouts of these devices are wanted first: indexes into the manifest.
    Wanted(Vec<u32>),
    /// How the rehearsal went.
    Report {
        /// Why it failed; empty if everything was loaded.
        failure: String,
        /// The devices that were loaded, in order.
        times: Vec<LoadTime>,
    },
}

impl Severity {
    /// Returns the name for reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Risk => "risk",
            Self::Error => "error",
        }
    }

    fn from_wire(value: u8) -> Result<Self> {
        match value {
            0 => Ok(Self::Note),
            1 => Ok(Self::Warning),
            2 => Ok(Self::Risk),
            3 => Ok(Self::Error),
            _ => Err(BodyError::Invalid { what: "a severity", value: value.into() }),
        }
    }
}

impl Problem {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.severity as u8);
        let (name, instance) = self.device.as_ref().map_or((&[][..], 0), |(name, instance)| (name, *instance));
        out.put_name(name);
        out.put_be32(instance);
        put_string(out, &self.path);
        put_string(out, &self.message);
    }

    fn decode(input: &mut &[u8]) -> Result<Self> {
        let severity = Severity::from_wire(input.get_u8("a severity")?)?;
        let name = input.get_name("the device of a problem")?.to_vec();
        let instance = input.get_be32("the instance id of a problem")?;
        let (path, message) = (get_string(input, "the field of a problem")?, get_string(input, "a problem")?);
        let device = if name.is_empty() { None } else { Some((name, instance)) };
        Ok(Self { severity, device, path, message })
    }
}

impl LoadTime {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_name(&self.name);
        out.put_be32(self.instance);
        out.put_be64(self.micros);
    }

    fn decode(input: &mut &[u8]) -> Result<Self> {
        let name = input.get_name("the name of a loaded device")?.to_vec();
        let instance = input.get_be32("the instance id of a loaded device")?;
        Ok(Self { name, instance, micros: input.get_be64("the load time of a device")? })
    }
}

impl Answer {
    /// Returns the body.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Verdict { passes, problems } => {
                out.put_u8(VERDICT);
                out.put_be16(VERSION);
                out.put_u8(u8::from(*passes));
                out.put_be32(problems.len() as u32);
                problems.iter().for_each(|problem| problem.encode(&mut out));
            }
            Self::Wanted(indexes) => {
                out.put_u8(WANTED);
                out.put_be32(indexes.len() as u32);
                indexes.iter().for_each(|index| out.put_be32(*index));
            }
            Self::Report { failure, times } => {
                out.put_u8(REPORT);
                put_string(&mut out, failure);
                out.put_be32(times.len() as u32);
                times.iter().for_each(|time| time.encode(&mut out));
            }
        }
        out
    }

    /// Decodes a body.
    pub fn decode(mut body: &[u8]) -> Result<Self> {
        let input = &mut body;
        match input.get_u8("the kind of the answer")? {
            VERDICT => {
                let version = input.get_be16("the version of the verdict")?;
                if version != VERSION {
                    return Err(BodyError::Version(version));
                }
                let passes = get_bool(input, "the verdict")?;
                let most = PREFLIGHT_PROBLEMS_MAX as u32 + 1;
                let count = limited(input.get_be32("the number of problems")?, most, "the number of problems")?;
                let problems = get_list(input, count, 10, "the number of problems", Problem::decode)?;
                Ok(Self::Verdict { passes, problems })
            }
            WANTED => {
                let count = get_device_count(input, "the number of layouts")?;
                let index = |input: &mut &[u8]| Ok(input.get_be32("the index of a device")?);
                get_list(input, count, 4, "the number of layouts", index).map(Self::Wanted)
            }
            REPORT => {
                let failure = get_string(input, "the result of a rehearsal")?;
                let count = get_device_count(input, "the number of loaded devices")?;
                let times = get_list(input, count, 13, "the number of loaded devices", LoadTime::decode)?;
                Ok(Self::Report { failure, times })
            }
            value => Err(BodyError::Invalid { what: "the kind of the answer", value: value.into() }),
        }
    }
}
