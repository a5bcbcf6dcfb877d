use std::path::{Path, PathBuf};

use cvm_provisioning::{DeviceId, DeviceKey};

use super::VendError;
use super::answer::Answer;
use super::key::Key;
use crate::file::{self, FileError};

/// A device's files.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// The longest `device.json` that is read, in bytes: the longest answer.
    const MAX_DEVICE_FILE: usize = 256 * 1024;

    /// The folder at this path, made where it is not there, for nobody else to look into. One that has the files of
    /// another device is left alone.
    pub(super) fn open(path: PathBuf, device: &DeviceId) -> Result<Self, VendError> {
        file::private_folder(&path)?;
        let folder = Self(path);
        let file = folder.device();
        if file.exists() && folder.device_in_it()?.as_ref() != Some(device) {
            return Err(VendError::OtherDevice { path: file });
        }
        folder.complete_renewal()?;
        Ok(folder)
    }

    pub(super) const fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// The device that `device.json` names.
    pub(super) fn device_in_it(&self) -> Result<Option<DeviceId>, VendError> {
        Ok(device_in(&file::read_text(&self.device(), Self::MAX_DEVICE_FILE)?))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn private_key(&self) -> PathBuf {
        self.0.join("private.key")
    }

    pub(super) fn certificate(&self) -> PathBuf {
        self.0.join("certificate.pem")
    }

    pub(super) fn root_ca(&self) -> PathBuf {
        self.0.join("root-ca.pem")
    }

    pub(super) fn device(&self) -> PathBuf {
        self.0.join("device.json")
    }

    /// The key in this folder, made where there is none. It is on the disk when this returns.
    pub(super) fn own_key(&self, device: &DeviceId) -> Result<Key, VendError> {
        let path = self.private_key();
        if path.exists() {
            return Key::load(&path, device);
        }
        let (key, _) = DeviceKey::generate(device)?;
        match file::create(&path, key.pem()) {
            Ok(()) => Ok(Key::load(&path, device)?.just_made()),
            // Another run was faster, and its key is the device's.
            Err(FileError::Exists { .. }) => Key::load(&path, device),
            Err(error) => Err(error.into()),
        }
    }

    /// A key that is elsewhere, unless this folder has one that the certificate would not belong to.
    pub(super) fn with_key_elsewhere(&self, key: Key) -> Result<Key, VendError> {
        let own = self.private_key();
        let same = || Some(own.canonicalize().ok()? == key.path().canonicalize().ok()?);
        if own.exists() && same() != Some(true) {
            return Err(VendError::OtherKeyThere { path: own });
        }
        Ok(key)
    }

    /// Checks that there is no key yet. One made by the service is handed out once: asking for another after a while
    /// looks like a clone, and puts the device into quarantine.
    pub(super) fn has_no_key(&self) -> Result<(), VendError> {
        let path = self.private_key();
        if path.exists() { Err(VendError::KeyThere { path }) } else { Ok(()) }
    }

    /// Keeps an answer, and returns where the key is that goes with it. The only copy of a private key goes first.
    pub(super) fn keep(&self, answer: &Answer, key: Option<&Key>) -> Result<PathBuf, VendError> {
        let key_path = match (key, answer.private_key_pem()) {
            (Some(key), _) => key.path().to_owned(),
            (None, Some(pem)) => {
                file::create(&self.private_key(), pem)?;
                self.private_key()
            }
            (None, None) => return Err(VendError::KeyMissing),
        };
        file::replace(&self.certificate(), &answer.chain_pem())?;
        file::replace(&self.root_ca(), answer.root_ca().pem())?;
        file::replace(&self.device(), &device_file(answer))?;
        Ok(key_path)
    }
}

/// The text of `device.json`.
pub(super) fn device_file(answer: &Answer) -> String {
    format!("{:#}\n", serde_json::json!(answer.device_file()))
}

/// Whose `device.json` this is.
fn device_in(text: &str) -> Option<DeviceId> {
    let file: serde_json::Value = serde_json::from_str(text).ok()?;
    file.get("deviceId")?.as_str()?.parse().ok()
}
