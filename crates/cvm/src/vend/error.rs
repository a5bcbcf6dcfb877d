use std::error::Error;
use std::io;
use std::path::PathBuf;

use cvm_provisioning::{DeviceId, DeviceKeyError};

use super::answer::BadAnswer;
use super::problem::Problem;
use crate::address::Address;
use crate::arguments::ArgumentError;
use crate::file::FileError;
use crate::https::ClientError;
use crate::output::shell_word;
use crate::token::TokenError;

/// Why a device has no certificate to show.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum VendError {
    #[error("the answer must not be used, and was not kept")]
    Answer(#[source] BadAnswer),
    #[error("the answer has more than {limit} bytes, and was not read")]
    AnswerTooLarge { limit: usize },
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    #[error("no connection can be set up")]
    Client(#[source] reqwest::Error),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the private key in {path} is encrypted", path = path.display())]
    EncryptedKey { path: PathBuf },
    #[error("{path} holds no private key that can be certified", path = path.display())]
    Key { path: PathBuf, source: Box<dyn Error + Send + Sync> },
    #[error("no key could be made")]
    KeyGeneration(#[from] DeviceKeyError),
    #[error("there is no key to go with the answer")]
    KeyMissing,
    #[error("{path} is there already, and the service makes a device's key once", path = path.display())]
    KeyThere { path: PathBuf },
    #[error("no answer came")]
    NoAnswer(#[source] reqwest::Error),
    #[error("{address} does not answer in plain HTTP")]
    NotHttp { address: Address, source: reqwest::Error },
    #[error("{path} does not name a device", path = path.display())]
    NoDevice { path: PathBuf },
    #[error("{path} cannot be presented with its key", path = path.display())]
    Identity { path: PathBuf, source: reqwest::Error },
    #[error("{path} is of another device", path = path.display())]
    OtherDevice { path: PathBuf },
    #[error("{path} is another key than the one given with --key", path = path.display())]
    OtherKeyThere { path: PathBuf },
    #[error("the output cannot be written")]
    Output(#[source] io::Error),
    #[error("{address} is plain http: everybody on the way could read the token and the answer")]
    Plain { address: Address },
    #[error("{address} is plain http, which carries no certificate to renew with")]
    PlainRenewal { address: Address },
    #[error(
        "{status} {words}{request}",
        status = problem.status,
        words = problem.words,
        request = problem.request_id.as_ref().map(|id| format!(" (request id {id})")).unwrap_or_default()
    )]
    Problem { device: DeviceId, problem: Problem },
    #[error("{path} holds no CA certificates in PEM", path = path.display())]
    RootCa { path: PathBuf, source: Option<reqwest::Error> },
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl From<ClientError> for VendError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Client(error) => Self::Client(error),
            ClientError::File(error) => Self::File(error),
            ClientError::RootCa { path, source } => Self::RootCa { path, source },
        }
    }
}

impl VendError {
    /// The stable word for it in JSON: the API's own where it refused.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Answer(_) | Self::AnswerTooLarge { .. } => "answer",
            Self::Argument(_) | Self::Plain { .. } | Self::PlainRenewal { .. } => "usage",
            Self::Client(_) | Self::NoAnswer(_) | Self::NotHttp { .. } => "no-answer",
            Self::Identity { .. } | Self::NoDevice { .. } => "not-vended",
            Self::File(_) => "file",
            Self::EncryptedKey { .. } | Self::Key { .. } | Self::KeyGeneration(_) | Self::KeyMissing => "key",
            Self::KeyThere { .. } | Self::OtherKeyThere { .. } => "key-there",
            Self::OtherDevice { .. } => "other-device",
            Self::Output(_) => "output",
            Self::Problem { problem, .. } => problem.code.as_deref().unwrap_or("no-vending-api"),
            Self::RootCa { .. } => "root-ca",
            Self::Token(_) => "token",
        }
    }

    /// What to do next.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Answer(_) | Self::AnswerTooLarge { .. } => {
                "check that --url is your own service; if it is, tell its operator and do not retry"
            }
            Self::Argument(_) => "see `cvm vend --help`",
            Self::Client(_) => "check the system's CA certificates, or give the API's with --root-ca",
            Self::File(error) => return error.advice(),
            Self::EncryptedKey { path } => {
                let path = shell_word(&path.to_string_lossy());
                return format!("`openssl pkey -in {path} -out device.key` writes it decrypted");
            }
            Self::Key { .. } => "make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`",
            Self::KeyGeneration(_) => "run the same command again",
            Self::KeyMissing => "run the same command again, or without --service-key",
            Self::KeyThere { .. } => {
                "use the files that are there, or give another --out; asking for a second key quarantines the device"
            }
            Self::NoAnswer(error) if error.is_connect() => {
                "check --url and, for a private CA, --root-ca; then run the same command again"
            }
            Self::NoAnswer(_) => "run the same command again: an answer that was lost is given again",
            Self::NotHttp { .. } => "give --url with https://: the service speaks TLS there",
            Self::Identity { .. } | Self::NoDevice { .. } => {
                "give --renew the folder that `cvm vend` has written; without one, vend with a token first"
            }
            Self::Plain { .. } => "give --url with https://; --insecure sends the token all the same",
            Self::PlainRenewal { .. } => "give --url with https://",
            Self::OtherDevice { .. } => "give each device an --out of its own",
            Self::OtherKeyThere { .. } => "give another --out, or leave --key out to use the key that is there",
            Self::Output(_) => "check where the output goes",
            Self::Problem { device, problem } => return problem.advice(device),
            Self::RootCa { .. } => "give the CA that issued the API's certificate, in PEM",
            Self::Token(error) => return error.advice(),
        }
        .to_owned()
    }

    /// Whether the command could never have worked.
    pub(crate) fn is_usage(&self) -> bool {
        matches!(self, Self::Argument(_) | Self::Plain { .. } | Self::PlainRenewal { .. })
    }
}
