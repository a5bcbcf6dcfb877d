//! Who may operate the server: bearer tokens, each a file in a folder, so that they can be made and revoked while it runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::ValueEnum;
use cvm_provisioning::{AttemptId, EnrolmentToken, Timestamp, TokenDigest, is_printable};
use serde::{Deserialize, Serialize};

use super::{OPERATORS, ServeError};
use crate::file::{self, FileError};

/// What a token lets somebody do.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Look at everything.
    Viewer,
    /// Change devices, too.
    Operator,
    /// Make and revoke tokens over the API, too.
    Admin,
}

impl Role {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// A token as it is kept: nothing in it opens anything.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TokenRecord {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) role: Role,
    digest: TokenDigest,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Option<Timestamp>,
}

impl TokenRecord {
    /// Its owner, as the trail and the log have them.
    pub(crate) fn actor(&self) -> String {
        format!("{}:{}", self.id, self.name)
    }
}

/// The tokens there are.
#[derive(Clone, Debug)]
pub(crate) struct OperatorTokens {
    folder: PathBuf,
}

/// What every token begins with, so that one that leaked is known for what it is.
const PREFIX: &str = "cvm_";
/// The longest file of a token, in bytes.
const MAX_RECORD: usize = 4 * 1024;
/// How long the token of the first start lasts.
const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

/// The name of a token's owner, as logs and the trail show it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct OwnerName(String);

impl OwnerName {
    /// The longest name, in characters.
    const MAX_LENGTH: usize = 64;

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for OwnerName {
    type Err = InvalidOwnerName;

    fn from_str(text: &str) -> Result<Self, InvalidOwnerName> {
        match (1..=Self::MAX_LENGTH).contains(&text.chars().count()) && text.chars().all(is_printable) {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidOwnerName),
        }
    }
}

/// A text is no [`OwnerName`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected 1 to {max} printable characters", max = OwnerName::MAX_LENGTH)]
pub(crate) struct InvalidOwnerName;

impl OperatorTokens {
    /// The tokens in this folder, which is made if it is missing.
    pub(crate) fn in_folder(folder: &Path) -> Result<Self, ServeError> {
        file::private_folder(folder)?;
        // Whoever can write into it can make operators.
        file::take_permissions(folder, 0o077)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// The tokens of the server with this data folder. Fails if no server was started there.
    pub(crate) fn of_server(data: &Path) -> Result<Self, ServeError> {
        let folder = data.join(OPERATORS);
        if !folder.is_dir() {
            return Err(ServeError::NoServer { path: data.to_owned() });
        }
        Ok(Self { folder })
    }

    /// Makes a token, and returns the only copy of it.
    pub(crate) fn create(
        &self,
        name: &str,
        role: Role,
        expires_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(TokenRecord, String), ServeError> {
        let id = AttemptId::random().map_err(|_| ServeError::Randomness)?.to_string();
        let id = id[..16].to_owned();
        let secret = EnrolmentToken::generate().map_err(|_| ServeError::Randomness)?;
        let digest = secret.digest();
        let record = TokenRecord { id, name: name.to_owned(), role, digest, created_at: now, expires_at };
        let path = self.path(&record.id);
        let json = serde_json::to_string(&record).map_err(|_| ServeError::Token { path: path.clone() })?;
        file::create(&path, &json)?;
        let token = format!("{PREFIX}{}_{}", record.id, secret.reveal());
        Ok((record, token))
    }

    /// A token for whoever starts the server for the first time; `None` where there are tokens already.
    pub(crate) fn first(&self, name: &str, now: Timestamp) -> Result<Option<String>, ServeError> {
        if !self.list()?.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.create(name, Role::Admin, Some(now.after(DAY)), now)?.1))
    }

    /// All of them, the oldest first.
    pub(crate) fn list(&self) -> Result<Vec<TokenRecord>, ServeError> {
        let failed = |source| FileError::Read { path: self.folder.clone(), source };
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            // A file that is being made has another name yet.
            if path.extension().is_some_and(|extension| extension == "json") {
                all.push(read(&path)?);
            }
        }
        all.sort_by_key(|record| record.created_at);
        Ok(all)
    }

    /// Revokes a token, at once.
    pub(crate) fn revoke(&self, id: &str) -> Result<(), ServeError> {
        let path = self.path(id);
        if !is_id(id) {
            return Err(ServeError::NoToken { id: id.to_owned() });
        }
        match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ServeError::NoToken { id: id.to_owned() }),
            Err(source) => Err(FileError::Write { path, source }.into()),
        }
    }

    /// Whose token this is, if it is one at this time.
    pub(crate) fn bearer(&self, token: &str, now: Timestamp) -> Option<TokenRecord> {
        let (id, secret) = token.strip_prefix(PREFIX)?.split_once('_')?;
        let record = is_id(id).then(|| read(&self.path(id)).ok())??;
        let digest = secret.parse::<EnrolmentToken>().ok()?.digest();
        let lasts = record.expires_at.is_none_or(|end| now < end);
        (digest.is(&record.digest) && lasts).then_some(record)
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }
}

/// An id is the name of a file, and comes from whoever asks.
fn is_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn read(path: &Path) -> Result<TokenRecord, ServeError> {
    let text = file::read_private_text(path, MAX_RECORD)?;
    serde_json::from_str(&text).map_err(|_| ServeError::Token { path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn tokens() -> (tempfile::TempDir, OperatorTokens) {
        let folder = tempfile::tempdir().unwrap();
        let tokens = OperatorTokens::in_folder(folder.path()).unwrap();
        (folder, tokens)
    }

    #[test]
    fn a_token_is_good_until_it_ends_or_is_revoked_and_is_kept_as_a_digest() {
        let (folder, tokens) = tokens();
        let end = NOW.after(Duration::from_secs(60));
        let (record, token) = tokens.create("anna", Role::Viewer, Some(end), NOW).unwrap();
        let found = tokens.bearer(&token, NOW).unwrap();
        assert_eq!((found.name.as_str(), found.role), ("anna", Role::Viewer));
        assert!(tokens.bearer(&token, end).is_none());
        let secret = token.splitn(3, '_').nth(2).unwrap();
        let kept = fs::read_to_string(folder.path().join(format!("{}.json", record.id))).unwrap();
        assert!(!kept.contains(secret));
        tokens.revoke(&record.id).unwrap();
        assert!(tokens.bearer(&token, NOW).is_none());
        assert!(matches!(tokens.revoke(&record.id), Err(ServeError::NoToken { .. })));
    }

    #[test]
    fn what_is_no_token_opens_nothing_and_no_file() {
        let (folder, tokens) = tokens();
        let (record, token) = tokens.create("anna", Role::Operator, None, NOW).unwrap();
        fs::write(folder.path().join("secret.json"), "{}").unwrap();
        let other = token.replace(&record.id, "../../etc/passwd");
        for text in ["", "cvm_", "cvm__", &token[..token.len() - 1], &format!("{token}x"), &other, "cvm_../secret_x"] {
            assert!(tokens.bearer(text, NOW).is_none(), "{text}");
        }
        assert!(matches!(tokens.revoke("../secret"), Err(ServeError::NoToken { .. })));
    }

    #[test]
    fn the_first_start_has_a_token_and_the_next_one_has_none() {
        let (_folder, tokens) = tokens();
        let token = tokens.first("first", NOW).unwrap().unwrap();
        assert!(tokens.bearer(&token, NOW).is_some());
        assert!(tokens.first("first", NOW).unwrap().is_none());
    }
}
