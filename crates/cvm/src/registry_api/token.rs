//! The token of an operator, which never stands on a command line.

use std::ffi::OsString;
use std::path::Path;

use super::ApiError;
use crate::file;

/// What an operator shows to the server.
pub(super) struct OperatorToken(String);

/// The longest that is taken, in bytes: one of `cvm token` has 67, one of another issuer many more.
const MAX_LENGTH: usize = 8 * 1024;

impl OperatorToken {
    /// The token in the file, which nobody else may read, or else in the variable.
    pub(super) fn read(file: Option<&Path>, variable: Option<OsString>) -> Result<Self, ApiError> {
        let text = match (file, variable) {
            (Some(path), _) => file::read_private_text(path, MAX_LENGTH)?,
            (None, Some(text)) if !text.is_empty() => text.to_string_lossy().into_owned(),
            (None, _) => return Err(ApiError::NoToken),
        };
        let token = text.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ApiError::InvalidToken);
        }
        Ok(Self(token.to_owned()))
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for OperatorToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OperatorToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::file::FileError;

    #[test]
    fn a_token_is_in_a_private_file_or_in_the_variable_and_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        file::create(&path, "cvm_1_secret\n").unwrap();
        let read = OperatorToken::read(Some(&path), Some("other".into())).unwrap();
        assert_eq!((read.reveal(), format!("{read:?}").as_str()), ("cvm_1_secret", "OperatorToken(..)"));
        assert_eq!(OperatorToken::read(None, Some("other".into())).unwrap().reveal(), "other");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let exposed = OperatorToken::read(Some(&path), None).unwrap_err();
        assert!(matches!(exposed, ApiError::File(FileError::Exposed { .. })), "{exposed}");
        for none in [None, Some(OsString::new())] {
            assert!(matches!(OperatorToken::read(None, none), Err(ApiError::NoToken)));
        }
        for invalid in [" ", "a b", "a\r\nx: y"] {
            assert!(matches!(OperatorToken::read(None, Some(invalid.into())), Err(ApiError::InvalidToken)));
        }
    }
}
