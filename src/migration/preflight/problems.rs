// SPDX-License-Identifier: LGPL-2.1-or-later
//! The problems of a preflight as errors and warnings.

use crate::error::{Error, Phase, Problem};
use crate::inspect::compat::{Finding, Severity};
use crate::savevm::Vm;
use crate::savevm::host::Level;
use crate::wire::io::text_start;

/// Most problems in the text of an error. All of them are in its list.
const TEXT_PROBLEMS: usize = 64;
/// Longest path and longest message of a problem in bytes.
const PROBLEM_TEXT_MAX: usize = 1024;

fn cut(mut text: String) -> String {
    text.truncate(text_start(&text, PROBLEM_TEXT_MAX).len());
    text
}

pub(super) fn problem(finding: Finding) -> Problem {
    let device = finding.device.map(|device| (device.name.as_bytes().to_vec(), device.instance));
    Problem { severity: finding.severity, device, path: cut(finding.path), message: cut(finding.message) }
}

/// A problem that is not about a device.
pub(super) fn general(message: impl Into<String>) -> Problem {
    let message = cut(message.into());
    Problem { severity: Severity::Error, device: None, path: String::new(), message }
}

/// An error that prevents a verdict is the one problem of its own list, so that every failure is reported in the same form.
pub(in crate::migration) fn with_problem(error: Error) -> Error {
    if !error.problems().is_empty() {
        return error;
    }
    let problem = general(error.message());
    error.with_problems(vec![problem])
}

fn text(problem: &Problem) -> String {
    let mut text = String::new();
    if let Some((name, instance)) = &problem.device {
        text += &format!("'{}' instance {instance}: ", String::from_utf8_lossy(name));
    }
    if !problem.path.is_empty() {
        text += &format!("{}: ", problem.path);
    }
    text + &problem.message
}

/// The severity from which on a problem refuses the guest.
pub(super) fn refuses_from(strict: bool) -> Severity {
    if strict { Severity::Risk } else { Severity::Error }
}

/// Returns an error that names all problems for which the guest is refused. `head` names the side that refuses it.
pub(super) fn refusal(errno: i32, head: &str, problems: Vec<Problem>, strict: bool) -> Error {
    let worst: Vec<_> = problems.iter().filter(|problem| problem.severity >= refuses_from(strict)).collect();
    let listed = worst.iter().take(TEXT_PROBLEMS).map(|problem| text(problem)).collect::<Vec<_>>().join("; ");
    let more = match worst.len().saturating_sub(TEXT_PROBLEMS) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let count = match worst.len() {
        0 => " it names no problem".to_owned(),
        1 => String::new(),
        count => format!(" {count} problems:"),
    };
    Error::new(errno, format!("{head}:{count} {listed}{more}")).in_phase(Phase::Check).with_problems(problems)
}

/// Reports the problems that do not refuse the guest to the host.
pub(super) fn report_warnings(vm: &Vm, problems: &[Problem], strict: bool) {
    let reported =
        |problem: &&Problem| problem.severity < refuses_from(strict) && problem.severity >= Severity::Warning;
    let host = vm.host();
    let warnings: Vec<_> = problems.iter().filter(reported).collect();
    for warning in warnings.iter().take(TEXT_PROBLEMS) {
        host.report(Level::Warning, &crate::error::printable(format!("preflight: {}", text(warning))));
    }
    if let Some(more) = warnings.len().checked_sub(TEXT_PROBLEMS).filter(|more| *more > 0) {
        host.report(Level::Warning, &format!("preflight: {more} more differences"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_names_all_problems_that_refuse() {
        let mut problems = vec![general("pages of 4096 bytes")];
        problems.push(Problem {
            severity: Severity::Error,
            device: Some((b"timer".to_vec(), 0)),
            path: "fifo".into(),
            message: "4 bytes, the machine reads 8".into(),
        });
        problems.push(Problem { severity: Severity::Risk, ..general("a risk") });
        let error = refusal(libc::EINVAL, "no", problems.clone(), false);
        assert_eq!(
            error.message(),
            "no: 2 problems: pages of 4096 bytes; 'timer' instance 0: fifo: 4 bytes, the machine reads 8"
        );
        assert_eq!(error.problems(), problems);
        assert!(refusal(libc::EINVAL, "no", problems, true).message().ends_with("a risk"));
        let many = refusal(libc::EINVAL, "no", vec![general("x"); 100], false);
        assert!(many.message().contains("no: 100 problems: x; x") && many.message().ends_with("; and 36 more"));
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let problem = general("é".repeat(PROBLEM_TEXT_MAX));
        assert_eq!(problem.message.len(), PROBLEM_TEXT_MAX);
        assert_eq!(general(format!("x{}", "é".repeat(PROBLEM_TEXT_MAX))).message.len(), PROBLEM_TEXT_MAX - 1);
    }
}
