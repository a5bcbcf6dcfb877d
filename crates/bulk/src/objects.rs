//! Where the files of jobs are: objects in buckets, named as `s3://bucket/folder/name`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An object: its bucket, and its key there.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ObjectPath {
    /// The bucket.
    pub bucket: String,
    /// The object's key.
    pub key: String,
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

/// A folder in a bucket, `s3://bucket/folder`, or the bucket itself.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct Folder {
    bucket: String,
    /// Empty, or with a slash at its end.
    prefix: String,
}

impl Folder {
    /// The longest address, in bytes. A key has 1,024 at most (Amazon S3 User Guide, "Naming Amazon S3 objects"), of
    /// which the rest is for what is put into the folder.
    const MAX_LENGTH: usize = 512;
    /// The longest name of an object in it, in bytes.
    const MAX_NAME: usize = 256;

    /// The bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// A folder of this name in it, of ours and therefore a good one.
    #[must_use]
    pub fn folder(&self, name: impl fmt::Display) -> Self {
        Self { bucket: self.bucket.clone(), prefix: format!("{}{name}/", self.prefix) }
    }

    /// The object of this name in it.
    ///
    /// # Errors
    ///
    /// [`InvalidLocation`] where that is no name.
    pub fn object(&self, name: &str) -> Result<ObjectPath, InvalidLocation> {
        let good = !name.is_empty() && name.len() <= Self::MAX_NAME && !name.starts_with('/') && is_path(name);
        let path = || ObjectPath { bucket: self.bucket.clone(), key: format!("{}{name}", self.prefix) };
        good.then(path).ok_or(InvalidLocation::Name)
    }
}

/// Whether this can be a part of a key. S3 takes nearly everything; what has to be escaped somewhere is left to others.
fn is_path(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/!-_.*'()=@ +".contains(&byte);
    text.bytes().all(allowed) && text.split('/').all(|part| !matches!(part, "." | ".."))
}

impl FromStr for Folder {
    type Err = InvalidLocation;

    fn from_str(text: &str) -> Result<Self, InvalidLocation> {
        let rest = text.strip_prefix("s3://").filter(|_| text.len() <= Self::MAX_LENGTH);
        let (bucket, path) =
            rest.map(|rest| rest.split_once('/').unwrap_or((rest, ""))).ok_or(InvalidLocation::Folder)?;
        // Amazon S3 User Guide, "General purpose bucket naming rules".
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
        let path = path.trim_end_matches('/');
        if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(allowed) || path.starts_with('/') || !is_path(path)
        {
            return Err(InvalidLocation::Folder);
        }
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        Ok(Self { bucket: bucket.to_owned(), prefix })
    }
}

impl TryFrom<String> for Folder {
    type Error = InvalidLocation;

    fn try_from(text: String) -> Result<Self, InvalidLocation> {
        text.parse()
    }
}

impl From<Folder> for String {
    fn from(folder: Folder) -> Self {
        folder.to_string()
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)
    }
}

/// A text says no place of an object.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidLocation {
    /// It is no [`Folder`].
    #[error("a folder is s3://BUCKET or s3://BUCKET/FOLDER, of at most 512 bytes")]
    Folder,
    /// It is no name in a folder.
    #[error("the name of an object has 1 to 256 letters, digits, blanks and any of / ! - _ . * ' ( ) = @ +")]
    Name,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_a_bucket_and_what_is_below_it() {
        for (text, shown) in [
            ("s3://fleet", "s3://fleet/"),
            ("s3://fleet/", "s3://fleet/"),
            ("s3://fleet/a/b", "s3://fleet/a/b/"),
            ("s3://fleet/a/b//", "s3://fleet/a/b/"),
        ] {
            let folder: Folder = text.parse().unwrap();
            assert_eq!(folder.to_string(), shown);
            assert_eq!(folder.object("c.txt").unwrap().to_string(), format!("{shown}c.txt"));
            assert_eq!(folder.folder(7).to_string(), format!("{shown}7/"));
        }
    }

    #[test]
    fn what_is_no_place_is_refused() {
        let long = format!("s3://fleet/{}", "a".repeat(512));
        for text in
            ["", "fleet", "s3://", "s3://ab", "s3://Fleet", "https://fleet", "s3://fleet//a", "s3://fleet/../a", &long]
        {
            assert_eq!(text.parse::<Folder>(), Err(InvalidLocation::Folder), "{text}");
        }
        let folder: Folder = "s3://fleet/a".parse().unwrap();
        for name in ["", "/a", "a/../../b", "..", "a\nb", "ä", &long] {
            assert_eq!(folder.object(name), Err(InvalidLocation::Name), "{name}");
        }
    }
}
