// SPDX-License-Identifier: LGPL-2.1-or-later
//! TLS for the connections of a migration, by rustls (replaces QEMU 7.2's `migration/tls.c`, `io/channel-tls.c` and
//! `crypto/tls*.c`). The source is the client. Both directions of a connection use one session.
//!
//! - `files.rs`: reads certificates and keys. `certificate.rs`: reads names and times of a certificate.
//! - `verify.rs`: decides which peers are accepted. `reason.rs`: texts for failures.
//! - `session.rs`: a session without its transport. `channel.rs`: a channel over a session.
//!
//! TLS 1.3 and 1.2 are accepted. There is no session resumption, no early data, no PSK and no renegotiation.

mod certificate;
mod channel;
mod files;
mod reason;
mod session;
#[cfg(test)]
mod tests;
mod verify;

use super::Channel;
use super::security::{Role, TlsOptions, may_be_tls};
use crate::error::{Error, Result, io_text};
use crate::sys::Span;
use certificate::Certificate;
use channel::{CHUNK, TlsChannel};
use files::Files;
use reason::Reasons;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, UnbufferedClientConnection, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::ServerName;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, CipherSuite, ClientConfig, RootCertStore, ServerConfig};
use session::{Connection, Outgoing, Progress, Session};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use verify::{AcceptAny, ClientCheck, Policy, ServerCheck};

/// The certificates, keys and rules of one side of a migration.
pub struct Credentials {
    role: Role,
    options: TlsOptions,
    files: Files,
    provider: Arc<CryptoProvider>,
    own: Option<Arc<CertifiedKey>>,
    verifiers: Verifiers,
    allowed: Option<Arc<[String]>>,
}

/// The checks of certificates that have the purpose of each side.
struct Verifiers {
    server: Arc<dyn ServerCertVerifier>,
    client: Arc<dyn ClientCertVerifier>,
}

fn broken(text: impl Into<String>) -> Error {
    Error::new(libc::EPROTO, text)
}

/// Whether the processor has instructions for AES.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

/// The algorithms, in the order of their speed. All of them are safe. A peer that is the client chooses the order itself.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    let rank = |suite: CipherSuite| match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 if has_aes() => 0,
        CipherSuite::TLS13_AES_256_GCM_SHA384 if has_aes() => 1,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => 2,
        CipherSuite::TLS13_AES_128_GCM_SHA256 | CipherSuite::TLS13_AES_256_GCM_SHA384 => 3,
        _ => 4,
    };
    // The sort keeps the order of equal ranks.
    provider.cipher_suites.sort_by_key(|suite| rank(suite.suite()));
    Arc::new(provider)
}

impl Verifiers {
    fn new(files: &Files, provider: &Arc<CryptoProvider>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for der in &files.ca {
            let bad =
                |err| Error::invalid(format!("TLS: {} has an unusable certificate: {err}", files.ca_path.display()));
            roots.add(der.clone()).map_err(bad)?;
        }
        let bad = |err: &dyn std::fmt::Display| {
            let paths = format!("{} and {}", files.ca_path.display(), files.crl_path.display());
            Error::invalid(format!("TLS: {paths} can't be used: {err}"))
        };
        let roots = Arc::new(roots);
        // A certificate of a CA without a list is accepted, as by GnuTLS. A list that is out of date is not.
        let server = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider))
            .with_crls(files.crls.iter().cloned())
            .allow_unknown_revocation_status()
            .enforce_revocation_expiration()
            .build()
            .map_err(|err| bad(&err))?;
        let client = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider))
            .with_crls(files.crls.iter().cloned())
            .allow_unknown_revocation_status()
            .enforce_revocation_expiration()
            .build()
            .map_err(|err| bad(&err))?;
        Ok(Self { server, client })
    }

    /// Verifies the certificate of this side as the peer will do, without its name.
    fn check_own(&self, key: &CertifiedKey, role: Role) -> std::result::Result<(), rustls::Error> {
        let now = rustls::pki_types::UnixTime::now();
        let (end, intermediates) = key.cert.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        if role == Role::Source {
            return self.client.verify_client_cert(end, intermediates, now).map(drop);
        }
        let name = ServerName::try_from("any.invalid").map_err(|_| rustls::Error::UnsupportedNameType)?;
        match self.server.verify_server_cert(end, intermediates, &name, &[], now) {
            // The name is checked last.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(()),
            other => other.map(drop),
        }
    }
}

impl Credentials {
    /// Reads the directory, and checks this side's certificate.
    pub fn load(options: &TlsOptions, role: Role) -> Result<Self> {
        if options.allowed_peers.is_some() && !options.verify_peer {
            return Err(Error::invalid("SaveVMTls.allowed_peers needs SaveVMTls.verify_peer, which is false"));
        }
        let this = Self::load_unchecked(options, role)?;
        this.check_own()?;
        Ok(this)
    }

    fn load_unchecked(options: &TlsOptions, role: Role) -> Result<Self> {
        let provider = provider();
        let files = Files::read(&options.dir, role)?;
        let verifiers = Verifiers::new(&files, &provider)?;
        let reasons = Reasons::new(role, &files, None);
        let own = files.own.as_ref().map(|own| {
            let key = CertifiedKey::from_der(own.chain.clone(), own.key.clone_key(), &provider);
            let read = own.chain.first().and_then(|der| Certificate::read(der));
            key.map(Arc::new).map_err(|err| Error::invalid(reasons.own_refused(read.as_ref(), &err)))
        });
        Ok(Self {
            role,
            options: options.clone(),
            own: own.transpose()?,
            files,
            provider,
            verifiers,
            allowed: options.allowed_peers.clone().map(Into::into),
        })
    }

    fn check_own(&self) -> Result<()> {
        let Some(key) = &self.own else { return Ok(()) };
        let reasons = Reasons::new(self.role, &self.files, None);
        self.verifiers.check_own(key, self.role).map_err(|err| {
            let read = key.cert.first().and_then(|der| Certificate::read(der));
            Error::new(libc::EACCES, reasons.own_refused(read.as_ref(), &err))
        })
    }

    /// Begins a session. `host` is what the source connects to.
    fn begin(&self, host: Option<&str>) -> Result<(Session, Reasons)> {
        let host = self.options.hostname.as_deref().or(host).filter(|_| self.role == Role::Source);
        let reasons = Reasons::new(self.role, &self.files, host);
        let policy = Policy { allowed: self.allowed.clone(), seen: reasons.peer_certificate() };
        let connection = match self.role {
            Role::Source => self.client(host, policy),
            Role::Destination => self.server(policy),
        }?;
        Ok((Session::new(connection), reasons))
    }

    fn client(&self, host: Option<&str>, policy: Policy) -> Result<Connection> {
        let verifier: Arc<dyn ServerCertVerifier> = match self.options.verify_peer {
            true => Arc::new(ServerCheck { inner: Arc::clone(&self.verifiers.server), policy }),
            false => Arc::new(AcceptAny(Arc::clone(&self.provider))),
        };
        let name = match host {
            Some(host) => ServerName::try_from(host.to_owned())
                .map_err(|_| Error::invalid(format!("TLS: '{host}' is neither a host name nor an IP address")))?,
            None if self.options.verify_peer => {
                let text = "TLS: there is no name to verify the destination by: set SaveVMTls.hostname to a name of its \
                            certificate, because only tcp:HOST:PORT has a host";
                return Err(Error::invalid(text));
            }
            None => ServerName::try_from("any.invalid").map_err(|_| Error::invalid("TLS: no name"))?,
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|err| broken(format!("TLS: {err}")))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.own {
            Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(key)))),
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        config.enable_sni = host.is_some();
        let client = UnbufferedClientConnection::new(Arc::new(config), name);
        client.map(Connection::Client).map_err(|err| broken(format!("TLS: {err}")))
    }

    fn server(&self, policy: Policy) -> Result<Connection> {
        let verifier: Arc<dyn ClientCertVerifier> = match self.options.verify_peer {
            true => Arc::new(ClientCheck { inner: Arc::clone(&self.verifiers.client), policy }),
            false => WebPkiClientVerifier::no_client_auth(),
        };
        // `Files::read` requires one of a destination.
        let key = self.own.as_ref().ok_or_else(|| Error::invalid("TLS: a destination needs a certificate"))?;
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|err| broken(format!("TLS: {err}")))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(key))));
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let server = UnbufferedServerConnection::new(Arc::new(config));
        server.map(Connection::Server).map_err(|err| broken(format!("TLS: {err}")))
    }

    /// Shakes hands over `raw`, and returns the channel over it.
    pub fn handshake(&self, raw: &Arc<dyn Channel>, host: Option<&str>, limit: Duration) -> Result<Arc<dyn Channel>> {
        let (session, reasons) = self.begin(host)?;
        let mut handshake = Handshake { raw, session, reasons, limit, since: Instant::now(), first: Vec::new() };
        let early = handshake.run()?;
        let Handshake { session, reasons, .. } = handshake;
        Ok(Arc::new(TlsChannel::new(Arc::clone(raw), session, early, reasons)))
    }
}

/// A handshake in progress.
struct Handshake<'a> {
    raw: &'a Arc<dyn Channel>,
    session: Session,
    reasons: Reasons,
    limit: Duration,
    since: Instant,
    /// The first bytes of the peer.
    first: Vec<u8>,
}

impl Handshake<'_> {
    /// Returns the data that came with the last message of the handshake.
    fn run(&mut self) -> Result<Vec<u8>> {
        let (mut outgoing, mut early) = (Outgoing::default(), Vec::new());
        let mut buffer = vec![0; CHUNK];
        loop {
            let result = self.session.process(&mut outgoing, &mut |data| early.extend_from_slice(data));
            let sent = self.send(&mut outgoing);
            let progress = result.map_err(|err| {
                let text =
                    if may_be_tls(&self.first) { self.reasons.of(&err) } else { self.reasons.not_tls(&self.first) };
                broken(text)
            })?;
            sent?;
            match progress {
                Progress::Handshake => self.receive(&mut buffer)?,
                Progress::Again | Progress::Traffic | Progress::Closed => return Ok(early),
            }
        }
    }

    /// Sets the limit of the next wait.
    fn limit_wait(&self) -> Result<()> {
        match self.limit.checked_sub(self.since.elapsed()).filter(|left| !left.is_zero()) {
            Some(left) => {
                self.raw.set_stall_limit(Some(left));
                Ok(())
            }
            None => Err(self.timed_out()),
        }
    }

    fn timed_out(&self) -> Error {
        Error::new(libc::ETIMEDOUT, self.reasons.timed_out(self.limit))
    }

    fn failed(&self, err: &io::Error) -> Error {
        match err.kind() {
            io::ErrorKind::TimedOut => self.timed_out(),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                Error::new(libc::ECONNRESET, self.reasons.closed_in_handshake())
            }
            _ => Error::io(format_args!("TLS handshake: {}", io_text(err)), err),
        }
    }

    fn send(&self, outgoing: &mut Outgoing) -> Result<()> {
        if outgoing.bytes().is_empty() {
            return Ok(());
        }
        self.limit_wait()?;
        channel::send(&**self.raw, outgoing).map_err(|err| self.failed(&err))
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.limit_wait()?;
        let count = self.raw.read(Span::from_slice(buffer)).map_err(|err| self.failed(&err))?;
        if count == 0 {
            return Err(Error::new(libc::ECONNRESET, self.reasons.closed_in_handshake()));
        }
        if self.first.is_empty() {
            self.first = buffer[..count.min(8)].to_vec();
        }
        self.session.receive(&buffer[..count]).map_err(|err| broken(format!("TLS: {err}")))
    }
}
