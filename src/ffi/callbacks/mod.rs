// SPDX-License-Identifier: LGPL-2.1-or-later
//! Tables of C functions behind the library's traits. No lock of the library is held while one of them runs.

pub(super) mod channel_ops;
pub(super) mod described;
pub(super) mod handlers;
pub(super) mod host_ops;
pub(super) mod incoming_ops;
pub(super) mod postcopy_ops;
pub(super) mod ram_log;
