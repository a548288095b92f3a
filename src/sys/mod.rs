// SPDX-License-Identifier: LGPL-2.1-or-later
//! System calls and raw memory, each wrapped so that the rest of the library stays safe code.
#![allow(unsafe_code)]

mod buffer;
mod fd;
mod iovec;

pub use buffer::{ByteBuffer, Span};
pub use fd::{Ready, WakeFd, poll_fd, raw_close_on_drop, read_fd, recv_fd, send_fd, set_nonblocking, shutdown_socket, socket_type, write_fd};
pub use iovec::{IoVec, advance, release_pages};
