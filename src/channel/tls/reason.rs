// SPDX-License-Identifier: LGPL-2.1-or-later
//! Texts for failures of TLS: which certificate, why, and what to do.

use super::certificate::Certificate;
use super::files::Files;
use crate::channel::Role;
use rustls::{AlertDescription, CertRevocationListError, CertificateError, Error, InconsistentKeys};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// `host` for `DnsName("host")`, as rustls prints a name of a certificate.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.map_or(name, |inner| inner.trim_matches('"'))
}

/// What the texts need to know of one connection.
#[derive(Clone)]
pub struct Reasons {
    role: Role,
    /// Path and subject of this side's certificate.
    own: Option<String>,
    dir: PathBuf,
    ca_path: PathBuf,
    crl_path: PathBuf,
    /// The name that the source expects of the destination.
    host: Option<String>,
    /// The peer's certificate, from when it is verified.
    peer: Arc<OnceLock<Certificate>>,
}

impl Reasons {
    pub fn new(role: Role, files: &Files, host: Option<&str>) -> Self {
        Self {
            role,
            own: files.own.as_ref().map(super::files::Own::text),
            dir: files.ca_path.parent().map_or_else(PathBuf::new, PathBuf::from),
            ca_path: files.ca_path.clone(),
            crl_path: files.crl_path.clone(),
            host: host.map(str::to_owned),
            peer: Arc::default(),
        }
    }

    /// Where the verifier stores the peer's certificate.
    pub fn peer_certificate(&self) -> Arc<OnceLock<Certificate>> {
        Arc::clone(&self.peer)
    }

    fn peer_name(&self) -> &'static str {
        self.role.peer().name()
    }

    /// Returns the text of an error of a connection.
    pub fn of(&self, err: &Error) -> String {
        let (peer, here) = (self.peer_name(), self.role.name());
        match err {
            Error::InvalidCertificate(why) => {
                let subject = match self.peer.get() {
                    Some(read) => format!(" ({})", read.subject),
                    None => String::new(),
                };
                format!("TLS: the {peer}'s certificate{subject} is refused: {}", self.refusal(why))
            }
            Error::InvalidCertRevocationList(why) => self.crl(why),
            Error::NoCertificatesPresented => format!(
                "TLS: the {peer} has sent no certificate, and this side verifies its peer: put client-cert.pem and \
                 client-key.pem into the directory of the {peer}, or set SaveVMTls.verify_peer to false here"
            ),
            Error::AlertReceived(alert) => self.alert(*alert),
            Error::PeerIncompatible(why) => format!(
                "TLS: the {peer} has no TLS version, cipher or signature in common with the {here} ({why:?}); TLS 1.3 and \
                 1.2 with ECDHE and AES-GCM or ChaCha20-Poly1305 are accepted"
            ),
            Error::DecryptError => format!("TLS: a record of the {peer} was changed on its way, or is damaged"),
            other => format!("TLS: the connection to the {peer} failed: {other}"),
        }
    }

    /// Returns why a certificate of this side is not usable, as a whole text.
    pub fn own_refused(&self, read: Option<&Certificate>, err: &Error) -> String {
        let own = self.own.clone().unwrap_or_default();
        let _ = read.map(|read| self.peer.set(read.clone()));
        match err {
            Error::InvalidCertificate(why) => {
                format!("TLS: this side's certificate {own} is not usable: {}", self.refusal(why))
            }
            Error::InvalidCertRevocationList(why) => self.crl(why),
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                format!(
                    "TLS: this side's certificate {own} does not belong to the private key beside it: replace one of them"
                )
            }
            other => format!("TLS: this side's certificate {own} is not usable with its key: {other}"),
        }
    }

    /// Why a certificate is refused, and what to do. The subject of the text is the certificate.
    fn refusal(&self, why: &CertificateError) -> String {
        use CertificateError as E;
        let (ca, crl) = (self.ca_path.display(), self.crl_path.display());
        let read = self.peer.get();
        let time = |pick: fn(&Certificate) -> &String| read.map_or("an unknown time".into(), |read| pick(read).clone());
        match why {
            E::Expired | E::ExpiredContext { .. } => format!(
                "it, or a CA's certificate above it, has expired (it was valid until {}): renew it, and check the clocks of \
                 both hosts",
                time(|read| &read.not_after)
            ),
            E::NotValidYet | E::NotValidYetContext { .. } => format!(
                "it, or a CA's certificate above it, is not valid yet (it is valid from {}): check the clocks of both hosts",
                time(|read| &read.not_before)
            ),
            E::UnknownIssuer | E::BadSignature => format!(
                "no CA of {ca} has signed it (its issuer is {}): give both sides certificates of the same CA, or add that CA \
                 to the file",
                time(|read| &read.issuer)
            ),
            E::Revoked => format!("{crl} says that it is revoked: give that side a new certificate"),
            E::ExpiredRevocationList | E::ExpiredRevocationListContext { .. } => {
                format!("{crl} is out of date, so revoked certificates are unknown: replace it by the CA's current list")
            }
            E::NotValidForName => self.wrong_name(""),
            E::NotValidForNameContext { presented, .. } if presented.is_empty() => {
                self.wrong_name(", and it has no subjectAltName at all")
            }
            E::NotValidForNameContext { presented, .. } => {
                let names: Vec<_> = presented.iter().map(|name| bare(name)).collect();
                self.wrong_name(&format!(", but only for {}", names.join(", ")))
            }
            E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
                "its extended key usage does not allow this use: a destination needs serverAuth, and a source needs clientAuth"
                    .to_owned()
            }
            E::ApplicationVerificationFailure => {
                let subject = time(|read| &read.subject);
                format!("its name is not in SaveVMTls.allowed_peers: add \"{subject}\" there if this peer is allowed")
            }
            E::BadEncoding => "it can't be read: it must be an X.509 certificate of version 3".to_owned(),
            E::UnsupportedSignatureAlgorithmContext { .. } | E::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                "it is signed with an algorithm that is not accepted: RSA of 2048 bits or more, ECDSA with P-256 or P-384, \
                 and Ed25519 are"
                    .to_owned()
            }
            other => format!("{other} (checked with {ca})"),
        }
    }

    fn wrong_name(&self, names: &str) -> String {
        let host = self.host.as_deref().unwrap_or_default();
        format!(
            "it is not for the name '{host}'{names}: set SaveVMTls.hostname to a name of the certificate, or give the \
             destination one with the subjectAltName '{host}'"
        )
    }

    fn crl(&self, why: &CertRevocationListError) -> String {
        format!("TLS: {} can't be used: {why:?}", self.crl_path.display())
    }

    /// The text of an alert, by which the peer says why it ends the connection.
    fn alert(&self, alert: AlertDescription) -> String {
        use AlertDescription as A;
        let peer = self.peer_name();
        let own = self.own.as_deref().unwrap_or("that was not sent");
        let refused = |why: &str| format!("TLS: the {peer} refused this side's certificate {own}: {why}");
        match alert {
            A::CertificateExpired => refused("it has expired or is not valid yet by the clock there"),
            A::CertificateRevoked => refused("it is revoked"),
            A::UnknownCA => refused("the CA that signed it is not in the ca-cert.pem there"),
            A::AccessDenied => {
                refused("its name is not among the allowed ones there (SaveVMTls.allowed_peers, tls-authz)")
            }
            A::CertificateRequired => format!(
                "TLS: the {peer} wants a certificate of this side: put client-cert.pem and client-key.pem into {}",
                self.dir.display()
            ),
            A::BadCertificate if self.role == Role::Destination => refused(
                "it is not for the name that the source expects (SaveVMTls.hostname there, or the host of its URI), or it can't \
                 be read; see the log there",
            ),
            A::UnsupportedCertificate => refused("it is for another purpose; see the log there"),
            A::BadCertificate | A::CertificateUnknown => refused("it can't be verified; see the log there"),
            A::HandshakeFailure | A::ProtocolVersion | A::InsufficientSecurity => format!(
                "TLS: the {peer} has no TLS version, cipher or kind of key in common with this side ({alert:?}), or wants a \
                 certificate from this side; see the log there"
            ),
            other => format!("TLS: the {peer} ended the connection ({other:?}); see the log there"),
        }
    }

    /// The peer closed the connection during the handshake.
    pub fn closed_in_handshake(&self) -> String {
        let peer = self.peer_name();
        format!(
            "TLS: the {peer} closed the connection during the handshake: if it does not use TLS, set SaveVMParams.tls (in \
             QEMU: tls-creds) on both sides; otherwise see the log there"
        )
    }

    /// The peer closed the connection after the handshake, before it sent anything.
    pub fn closed_after_handshake(&self) -> String {
        let own = self.own.as_deref().unwrap_or("that was not sent");
        format!(
            "TLS: the {} closed the connection after the handshake without a reason: it may have refused this side's \
             certificate {own}; see the log there",
            self.peer_name()
        )
    }

    /// The handshake took too long.
    pub fn timed_out(&self, limit: std::time::Duration) -> String {
        format!(
            "TLS: the {} did not complete the handshake within {limit:?}: if it does not use TLS, set SaveVMParams.tls (in \
             QEMU: tls-creds) on both sides",
            self.peer_name()
        )
    }

    /// The first bytes of the peer are not TLS.
    pub fn not_tls(&self, first: &[u8]) -> String {
        let peer = self.peer_name();
        let bytes: String = first.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        match first.starts_with(b"QEVM") {
            true => format!(
                "TLS: the {peer} sends a plain stream, which is refused: set SaveVMParams.tls (in QEMU: tls-creds) there too"
            ),
            false => format!("TLS: the connection begins with 0x{bytes}, which is not TLS"),
        }
    }
}
