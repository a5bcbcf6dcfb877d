//! `cvm vend --renew`: the next certificate of a device, for which the certificate that it has is the proof.
//!
//! Make before break: the new files are written beside the old ones, each named `NAME.next`, and take their places when all
//! of them are on the disk. The next run completes a renewal that was interrupted in between.

use std::fs;
use std::path::{Path, PathBuf};

use cvm_provisioning::{DeviceId, DeviceKey};
use reqwest::Identity;

use super::VendError;
use super::answer::Answer;
use super::folder::{Folder, device_file};
use super::key::Key;
use crate::file::{self, FileError};

/// The longest file of a certificate or a key that is read, in bytes: a certificate with its chain.
const MAX_FILE: usize = 64 * 1024;

impl Folder {
    /// The folder of a device that has its certificate, with the device's id.
    pub(super) fn of_vended(path: PathBuf) -> Result<(Self, DeviceId), VendError> {
        let folder = Self::at(path);
        let file = folder.device();
        let device = folder.device_in_it()?.ok_or(VendError::NoDevice { path: file })?;
        Ok((folder, device))
    }

    /// Takes the new files of an interrupted renewal into use. Returns whether there were any.
    ///
    /// The new certificate is written last and renamed last: where it is there, the other new files are on the disk, too.
    pub(super) fn complete_renewal(&self) -> Result<bool, VendError> {
        if !next(&self.certificate()).exists() {
            return Ok(false);
        }
        for path in [self.private_key(), self.root_ca(), self.device(), self.certificate()] {
            match fs::rename(next(&path), &path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(FileError::Write { path, source: error }.into());
                }
                // Not there: the key is kept, or an earlier run has renamed the file.
                _ => {}
            }
        }
        file::sync_folder(self.path())?;
        Ok(true)
    }

    /// The key to renew with: one that an earlier try has made, else a new one. It is on the disk when this returns.
    pub(super) fn next_key(&self, device: &DeviceId) -> Result<Key, VendError> {
        let path = next(&self.private_key());
        if path.exists() {
            return Key::load(&path, device);
        }
        let (key, _) = DeviceKey::generate(device)?;
        file::create(&path, key.pem())?;
        Ok(Key::load(&path, device)?.just_made())
    }

    /// The certificate in this folder and its key, to be presented in TLS.
    pub(super) fn identity(&self, key: &Path) -> Result<Identity, VendError> {
        let path = self.certificate();
        let pem = format!("{}\n{}", file::read_text(&path, MAX_FILE)?, file::read_text(key, MAX_FILE)?);
        Identity::from_pem(pem.as_bytes()).map_err(|source| VendError::Identity { path, source })
    }

    /// Puts the answer to a renewal in the place of the files that are there.
    pub(super) fn keep_renewed(&self, answer: &Answer) -> Result<(), VendError> {
        file::replace(&next(&self.root_ca()), answer.root_ca().pem())?;
        file::replace(&next(&self.device()), &device_file(answer))?;
        file::sync_folder(self.path())?;
        file::replace(&next(&self.certificate()), &answer.chain_pem())?;
        file::sync_folder(self.path())?;
        self.complete_renewal().map(drop)
    }
}

/// Where a new file waits until it takes the place of this one.
fn next(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".next");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_renewal_is_completed_wherever_it_was_interrupted() {
        const NAMES: [&str; 4] = ["private.key", "root-ca.pem", "device.json", "certificate.pem"];
        let device: DeviceId = "sn-0001".parse().unwrap();
        // So many files have been renamed when the interruption comes.
        for renamed in 0..NAMES.len() {
            let data = tempfile::tempdir().unwrap();
            for (number, name) in NAMES.iter().enumerate() {
                let path = data.path().join(name);
                fs::write(&path, if number < renamed { "new" } else { "old" }).unwrap();
                if number >= renamed {
                    fs::write(next(&path), "new").unwrap();
                }
            }
            let folder = Folder::at(data.path().to_owned());
            assert!(folder.complete_renewal().unwrap(), "{renamed}");
            for name in NAMES {
                assert_eq!(fs::read_to_string(data.path().join(name)).unwrap(), "new", "{renamed} {name}");
            }
            assert!(!folder.complete_renewal().unwrap());
            assert_eq!(fs::read_dir(data.path()).unwrap().count(), NAMES.len());
            let made = folder.next_key(&device).unwrap();
            assert_eq!(
                made.csr().key().fingerprint(),
                folder.next_key(&device).unwrap().csr().key().fingerprint(),
                "a lost answer loses no key"
            );
        }
    }

    #[test]
    fn without_a_whole_answer_the_files_stay_as_they_are() {
        let data = tempfile::tempdir().unwrap();
        for name in ["private.key", "certificate.pem"] {
            fs::write(data.path().join(name), "old").unwrap();
        }
        for name in ["private.key.next", "root-ca.pem.next"] {
            fs::write(data.path().join(name), "new").unwrap();
        }
        assert!(!Folder::at(data.path().to_owned()).complete_renewal().unwrap());
        assert_eq!(fs::read_to_string(data.path().join("private.key")).unwrap(), "old");
    }
}
