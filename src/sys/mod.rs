// SPDX-License-Identifier: LGPL-2.1-or-later
//! System calls and raw memory, each wrapped so that the rest of the library stays safe code.
#![allow(unsafe_code)]

mod ancillary;
mod buffer;
mod fd;
mod guest;
mod iovec;
mod pagemap;
mod peer;
mod positioned;
mod signals;
mod slice;
mod socket;
mod thread;
mod uffd;

pub use ancillary::{DESCRIPTORS_MAX, recv_scattered_with_fds, recv_with_fds, send_with_fds, send_with_numbers};
pub use buffer::{ByteBuffer, Level, SendBuffer, Span, advance_spans};
pub use fd::{
    Ready, WakeFd, access_of, close_fd, duplicate_fd, is_open_fd, link_open_file, poll_any, poll_fd, raw_close_on_drop,
    read_fd, read_scattered, recv_fd, recv_scattered, send_fd, set_close_on_exec, set_nonblocking, signal_group,
    take_named_fd, write_fd, write_pipe,
};
pub use guest::{GuestMemory, OwnMemory, system_page_size};
pub use iovec::{IoVec, advance, release_pages, with_piece};
pub use pagemap::{PageScan, Residency, is_anonymous};
pub use peer::PeerProcess;
pub use positioned::{
    appends, direct_alignment, gains_by_reserving, open_again, open_at_once, pread_scattered, pwrite_fd, reserve,
    seek_to, start_writing, tell,
};
pub use socket::{
    SocketKind, UNIX_PATH_MAX, accept_socket, connect_tcp, connect_unix, end_socket_reads, listen_tcp, listen_unix,
    make_room, peer_has_closed, send_at_once, shutdown_socket, socket_kind, tcp_socket, unix_socket, unsent_bytes,
};
pub use thread::{as_outside, spawn, spawn_prompt, spawn_scoped, thread_cpu_time};
pub use uffd::{Feature, Mode, Userfault};
