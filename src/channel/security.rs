// SPDX-License-Identifier: LGPL-2.1-or-later
//! How the connections of one migration are protected: not at all, or by TLS.
//!
//! [`Security::secure`] is the one place that turns a connected or accepted channel into a channel of a migration. The
//! main connection, the connections of a recovery and additional connections all use it. With TLS it returns a channel
//! only after the handshake. So no plain byte of the stream is sent or accepted.

use super::tls::Credentials;
use super::{Cancel, Channel, Uri};
use crate::error::{Error, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What a user sets for TLS (`SaveVMTls` in C).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// The directory of the certificates and keys, with QEMU's file names.
    pub dir: PathBuf,
    /// Source: the name that the destination's certificate must have. `None`: the host of the URI.
    pub hostname: Option<String>,
    /// Whether the peer must have a certificate of the CA.
    pub verify_peer: bool,
    /// The distinguished names of the certificates that a peer may have. `None`: all.
    pub allowed_peers: Option<Vec<String>>,
}

/// The side of a connection. The source is the TLS client, as in QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The side that connects.
    Source,
    /// The side that accepts.
    Destination,
}

impl Role {
    /// The other side.
    pub const fn peer(self) -> Self {
        match self {
            Self::Source => Self::Destination,
            Self::Destination => Self::Source,
        }
    }

    /// The name for messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// How the connections of one side of a migration are protected.
#[derive(Default)]
pub struct Security(Option<Credentials>);

impl Security {
    /// Reads and checks the certificates and keys, if TLS is wanted.
    pub fn new(tls: Option<&TlsOptions>, role: Role) -> Result<Self> {
        tls.map(|options| Credentials::load(options, role)).transpose().map(Self)
    }

    /// Returns whether the connections use TLS.
    pub fn is_tls(&self) -> bool {
        self.0.is_some()
    }

    /// Makes a connected or accepted channel a connection of the migration: returns it as it is, or shakes hands.
    ///
    /// `to` is what the source connected to. The destination's certificate must have the name of that host, unless the
    /// options name another one. The call ends at the limit, or when `cancel` is cancelled.
    pub fn secure(
        &self,
        raw: Arc<dyn Channel>,
        to: Option<&Uri>,
        limit: Duration,
        cancel: &Cancel,
    ) -> Result<Arc<dyn Channel>> {
        let Some(credentials) = &self.0 else { return Ok(raw) };
        if !raw.is_duplex() {
            let name = raw.name().unwrap_or_else(|| "this channel".to_owned());
            let text = format!("TLS needs a connection in both directions, and {name} has one direction only");
            return Err(Error::new(libc::ENOTSUP, text));
        }
        let _shut_down = cancel.shuts_down(&raw);
        let secured = credentials.handshake(&raw, to.and_then(Uri::host), limit);
        secured.map_err(|error| {
            let _ = raw.shutdown();
            match cancel.is_cancelled() {
                true => Error::new(libc::ECANCELED, "TLS handshake: cancelled"),
                false => error,
            }
        })
    }
}

/// What to do if only one side uses TLS.
const ONE_SIDE: &str = "set SaveVMParams.tls on both sides, or on neither";

/// Returns what is wrong if `first` are the first bytes of a plain connection to a peer that uses TLS.
pub fn tls_on_one_side(first: &[u8], peer: Role) -> Option<String> {
    let peer = peer.name();
    looks_like_tls(first).then(|| format!("these are bytes of TLS, which only the {peer} uses: {ONE_SIDE}"))
}

/// What a TLS record begins with: its type and the major version. A plain stream begins with another byte.
const RECORD_TYPES: std::ops::RangeInclusive<u8> = 0x14..=0x17;
const RECORD_MAJOR: u8 = 3;

/// Returns whether these bytes begin a TLS record.
fn looks_like_tls(first: &[u8]) -> bool {
    first.len() >= 2 && may_be_tls(first)
}

/// Returns whether these bytes are the begin of a TLS record, as far as they go.
pub(super) fn may_be_tls(first: &[u8]) -> bool {
    match first {
        [] => true,
        [kind] => RECORD_TYPES.contains(kind),
        [kind, major, ..] => RECORD_TYPES.contains(kind) && *major == RECORD_MAJOR,
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory;
    use super::*;

    #[test]
    fn without_tls_the_channel_is_returned_as_it_is() {
        let (near, _far) = memory::pair(16);
        let near: Arc<dyn Channel> = near;
        let security = Security::new(None, Role::Source).unwrap();
        let same = security.secure(Arc::clone(&near), None, Duration::ZERO, &Cancel::new().unwrap()).unwrap();
        assert!(Arc::ptr_eq(&near, &same) && !security.is_tls());
    }

    #[test]
    fn a_tls_record_is_recognised() {
        assert!(looks_like_tls(&[0x16, 3, 1, 2, 0]) && looks_like_tls(&[0x15, 3, 3, 0]));
        assert!(!looks_like_tls(b"QEVM") && !looks_like_tls(&[0x11, 0x22, 0x33, 0x44]) && !looks_like_tls(&[]));
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn tls_without_the_feature_is_an_error_that_says_how_to_build_it() {
        let options = TlsOptions { dir: "/x".into(), hostname: None, verify_peer: true, allowed_peers: None };
        let error = Security::new(Some(&options), Role::Source).err().unwrap();
        assert_eq!(error.errno(), libc::ENOTSUP);
        assert!(error.message().contains("-Dtls=enabled") && error.message().contains("--features tls"), "{error}");
    }
}
