//! What goes wrong with TLS, in words of ours: a library's are for who programs with it, and end with links to its manual.
//!
//! Belongs here: words. Does not: what follows from an error.

use rustls::{CertificateError, Error};

use super::alert_name;

/// An error of TLS.
#[must_use]
pub fn reason(err: &Error) -> String {
    match err {
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            "the other side sent a TLS message out of turn".to_owned()
        }
        Error::InvalidMessage(_) => "what the other side sent is not valid TLS".to_owned(),
        Error::NoCertificatesPresented => "the other side sent no certificate".to_owned(),
        Error::DecryptError => "what the other side sent can't be decrypted".to_owned(),
        Error::PeerSentOversizedRecord => "the other side sent a TLS record that is too long".to_owned(),
        Error::PeerIncompatible(_) => "the other side and this program share no TLS version and cipher".to_owned(),
        Error::PeerMisbehaved(how) => format!("the other side breaks the rules of TLS ({how:?})"),
        Error::AlertReceived(alert) => format!("the other side sent the TLS alert {}", alert_name(*alert)),
        Error::InvalidCertificate(e) => format!("the certificate is refused: {}", objection(e)),
        Error::NoApplicationProtocol => "the other side speaks none of the protocols that are offered".to_owned(),
        other => format!("TLS failed: {other}"),
    }
}

/// Why a certificate is refused: `its signature is wrong`.
#[must_use]
pub fn objection(err: &CertificateError) -> String {
    use CertificateError as E;
    let why = match err {
        E::BadEncoding => "it is malformed",
        E::Expired | E::ExpiredContext { .. } => "it has expired",
        E::NotValidYet | E::NotValidYetContext { .. } => "it is not valid yet",
        E::Revoked => "it was revoked",
        E::UnknownIssuer => "its authority isn't known here",
        E::BadSignature => "its signature is wrong",
        E::NotValidForName | E::NotValidForNameContext { .. } => "it is for another name",
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => "it is not made for this use",
        E::UnhandledCriticalExtension => "it has an extension that must be understood and isn't",
        other => return format!("{other:?}"),
    };
    why.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_library_speaks_to_the_operator() {
        use rustls::{AlertDescription, InvalidMessage, PeerMisbehaved};
        for (error, words) in [
            (
                Error::AlertReceived(AlertDescription::HandshakeFailure),
                "the other side sent the TLS alert handshake_failure",
            ),
            (
                Error::InvalidCertificate(CertificateError::BadSignature),
                "the certificate is refused: its signature is wrong",
            ),
            (Error::InvalidMessage(InvalidMessage::InvalidContentType), "what the other side sent is not valid TLS"),
            (
                Error::PeerMisbehaved(PeerMisbehaved::TooMuchEarlyDataReceived),
                "the other side breaks the rules of TLS (TooMuchEarlyDataReceived)",
            ),
        ] {
            assert_eq!(reason(&error), words);
        }
    }
}
