// SPDX-License-Identifier: LGPL-2.1-or-later
//! The time slice of a thread (Linux 6.12). A thread with a short slice gets no more processor time, but when it becomes ready, it may
//! run before a thread with a longer slice has used that slice up.

use std::io;

/// The first version of the kernel's `struct sched_attr`. `runtime` is the slice in nanoseconds. It is 0 if the kernel is older.
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

const SCHED_ATTR_SIZE: u32 = 48;
const _: () = assert!(size_of::<SchedAttr>() == SCHED_ATTR_SIZE as usize);

/// A thread or process that this thread starts has the default slice. A negative niceness becomes 0 there. Only a privileged thread
/// can clear this.
const SCHED_FLAG_RESET_ON_FORK: u64 = 1;
/// Also keeps whether children of the thread start with the defaults. Limits of utilization stay, as no flag names them.
const SCHED_FLAG_KEEP_POLICY: u64 = 8;

/// Which slice children of the thread begin with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Children {
    /// As before the call.
    Unchanged,
    /// The default slice, unless that would change their niceness.
    Default,
}

/// Sets the slice of this thread in nanoseconds. Returns the slice before, or `None` if the thread stays as it is: the kernel has no
/// such slices, or the thread has another policy than `SCHED_OTHER`. Policy and niceness stay.
pub(super) fn set_slice(slice: u64, children: Children) -> io::Result<Option<u64>> {
    let mut attr = SchedAttr::default();
    // SAFETY: the kernel writes at most the 48 bytes of the struct.
    check(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, SCHED_ATTR_SIZE, 0) })?;
    if attr.policy != libc::SCHED_OTHER as u32 || attr.runtime == 0 {
        return Ok(None);
    }
    let before = attr.runtime;
    let resets = children == Children::Default && attr.nice >= 0;
    let flags = if resets { SCHED_FLAG_RESET_ON_FORK } else { SCHED_FLAG_KEEP_POLICY };
    (attr.size, attr.flags, attr.runtime) = (SCHED_ATTR_SIZE, flags, slice);
    // SAFETY: the kernel reads the 48 bytes of the struct.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) })?;
    Ok(Some(before))
}

fn check(result: libc::c_long) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
