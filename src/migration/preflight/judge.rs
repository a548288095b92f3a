// SPDX-License-Identifier: LGPL-2.1-or-later
//! The destination's side: reads the requests of a source, and answers each. No device is called before the verdict, except by
//! the questions of a manifest.

use super::manifest::{Described, End};
use super::problems::{general, problem, refusal, refuses_from, report_warnings};
use super::rehearsal;
use crate::error::{Error, Problem, Result};
use crate::inspect::compat::{self, Finding, Severity, settings};
use crate::inspect::{Budget, Device};
use crate::migration::further;
use crate::migration::params::Params;
use crate::savevm::Vm;
use crate::savevm::host::{Level, with_big_lock};
use crate::wire::limits::{PREFLIGHT_PROBLEMS_MAX, PREFLIGHT_REQUEST_MAX};
use crate::wire::preflight::{Answer, Manifest, Purpose, Request};

/// Memory for reading layouts, in bytes.
const LAYOUT_MEMORY: usize = 64 << 20;

/// What follows an answer.
#[derive(Debug)]
pub(in crate::migration) enum Outcome {
    /// Another request of the same exchange.
    Request,
    /// The stream of the migration.
    Migrate,
    /// The end of the connection, because the guest is refused.
    Refused(Error),
    /// The end of the connection, as the source meant it.
    Visited,
}

/// The state of one exchange.
pub(in crate::migration) struct Judge<'a> {
    vm: &'a Vm,
    params: &'a Params,
    /// Why this side refuses every stream, or the configuration of this one.
    refused: Vec<Error>,
    expected: Expected,
    purpose: Option<Purpose>,
}

/// The request that is expected.
enum Expected {
    Manifest,
    Layouts(Box<Comparison>),
    Rehearsal,
    Nothing,
}

/// Two machines whose layouts differ.
struct Comparison {
    source: Manifest,
    here: Described,
    findings: Vec<Finding>,
    /// Index at the source, index here.
    differing: Vec<(usize, usize)>,
}

impl<'a> Judge<'a> {
    pub fn new(vm: &'a Vm, params: &'a Params, refused: Vec<Error>) -> Self {
        Self { vm, params, refused, expected: Expected::Manifest, purpose: None }
    }

    /// The longest next request in bytes.
    pub fn longest_request(&self) -> u32 {
        match self.expected {
            Expected::Rehearsal => self.vm.limits().packaged.saturating_add(1),
            _ => PREFLIGHT_REQUEST_MAX,
        }
    }

    /// Whether the source has said that it migrates over this connection.
    pub fn is_migration(&self) -> bool {
        self.purpose == Some(Purpose::Migrate)
    }

    /// The error of a stream that begins without a preflight.
    pub fn without_preflight(self) -> Result<()> {
        self.refused.into_iter().next().map_or(Ok(()), Err)
    }

    /// Takes a request. Returns the answer to send, and what follows.
    pub fn take(&mut self, body: &[u8]) -> Result<(Answer, Outcome)> {
        let request = Request::decode(body).map_err(|error| Error::invalid(error.to_string()))?;
        match (std::mem::replace(&mut self.expected, Expected::Nothing), request) {
            (Expected::Manifest, Request::Manifest(source)) => Ok(self.compare(source)),
            (Expected::Layouts(comparison), Request::Layouts(layouts)) => self.compare_layouts(*comparison, &layouts),
            (Expected::Rehearsal, Request::Rehearsal(sections)) => {
                Ok((rehearsal::load(self.vm, &sections), Outcome::Visited))
            }
            _ => Err(Error::invalid("preflight: a request that is not expected")),
        }
    }

    fn compare(&mut self, source: Manifest) -> (Answer, Outcome) {
        self.purpose = Some(source.purpose);
        let here = Described::new(self.vm, self.params, End::Destination);
        let strict = self.is_strict(&source);
        let compat::Machines { mut findings, differing } = compat::machines(&source, &here.manifest, strict);
        self.compare_ram_of_host(&source, &here.manifest, &mut findings);
        self.compare_connections(&source);
        if differing.is_empty() {
            return self.verdict(&source, findings);
        }
        let wanted = differing.iter().map(|(at, _)| *at as u32).collect();
        self.expected = Expected::Layouts(Box::new(Comparison { source, here, findings, differing }));
        (Answer::Wanted(wanted), Outcome::Request)
    }

    fn is_strict(&self, source: &Manifest) -> bool {
        let asked = source.settings.iter().any(|setting| setting.name == settings::STRICT && setting.value == 1);
        self.params.strict || self.vm.is_strict() || asked
    }

    /// Those of a migration were compared when the source announced them.
    fn compare_connections(&mut self, source: &Manifest) {
        let announced = source.settings.iter().find(|setting| setting.name == settings::CONNECTIONS);
        let announced =
            announced.and_then(|setting| u32::try_from(setting.value).ok()).filter(|_| !self.is_migration());
        self.refused.extend(announced.and_then(|value| further::check_announced(self.params, value).err()));
    }

    /// A host with a RAM device of its own may know which blocks fit.
    fn compare_ram_of_host(&self, source: &Manifest, here: &Manifest, findings: &mut Vec<Finding>) {
        let host = self.vm.host();
        let (Some(blocks), None, true) = (&source.ram, &here.ram, host.knows_ram()) else { return };
        for block in blocks {
            let name = String::from_utf8_lossy(&block.name);
            if host.ram_fits(&name, block.length) == Some(false) {
                let message = format!("the machine has no such block that can have {} bytes", block.length);
                let path = format!("RAM block {name}");
                findings.push(Finding { severity: Severity::Error, device: None, path, message });
            }
        }
    }

    fn compare_layouts(&mut self, comparison: Comparison, layouts: &[Vec<u8>]) -> Result<(Answer, Outcome)> {
        let Comparison { source, here, mut findings, differing } = comparison;
        if layouts.len() != differing.len() {
            let text = format!("preflight: {} layouts, expected {}", layouts.len(), differing.len());
            return Err(Error::invalid(text));
        }
        let mut budget = Budget::new(LAYOUT_MEMORY);
        for ((at, other), sent) in differing.into_iter().zip(layouts) {
            if findings.len() > PREFLIGHT_PROBLEMS_MAX {
                break;
            }
            let read = with_big_lock(&*self.vm.host(), || here.layout(self.vm, other, false)).unwrap_or_default();
            let device = &source.devices[at];
            let device = Device { name: String::from_utf8_lossy(&device.name).into(), instance: device.instance };
            findings.extend(compat::descriptions(&device, sent, &read, &mut budget));
        }
        Ok(self.verdict(&source, findings))
    }

    fn verdict(&mut self, source: &Manifest, findings: Vec<Finding>) -> (Answer, Outcome) {
        let strict = self.is_strict(source);
        let mut problems: Vec<_> = findings.into_iter().map(problem).collect();
        let configured = problems.iter().any(|problem| problem.severity == Severity::Error);
        for error in self.refused.drain(..) {
            // The comparison names what differs in the configuration section.
            if error.phase() != Some(crate::error::Phase::Configuration) || !configured {
                problems.push(general(error.message()));
            }
        }
        if source.purpose == Purpose::Rehearse && !self.vm.host().knows_reset() {
            problems.push(general("the host can't reset its machine (SaveVMHostOps.reset), which a rehearsal needs"));
        }
        problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
        if let Some(more) = problems.len().checked_sub(PREFLIGHT_PROBLEMS_MAX).filter(|more| *more > 0) {
            problems.truncate(PREFLIGHT_PROBLEMS_MAX);
            problems.push(Problem { severity: Severity::Note, ..general(format!("{more} more are not listed")) });
        }
        report_warnings(self.vm, &problems, strict);
        let passes = problems.iter().all(|problem| problem.severity < refuses_from(strict));
        let answer = Answer::Verdict { passes, problems: problems.clone() };
        let refused = || refusal(libc::EINVAL, "this machine can't load the source's guest", problems, strict);
        let outcome = match source.purpose {
            Purpose::Migrate if passes => Outcome::Migrate,
            Purpose::Migrate => Outcome::Refused(refused()),
            Purpose::Rehearse if passes => {
                self.expected = Expected::Rehearsal;
                Outcome::Request
            }
            Purpose::Verdict | Purpose::Rehearse => {
                if !passes {
                    self.vm.host().report(Level::Error, &format!("asked by a source: {}", refused()));
                }
                Outcome::Visited
            }
        };
        (answer, outcome)
    }
}
