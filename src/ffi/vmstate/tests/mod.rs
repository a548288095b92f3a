// SPDX-License-Identifier: LGPL-2.1-or-later
//! Tests of VMState on C's own structures, through the functions that C calls.

mod check;
mod describe;
mod errors;
mod fixture;
mod host;
mod hostile;
mod kinds;
mod layout;
mod random;
mod subsections;
