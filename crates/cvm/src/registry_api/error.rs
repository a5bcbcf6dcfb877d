use std::error::Error;
use std::io;

use super::refusal::Refusal;
use crate::address::Address;
use crate::file::FileError;
use crate::https::ClientError;

/// Why a server's registry was not read or changed as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ApiError {
    #[error("the answer has more than {limit} bytes, and was not read")]
    AnswerTooLarge { limit: usize },
    #[error(transparent)]
    Client(ClientError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("what was given as a token is none")]
    InvalidToken,
    #[error("no answer came from {address}")]
    NoAnswer { address: Address, source: reqwest::Error },
    #[error("it was not done: {reason}")]
    NotDone { reason: String, is_final: bool },
    #[error("{address} does not answer in plain HTTP")]
    NotHttp { address: Address, source: reqwest::Error },
    #[error("there is no token to show to the server")]
    NoToken,
    #[error("the answer is not one of a registry that this cvm knows: {problem}")]
    NotUnderstood { problem: String },
    #[error("the output cannot be written")]
    Output(#[source] io::Error),
    #[error("{address} is plain http, so that everybody on the way could read the token")]
    Plain { address: Address },
    #[error(
        "{status} {words}{request}",
        status = refusal.status,
        words = refusal.words,
        request = refusal.request_id.as_ref().map(|id| format!(" (request id {id})")).unwrap_or_default()
    )]
    Refused { refusal: Refusal },
}

impl From<ClientError> for ApiError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::File(error) => Self::File(error),
            error => Self::Client(error),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused { refusal }
    }
}

impl ApiError {
    pub(super) fn not_understood(problem: impl std::fmt::Display) -> Self {
        // What came may be in it.
        Self::NotUnderstood { problem: problem.to_string().chars().take(200).collect() }
    }

    /// The stable word for it in JSON.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::AnswerTooLarge { .. } | Self::NotUnderstood { .. } => "answer",
            Self::Client(ClientError::RootCa { .. }) => "server-ca",
            Self::Client(_) | Self::NoAnswer { .. } | Self::NotHttp { .. } => "no-answer",
            Self::File(_) => "file",
            Self::InvalidToken => "token",
            Self::NoToken | Self::Plain { .. } => "usage",
            Self::NotDone { .. } => "refused",
            Self::Output(_) => "output",
            Self::Refused { refusal } => match refusal.status {
                401 => "unauthenticated",
                403 => "not-allowed",
                412 => "changed-since",
                429 => "throttled",
                408 | 502..=504 => "no-answer",
                _ => "refused",
            },
        }
    }

    /// What to do next.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::AnswerTooLarge { .. } | Self::NotUnderstood { .. } => {
                "check --server; if it is your own, see whether cvm and the server are of one version"
            }
            Self::Client(ClientError::RootCa { .. }) => "give the CA that issued the server's certificate, in PEM",
            Self::Client(_) => "check the system's CA certificates, or give the server's with --server-ca",
            Self::File(error) => return error.advice(),
            Self::InvalidToken | Self::NoToken => {
                "give --operator-token-file, or `export CVM_OPERATOR_TOKEN=` the token that `cvm token create` has made"
            }
            Self::NoAnswer { source, .. } => return no_answer(source).to_owned(),
            Self::NotHttp { .. } => "give the address with https://: `cvm serve` speaks TLS there",
            Self::NotDone { .. } => "its words say why; what was done already is not done twice",
            Self::Output(_) => "check where the output goes",
            Self::Plain { .. } => "give the address with https, which `cvm serve` has",
            Self::Refused { refusal } => return refusal.advice(),
        }
        .to_owned()
    }

    /// Whether it is certain that nothing was done: the server refused, or was never reached.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::AnswerTooLarge { .. } | Self::NotUnderstood { .. } | Self::Output(_) => false,
            Self::NoAnswer { source, .. } => source.is_connect(),
            Self::NotDone { is_final, .. } => *is_final,
            Self::Refused { refusal } => (400..500).contains(&refusal.status) && refusal.status != 408,
            _ => true,
        }
    }

    /// Whether the command could never have worked.
    pub(crate) const fn is_usage(&self) -> bool {
        matches!(self, Self::NoToken | Self::Plain { .. })
    }
}

fn no_answer(error: &reqwest::Error) -> &'static str {
    use rustls::CertificateError::{NotValidForName, NotValidForNameContext};
    match of_tls(error) {
        Some(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
            "give --server the name that is in the server's certificate, or start the server with this --name"
        }
        Some(rustls::Error::InvalidCertificate(_)) => {
            "the server's certificate is not trusted: give its CA with --server-ca, which is ca/ca.pem in the folder of \
             `cvm serve` where it has no other certificate"
        }
        Some(_) => "check that --server is the address of `cvm serve`, which speaks TLS there",
        None if error.is_connect() => "check that the server is running, and that --server is its address",
        None => "run this again: what was done already is not done twice, and `cvm device show` says what is so",
    }
}

/// What TLS had to say.
fn of_tls(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(error) = cause {
        // An I/O error's source is that of the error in it, which would be passed over.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = inner.and_then(|error| error.downcast_ref()).or_else(|| error.downcast_ref()) {
            return Some(found);
        }
        cause = inner.map(|error| error as &(dyn Error + 'static)).or_else(|| error.source());
    }
    None
}
