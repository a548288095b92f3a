// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the destination reads between the header and the first section: the commands with which a source begins, and its
//! preflight, if it is libsavevm. See `migration::preflight`.

use super::worker::Worker;
use crate::error::{Error, Phase, Result, size};
use crate::file::MigFile;
use crate::migration::preflight::{Judge, Outcome};
use crate::migration::return_path::message;
use crate::savevm::host::{Flags, Level};
use crate::savevm::incoming::Opened;
use crate::savevm::load;
use crate::wire::command::{self, Command, CommandHead};
use std::time::Duration;

/// Longest wait for the first commands of a source whose stream is refused. A source sends them with the header.
const HELLO_LIMIT: Duration = Duration::from_secs(1);
/// Bytes of a command with its tag, before the payload.
const HEAD_LEN: usize = 5;

/// The first commands of a source that is libsavevm. QEMU does not send the last one.
fn hello() -> Vec<u8> {
    let mut bytes = Vec::new();
    command::encode(&mut bytes, Command::OpenReturnPath, &[]);
    for value in [message::PING_OPENED, message::PING_HELLO] {
        command::encode(&mut bytes, Command::Ping, &value.to_be_bytes());
    }
    bytes
}

/// Returns the command that follows, if one does.
fn next_command(file: &MigFile) -> Option<Command> {
    let mut head = [0; HEAD_LEN];
    if file.peek_byte(0) != crate::wire::COMMAND || file.peek_into(&mut head, 0) < HEAD_LEN {
        return None;
    }
    Command::from_wire(u16::from_be_bytes([head[1], head[2]]))
}

impl Worker {
    /// Whether this side takes part in a preflight.
    pub(super) fn negotiates(&self) -> bool {
        let params = self.shared.core.params();
        params.extensions && params.preflight
    }

    /// Reads the commands before the first section, up to the verdict of a preflight.
    pub(super) fn negotiate(&self, file: &MigFile, mut refused: Vec<Error>) -> Result<Opened> {
        refused.extend(self.unexpected_configuration(file)?);
        if !refused.is_empty() {
            // A source that is QEMU gets no answer from a machine that refuses its configuration.
            self.handshake.start(HELLO_LIMIT);
            let (expected, mut begins) = (hello(), vec![0; hello().len()]);
            let is_libsavevm = file.peek_into(&mut begins, 0) == begins.len() && begins == expected;
            if !is_libsavevm {
                return refused.into_iter().next().map_or(Ok(Opened::Stream), Err);
            }
        }
        self.handshake.finish();
        let (core, params) = (&self.shared.core, self.shared.core.params());
        let mut judge = Judge::new(&core.vm, &params, refused);
        loop {
            match next_command(file) {
                Some(Command::OpenReturnPath | Command::Ping) => load::opening_command(&core.vm, file)?,
                Some(Command::Preflight) if self.shared.peer_is_libsavevm() => {
                    self.handshake.start(params.handshake_timeout);
                    let outcome = self.answer(file, &mut judge);
                    self.handshake.finish();
                    match outcome {
                        Ok(Outcome::Request) => {}
                        Ok(Outcome::Migrate) => return Ok(Opened::Stream),
                        Ok(Outcome::Refused(error)) => return Err(error),
                        Ok(Outcome::Visited) => return Ok(Opened::Visit),
                        Err(error) => return self.broken_off(error, judge.is_migration()),
                    }
                }
                None if self.shared.peer_is_libsavevm() && file.error() != 0 => {
                    let error = file.check().err().unwrap_or_else(|| Error::new(libc::EIO, "the connection ended"));
                    return self.broken_off(error, false);
                }
                _ => return judge.without_preflight().map(|()| Opened::Stream),
            }
        }
    }

    /// The connection broke before the stream of a migration. Unless the source has said that it migrates, the destination waits
    /// for the next one: nothing was changed, or it was reset.
    fn broken_off(&self, error: Error, is_migration: bool) -> Result<Opened> {
        let core = &self.shared.core;
        core.interrupted().map_or(Ok(()), Err)?;
        core.vm.check_not_poisoned()?;
        if is_migration { Err(error) } else { Ok(Opened::BrokenOff(error)) }
    }

    /// As `load::unexpected_configuration`. The first byte after the header may take any time, and the section does not.
    fn unexpected_configuration(&self, file: &MigFile) -> Result<Option<Error>> {
        if !self.shared.core.vm.flags().has(Flags::NO_CONFIGURATION) {
            return Ok(None);
        }
        self.handshake.finish();
        file.peek_byte(0);
        self.handshake.start(self.shared.core.params().handshake_timeout);
        load::unexpected_configuration(&self.shared.core.vm, file)
    }

    /// Reads the requests of a preflight and answers them, up to the last one.
    fn answer(&self, file: &MigFile, judge: &mut Judge<'_>) -> Result<Outcome> {
        loop {
            let request = read_request(file, judge.longest_request())?;
            self.shared.core.fault_point();
            let (answer, outcome) = judge.take(&request)?;
            // The time for the next request begins after this one was answered.
            self.handshake.start(self.shared.core.params().handshake_timeout);
            self.shared.sender.send_answer(answer.encode())?;
            if !matches!(outcome, Outcome::Request) {
                return Ok(outcome);
            }
        }
    }

    /// The source has what it wanted and does not migrate over this connection, or the connection broke off, for this reason.
    pub(super) fn end_visit(&self, file: MigFile, accepts_more: bool, broken: Option<Error>) -> Result<()> {
        let core = &self.shared.core;
        self.shared.sender.close();
        core.link.drop_main();
        drop(file);
        {
            let mut info = core.stats.get();
            (info.return_path, info.peer_is_libsavevm) = (false, false);
        }
        core.vm.set_flags(Flags::POSTCOPY_RAM, core.params().postcopy && core.vm.slot.ram().is_some());
        if !accepts_more || (broken.is_some() && core.params().one_connection) {
            let text = "the source asked for an answer alone, and no other one can connect";
            return Err(broken.unwrap_or_else(|| Error::new(libc::ENOTCONN, text).in_phase(Phase::Check)));
        }
        let what = match broken {
            Some(error) => format!("a connection broke off before a migration began: {error}"),
            None => "answered a preflight".to_owned(),
        };
        core.vm.host().report(Level::Warning, &format!("{what}; waiting for the source of a migration"));
        Ok(())
    }
}

/// Reads a PREFLIGHT command and its request.
fn read_request(mut file: &MigFile, longest: u32) -> Result<Vec<u8>> {
    let offset = file.position();
    if next_command(file) != Some(Command::Preflight) {
        file.check()?;
        return Err(Error::invalid("the source does not continue its preflight").at_offset(offset));
    }
    file.skip(1);
    let head = CommandHead::decode(&mut file)?;
    let len = command::decode_packaged(&mut file)?;
    file.check()?;
    if Some(head.len) != Command::Preflight.fixed_len() || len > longest {
        let (len, longest) = (size(len.into()), size(longest.into()));
        let text = format!("a preflight of {len} (command of {} bytes), expected at most {longest}", head.len);
        return Err(Error::invalid(text).at_offset(offset));
    }
    let no_memory = |_| Error::new(libc::ENOMEM, "no memory for a preflight").at_offset(offset);
    let request = file.get_vec(len as usize).map_err(no_memory)?;
    file.check()?;
    if request.len() < len as usize {
        return Err(Error::new(libc::EAGAIN, "the request of a preflight is cut off").at_offset(offset));
    }
    Ok(request)
}
