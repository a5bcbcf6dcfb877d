//! Files that operators may edit. The last line has a digest of the lines above, so that an edited file is known from one
//! that can be written again.

use std::io;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};

use crate::file::{self, FileError};

/// What became of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Written {
    /// It was missing.
    Created,
    /// It was edited, and differs from the text.
    Kept,
    /// It was not edited, and had another text.
    Rewritten,
    /// It has this text already.
    Unchanged,
}

/// The beginning of the last line, before the digest in hexadecimal digits.
const DIGEST: &str = "# cvm keeps this file if it was edited. SHA-256 of the lines above: ";

/// Writes this text, unless the file was edited. Mode 0600.
pub(super) fn write(path: &Path, text: &str) -> Result<Written, FileError> {
    let wanted = with_digest(text);
    match std::fs::read(path) {
        Ok(found) if found == wanted.as_bytes() => Ok(Written::Unchanged),
        Ok(found) if is_edited(&found) => Ok(Written::Kept),
        Ok(_) => file::replace(path, &wanted).map(|()| Written::Rewritten),
        Err(error) if error.kind() == io::ErrorKind::NotFound => file::create(path, &wanted).map(|()| Written::Created),
        Err(source) => Err(FileError::Read { path: path.to_owned(), source }),
    }
}

fn with_digest(text: &str) -> String {
    let digest: String = digest(&SHA256, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{text}{DIGEST}{digest}\n")
}

fn is_edited(file: &[u8]) -> bool {
    let text = str::from_utf8(file).ok().and_then(|file| file.rsplit_once(DIGEST));
    text.is_none_or(|(text, _)| with_digest(text).as_bytes() != file)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_rewritten_until_it_is_edited() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mosquitto.conf");
        let write = |text| write(&path, text).unwrap();
        assert_eq!(write("listener 8883\n"), Written::Created);
        assert_eq!(write("listener 8883\n"), Written::Unchanged);
        assert_eq!(write("listener 8884\n"), Written::Rewritten);
        let written = fs::read_to_string(&path).unwrap();
        assert!(written.starts_with("listener 8884\n# "), "{written}");
        let edits = [
            written.replace("8884", "1883"),
            format!("{written}listener 1883\n"),
            format!("\n{written}"),
            written.replace("edited", "changed"),
            "listener 1883\n".to_owned(),
            String::new(),
        ];
        for edited in edits {
            fs::write(&path, &edited).unwrap();
            assert_eq!(write("listener 8885\n"), Written::Kept, "{edited}");
            assert_eq!(fs::read_to_string(&path).unwrap(), edited);
        }
        fs::write(&path, b"\xff").unwrap();
        assert_eq!(write("listener 8885\n"), Written::Kept);
    }
}
