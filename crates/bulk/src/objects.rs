//! Where the files of jobs are: objects in a bucket, named as `s3://bucket/folder/name`, or files in the one folder that a
//! server has for them, named from there as `./folder/name`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An object: its bucket, and its key there; or a file of a server.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ObjectPath {
    /// The bucket; none is the folder of a server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// The object's key, or the file's path.
    pub key: String,
}

impl ObjectPath {
    /// What the key is in, without a slash at its end.
    pub fn container(&self) -> String {
        container(self.bucket.as_deref())
    }
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container(), self.key)
    }
}

/// The bucket's address, or the folder of a server.
fn container(bucket: Option<&str>) -> String {
    bucket.map_or_else(|| ".".to_owned(), |bucket| format!("s3://{bucket}"))
}

/// A folder in a bucket, `s3://bucket/folder`, or the bucket itself; or one in the folder of a server, `folder` or
/// `./folder`, or that itself, `.`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct Folder {
    bucket: Option<String>,
    /// Empty, or with a slash at its end.
    prefix: String,
}

impl Folder {
    /// The longest address, in bytes. A key has 1,024 at most (Amazon S3 User Guide, "Naming Amazon S3 objects"), of
    /// which the rest is for what is put into the folder.
    const MAX_LENGTH: usize = 512;
    /// The longest name of an object in it, in bytes.
    const MAX_NAME: usize = 256;

    /// The folder of a server itself.
    pub const fn of_server() -> Self {
        Self { bucket: None, prefix: String::new() }
    }

    /// Whether both are in the same bucket, or in the folder of a server.
    pub fn is_beside(&self, other: &Self) -> bool {
        self.bucket == other.bucket
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
        let is_short = !name.is_empty() && name.len() <= Self::MAX_NAME;
        let good = is_short && !name.starts_with('/') && is_path(name) && (self.bucket.is_some() || is_file(name));
        let path = || ObjectPath { bucket: self.bucket.clone(), key: format!("{}{name}", self.prefix) };
        good.then(path).ok_or(InvalidLocation::Name)
    }
}

/// Whether this can be a part of a key. S3 takes nearly everything; what has to be escaped somewhere is left to others.
fn is_path(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/!-_.*'()=@ +".contains(&byte);
    text.bytes().all(allowed) && text.split('/').all(|part| !matches!(part, "." | ".."))
}

/// Whether this can be a path of a file of a server, from its folder. Names that begin with a dot are the server's own.
pub(crate) fn is_file(text: &str) -> bool {
    let good = |part: &str| (1..=255).contains(&part.len()) && !part.starts_with('.');
    is_path(text) && text.split('/').all(good)
}

impl FromStr for Folder {
    type Err = InvalidLocation;

    fn from_str(text: &str) -> Result<Self, InvalidLocation> {
        if text.len() > Self::MAX_LENGTH || text.is_empty() {
            return Err(InvalidLocation::Folder);
        }
        let (bucket, path) = match text.strip_prefix("s3://") {
            Some(rest) => {
                let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
                (Some(bucket), path)
            }
            None if text == "." => (None, ""),
            None => (None, text.strip_prefix("./").unwrap_or(text)),
        };
        // Amazon S3 User Guide, "General purpose bucket naming rules".
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
        let is_bucket = |bucket: &str| (3..=63).contains(&bucket.len()) && bucket.bytes().all(allowed);
        let path = if path.starts_with('/') { path } else { path.trim_end_matches('/') };
        let good = match bucket {
            Some(bucket) => is_bucket(bucket) && !path.starts_with('/') && is_path(path),
            None => path.is_empty() || is_file(path),
        };
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        good.then(|| Self { bucket: bucket.map(str::to_owned), prefix }).ok_or(InvalidLocation::Folder)
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
        write!(f, "{}/{}", container(self.bucket.as_deref()), self.prefix)
    }
}

/// A text says no place of an object.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidLocation {
    /// It is no [`Folder`].
    #[error("a folder is s3://BUCKET/FOLDER, or FOLDER at a server, of at most 512 bytes")]
    Folder,
    /// It is no name in a folder.
    #[error(
        "the name of an object has 1 to 256 letters, digits, blanks and any of / ! - _ . * ' ( ) = @ +; that of a file of a \
         server has no parts that are empty or begin with a dot"
    )]
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
            (".", "./"),
            ("./", "./"),
            ("monday", "./monday/"),
            ("./monday/first/", "./monday/first/"),
        ] {
            let folder: Folder = text.parse().unwrap();
            assert_eq!(folder.to_string(), shown);
            assert_eq!(folder.object("c.txt").unwrap().to_string(), format!("{shown}c.txt"));
            assert_eq!(folder.folder(7).to_string(), format!("{shown}7/"));
            assert_eq!(shown.parse(), Ok(folder), "it is read as it is written");
        }
    }

    #[test]
    fn what_is_no_place_is_refused() {
        let long = format!("s3://fleet/{}", "a".repeat(512));
        for text in [
            "",
            "s3://",
            "s3://ab",
            "s3://Fleet",
            "https://fleet",
            "s3://fleet//a",
            "s3://fleet/../a",
            &long,
            "/",
            "//",
            "/etc",
            ".//etc",
            "..",
            "../a",
            "./..",
            "a/../b",
            "a/./b",
            "a//b",
            ".hidden",
            "a/.cvm",
            "a\0b",
            "a\nb",
            "a\\b",
            "~",
            &long[11..],
        ] {
            assert_eq!(text.parse::<Folder>(), Err(InvalidLocation::Folder), "{text}");
        }
        let folder: Folder = "s3://fleet/a".parse().unwrap();
        for name in ["", "/a", "a/../../b", "..", "a\nb", "ä", &long] {
            assert_eq!(folder.object(name), Err(InvalidLocation::Name), "{name}");
        }
        let folder: Folder = "a".parse().unwrap();
        for name in ["", "/a", "a//b", "a/", "../a", "a/..", ".cvm/id", "a/.b", "a\u{7}", &long[11..]] {
            assert_eq!(folder.object(name), Err(InvalidLocation::Name), "{name}");
        }
    }

    #[test]
    fn a_job_that_was_written_before_there_were_folders_is_read() {
        let path: ObjectPath = serde_json::from_str(r#"{"bucket": "fleet", "key": "a"}"#).unwrap();
        assert_eq!(path.to_string(), "s3://fleet/a");
    }
}
