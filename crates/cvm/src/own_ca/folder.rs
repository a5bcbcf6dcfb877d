use std::cmp::Reverse;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cvm_authority::{KeyFile, SerialNumber};
use cvm_provisioning::{Certificate, Timestamp};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{KeyPlace, OwnCaError, lists};
use crate::file::{self, FileError};

/// The folder of a server's CA: `root.pem`, and for each CA that issues `issuing.pem` or `issuing-N.pem`. Beside each
/// certificate there is its key or, in a file that ends with `.kms`, its name in AWS KMS, and for a CA that was rotated to,
/// since when it issues.
#[derive(Clone, Debug)]
pub(crate) struct CaFolder {
    path: PathBuf,
}

/// A CA that issues, has issued or will.
#[derive(Clone, Debug)]
pub(crate) struct IssuingCa {
    /// 1 for the first one, and one more for each that followed.
    pub(crate) number: u32,
    pub(crate) certificate: Certificate,
    /// `None` for the first one, which issues as soon as it is there.
    pub(crate) issues_from: Option<Timestamp>,
}

/// What a folder looks like from outside: another value says that there is something new in it.
pub(super) type Look = Vec<(PathBuf, Option<SystemTime>, u64)>;

/// The longest file of a certificate, in bytes.
const MAX_PEM: usize = 16 * 1024;
/// How the name of a file begins that is not renamed yet (`tempfile`).
const UNFINISHED: &str = ".tmp";
/// The longest that a rotation takes, and much more.
const ROTATION: Duration = Duration::from_secs(60 * 60);
/// The longest file with a moment, in bytes.
const MAX_MOMENT: usize = 64;

impl CaFolder {
    /// The one below the folder of a server.
    pub(crate) fn of_data(data: &Path) -> Self {
        Self { path: data.join("ca") }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn root_certificate_path(&self) -> PathBuf {
        self.path.join("root.pem")
    }

    pub(crate) fn root_key_path(&self) -> PathBuf {
        self.path.join("root.key")
    }

    /// What brokers trust: the certificates of all CAs.
    pub(crate) fn bundle_path(&self) -> PathBuf {
        self.path.join("ca.pem")
    }

    /// The revocation lists of all CAs.
    pub(crate) fn lists_path(&self) -> PathBuf {
        self.path.join("crl.pem")
    }

    /// The number of the revocation lists that were published last: the highest one, 0 for a file that cannot be read, and
    /// `None` if there were none.
    pub(crate) fn last_list_number(&self) -> Option<u64> {
        let path = self.lists_path();
        if !path.exists() {
            return None;
        }
        let lists = lists::read(&path).unwrap_or_default();
        Some(lists.into_iter().map(|list| list.number).max().unwrap_or_default())
    }

    /// The number of the issuing CAs' revocation lists that were published last, 0 if there are none. The root's list has numbers
    /// of its own.
    pub(crate) fn last_issuing_list_number(&self) -> u64 {
        let root = self.root().ok().flatten().map(|root| root.der());
        let root = root.as_deref().and_then(|der| X509Certificate::from_der(der).ok());
        let root = root.map(|(_, root)| root.subject().as_raw().to_vec());
        let lists = lists::read(&self.lists_path()).unwrap_or_default();
        let of_issuing = lists.into_iter().filter(|list| Some(&list.issuer) != root.as_ref());
        of_issuing.map(|list| list.number).max().unwrap_or_default()
    }

    /// The root's own revocation list, which has to last where its key is not at hand.
    pub(crate) fn root_list_path(&self) -> PathBuf {
        self.path.join("root-crl.pem")
    }

    /// The copies of the certificates that servers were issued.
    pub(crate) fn server_certificates_path(&self) -> PathBuf {
        self.path.join("servers")
    }

    /// The copy of the one with this serial number.
    pub(super) fn server_certificate_path(&self, serial_number: &SerialNumber) -> PathBuf {
        self.server_certificates_path().join(format!("{serial_number}.pem"))
    }

    /// `issuing.pem`, `issuing-2.pem`, …, and the keys and moments that belong to them.
    pub(crate) fn issuing_path(&self, number: u32, extension: &str) -> PathBuf {
        match number {
            0 | 1 => self.path.join(format!("issuing.{extension}")),
            number => self.path.join(format!("issuing-{number}.{extension}")),
        }
    }

    /// Where the key of the root is; `None` where it is elsewhere.
    pub(crate) fn root_key(&self) -> Result<Option<KeyPlace>, OwnCaError> {
        KeyPlace::beside(&self.root_key_path())
    }

    pub(crate) fn issuing_key(&self, number: u32) -> KeyFile {
        KeyFile::new(self.issuing_path(number, "key"))
    }

    /// The root's certificate, if it was made.
    pub(crate) fn root(&self) -> Result<Option<Certificate>, OwnCaError> {
        certificate(&self.root_certificate_path())
    }

    /// The CAs that issue, have issued or will, the first one first.
    pub(crate) fn issuing(&self) -> Result<Vec<IssuingCa>, OwnCaError> {
        let mut found = Vec::new();
        for number in self.numbers(&["pem"])? {
            let Some(certificate) = certificate(&self.issuing_path(number, "pem"))? else { continue };
            found.push(IssuingCa { number, certificate, issues_from: moment(&self.issuing_path(number, "from"))? });
        }
        Ok(found)
    }

    /// Writes the certificates of all CAs that have not ended to the file that brokers read, and returns them. The root is
    /// first, because some programs read only the first certificate of a file; the CA that issues follows.
    pub(crate) fn publish(&self, now: Timestamp) -> Result<String, OwnCaError> {
        let mut all = self.issuing()?;
        all.retain(|ca| !ca.has_ended(now));
        let current = current(&all, now);
        all.sort_by_key(|ca| (Some(ca.number) != current, Reverse(ca.number)));
        let certificates = self.root()?.into_iter().chain(all.into_iter().map(|ca| ca.certificate));
        let bundle: String = certificates.map(|certificate| certificate.pem().to_owned()).collect();
        file::replace(&self.bundle_path(), &bundle)?;
        Ok(bundle)
    }

    /// A number that no file has, not even one that an interrupted rotation has left.
    pub(crate) fn next_number(&self) -> Result<u32, OwnCaError> {
        Ok(self.numbers(&["pem", "key", "kms", "from"])?.last().map_or(1, |last| last + 1))
    }

    /// Removes what rotations left that were killed an hour ago or earlier: unfinished files, and the keys of CAs that never got
    /// a certificate. A number below that of a certificate is left alone: its certificate was there once.
    pub(super) fn remove_leftovers(&self, now: SystemTime) -> Result<(), OwnCaError> {
        let last = self.numbers(&["pem"])?.last().copied().unwrap_or(1);
        let begun = self.numbers(&["key", "kms", "from"])?.into_iter().filter(|number| *number > last);
        let of_begun = begun.flat_map(|number| ["key", "kms", "from"].map(|kind| self.issuing_path(number, kind)));
        let unfinished = self.files()?.into_iter().filter(|path| {
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(UNFINISHED.as_bytes()))
        });
        for path in of_begun.chain(unfinished) {
            let written = fs::metadata(&path).and_then(|facts| facts.modified());
            let is_old = written.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > ROTATION));
            if is_old {
                tracing::info!(path = %path.display(), "removed what a killed rotation left");
                fs::remove_file(&path).map_err(|source| FileError::Write { path, source })?;
            }
        }
        Ok(())
    }

    /// The numbers in the names of files with these extensions, each once, in order.
    fn numbers(&self, extensions: &[&str]) -> Result<Vec<u32>, OwnCaError> {
        let mut numbers: Vec<u32> = self
            .files()?
            .iter()
            .filter(|path| path.extension().is_some_and(|found| extensions.iter().any(|wanted| found == *wanted)))
            .filter_map(|path| match path.file_stem()?.to_str()? {
                "issuing" => Some(1),
                // What is written in another way than we do, such as issuing-02, is somebody's copy.
                stem => stem
                    .strip_prefix("issuing-")?
                    .parse()
                    .ok()
                    .filter(|number| (2..u32::MAX).contains(number) && stem == format!("issuing-{number}")),
            })
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        Ok(numbers)
    }

    /// The certificates, keys and moments, and when each was changed.
    pub(super) fn look(&self) -> Result<Look, OwnCaError> {
        let written = [self.bundle_path(), self.lists_path(), self.root_list_path()];
        let mut look = Look::new();
        for path in self.files()? {
            // A file that is being made has another name yet, and may be gone by now.
            let is_ours = path
                .extension()
                .is_some_and(|extension| ["pem", "key", "kms", "from"].iter().any(|own| extension == *own));
            if !is_ours || written.contains(&path) {
                continue;
            }
            let Ok(facts) = fs::metadata(&path) else { continue };
            look.push((path, facts.modified().ok(), facts.len()));
        }
        look.sort();
        Ok(look)
    }

    fn files(&self) -> Result<Vec<PathBuf>, OwnCaError> {
        let failed = |source| FileError::Read { path: self.path.clone(), source };
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error).into()),
        };
        let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>();
        Ok(paths.map_err(failed)?)
    }
}

impl IssuingCa {
    /// Whether it may issue at this time, as far as its own moments go.
    pub(crate) fn has_begun(&self, now: Timestamp) -> bool {
        self.issues_from.is_none_or(|from| from <= now)
    }

    pub(crate) fn has_ended(&self, now: Timestamp) -> bool {
        Timestamp::from(self.certificate.not_after()) < now
    }
}

/// Which of them issues at this time: the latest that has begun.
pub(crate) fn current(all: &[IssuingCa], now: Timestamp) -> Option<u32> {
    all.iter().rev().find(|ca| ca.has_begun(now) && !ca.has_ended(now)).map(|ca| ca.number)
}

/// Writes since when a CA issues.
pub(super) fn write_moment(path: &Path, moment: Timestamp) -> Result<(), OwnCaError> {
    Ok(file::create(path, &format!("{moment}\n"))?)
}

fn moment(path: &Path) -> Result<Option<Timestamp>, OwnCaError> {
    if !path.exists() {
        return Ok(None);
    }
    let text = file::read_text(path, MAX_MOMENT)?;
    let moment = OffsetDateTime::parse(text.trim(), &Rfc3339);
    moment.map(|moment| Some(moment.into())).map_err(|_| OwnCaError::Moment { path: path.to_owned() })
}

fn certificate(path: &Path) -> Result<Option<Certificate>, OwnCaError> {
    if !path.exists() {
        return Ok(None);
    }
    let text = file::read_text(path, MAX_PEM)?;
    let certificate = Certificate::parse(&text);
    certificate.map(Some).map_err(|source| OwnCaError::Certificate { path: path.to_owned(), source })
}
