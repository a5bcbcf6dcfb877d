//! Enrolment tokens in files: a token never stands on a command line, where every process of the machine could read it.

use std::path::{Path, PathBuf};

use cvm_provisioning::{EnrolmentToken, InvalidToken};

use crate::file::{self, FileError};

/// Reads the token in this file, which others than its owner may not read, or on stdin for `-`; blanks and newlines around
/// it do not count.
pub(crate) fn read(path: &Path) -> Result<EnrolmentToken, TokenError> {
    parse(&file::read_private_text(path, 2 * EnrolmentToken::MAX_LENGTH)?, path)
}

/// Reads a token that came from `path`, or from a variable of that name.
pub(crate) fn parse(text: &str, path: &Path) -> Result<EnrolmentToken, TokenError> {
    text.trim().parse().map_err(|source| TokenError::Invalid { path: path.to_owned(), source })
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TokenError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path} holds no enrolment token", path = path.display())]
    Invalid { path: PathBuf, source: InvalidToken },
}

impl TokenError {
    /// What to do next.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::File(error) => error.advice(),
            Self::Invalid { .. } => {
                "have one made by `cvm device add ID`, or make one with `openssl rand -hex 32`".to_owned()
            }
        }
    }
}
