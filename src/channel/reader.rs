// SPDX-License-Identifier: LGPL-2.1-or-later
//! A channel that reads from a reader, such as the merged stream of several files.

use super::{Channel, aborted, closed};
use crate::sync::{Mutex, Rank};
use crate::sys::{IoVec, Span};
use std::io::{self, Read};

/// Bytes that are read at once, at most.
const CHUNK: usize = 256 << 10;

struct State {
    /// `None` after `close`.
    from: Option<Box<dyn Read + Send>>,
    buffer: Vec<u8>,
    shut_down: bool,
}

/// Reads from a reader, which must not wait for a peer.
pub struct ReaderChannel {
    state: Mutex<State>,
    name: String,
}

impl ReaderChannel {
    /// Returns a channel that reads from `from`. `name` is for errors.
    pub fn new(from: impl Read + Send + 'static, name: String) -> Self {
        let state = State { from: Some(Box::new(from)), buffer: Vec::new(), shut_down: false };
        Self { state: Mutex::new(Rank::MemoryChannel, state), name }
    }
}

impl Channel for ReaderChannel {
    fn read(&self, into: Span<'_>) -> io::Result<usize> {
        let state = &mut *self.state.lock();
        if state.shut_down {
            return Err(aborted());
        }
        let Some(from) = &mut state.from else { return Err(closed()) };
        state.buffer.resize(into.len().min(CHUNK), 0);
        let count = from.read(&mut state.buffer)?;
        into.store(&state.buffer[..count]);
        Ok(count)
    }

    fn write_all(&self, _pieces: &mut [IoVec]) -> io::Result<()> {
        Err(closed())
    }

    fn shutdown(&self) -> io::Result<()> {
        self.state.lock().shut_down = true;
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.state.lock().from = None;
        Ok(())
    }

    fn name(&self) -> Option<String> {
        Some(self.name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::read_some;
    use super::*;

    #[test]
    fn bytes_of_the_reader_arrive_until_it_is_closed() {
        let channel = ReaderChannel::new(&b"some bytes"[..], "it".to_owned());
        assert_eq!(read_some(&channel, 4).unwrap(), b"some");
        assert_eq!(read_some(&channel, 100).unwrap(), b" bytes");
        assert_eq!(read_some(&channel, 100).unwrap(), b"");
        channel.close().unwrap();
        assert_eq!(read_some(&channel, 1).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
