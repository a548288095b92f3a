// SPDX-License-Identifier: LGPL-2.1-or-later
//! The layouts of QEMU 5.2 to 10.2.

use super::check::build;
use super::layout::Abi;
use super::tables::*;
use crate::ffi::types::abi::SaveVMAbiConstant;
use crate::ffi::types::abi::SaveVMAbiConstantId as Constant;
use crate::ffi::types::abi::SaveVMAbiKind as Kind;
use crate::ffi::types::abi::SaveVMAbiMemberId as Id;
use crate::savevm::profile::Profile;
use once_cell::sync::Lazy;
use std::mem::MaybeUninit;

fn values(constants: &[Constant], value: impl Fn(u32) -> u32) -> impl Iterator<Item = SaveVMAbiConstant> {
    let value = move |at: usize| value(at as u32);
    let values: Vec<_> = constants.iter().enumerate().map(|(at, id)| (*id, value(at))).collect();
    values.into_iter().map(|(id, value)| SaveVMAbiConstant { constant: MaybeUninit::new(id), value })
}

/// The parts of the layout of a version.
struct Parts {
    handlers: &'static [(Id, Kind)],
    description: &'static [(Id, Kind)],
    priorities: &'static [Constant],
    has_end: bool,
}

fn parts(version: u32) -> Parts {
    let handlers = match version {
        ..800 => L1,
        800 => L2,
        801 => L3,
        802..=900 => L4,
        901..=902 => L5,
        1000 => L6,
        _ => L7,
    };
    let description = match version {
        ..700 => DESCRIPTION_5_0,
        700..800 => DESCRIPTION_7_0,
        800..=1001 => DESCRIPTION_8_0,
        _ => DESCRIPTION_10_2,
    };
    let priorities = match version {
        ..601 => PRIORITIES_5_0,
        601..=1000 => PRIORITIES_6_1,
        1001 => PRIORITIES_10_1,
        _ => PRIORITIES_10_2,
    };
    Parts { handlers, description, priorities, has_end: version >= 800 }
}

fn layout(version: u32) -> Abi {
    let Parts { handlers, description, priorities, has_end } = parts(version);
    let tables = [handlers, description, FIELD, INFO].map(laid_out);
    let sizes = [tables[0].1, tables[1].1, tables[2].1, tables[3].1, 0];
    let members = tables.into_iter().flat_map(|(members, _)| members).collect::<Vec<_>>();
    let flags = if has_end { FLAGS } else { &FLAGS[..FLAGS.len() - 1] };
    let constants = values(priorities, |at| at).chain(values(flags, |at| 1 << at)).collect::<Vec<_>>();
    build(version, Profile::of_qemu(version), sizes, &members, &constants).expect("a known layout is valid")
}

/// The versions with a layout of their own, or semantics of their own.
pub(super) const VERSIONS: [u32; 14] = [500, 502, 601, 700, 702, 800, 801, 802, 900, 901, 902, 1000, 1001, 1002];

static KNOWN: [Lazy<Abi>; VERSIONS.len()] = [
    Lazy::new(|| layout(500)),
    Lazy::new(|| layout(502)),
    Lazy::new(|| layout(601)),
    Lazy::new(|| layout(700)),
    Lazy::new(|| layout(702)),
    Lazy::new(|| layout(800)),
    Lazy::new(|| layout(801)),
    Lazy::new(|| layout(802)),
    Lazy::new(|| layout(900)),
    Lazy::new(|| layout(901)),
    Lazy::new(|| layout(902)),
    Lazy::new(|| layout(1000)),
    Lazy::new(|| layout(1001)),
    Lazy::new(|| layout(1002)),
];

/// Returns the layout of a QEMU version, given as major * 100 + minor: 5.0 to 10.2.
pub(in crate::ffi) fn known(version: u32) -> Option<&'static Abi> {
    let newest = *VERSIONS.last()?;
    let at = VERSIONS.iter().rposition(|known| *known <= version)?;
    (version <= newest).then(|| &*KNOWN[at])
}
