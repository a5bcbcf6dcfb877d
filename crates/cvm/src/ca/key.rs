use std::path::Path;

use cvm_authority::{KeyFile, KeyFileError, LocalSigner};
use zeroize::Zeroizing;

use super::authority::AuthorityError;
use crate::ca_key::CaKey;
use crate::file;
use crate::own_ca::KeyPlace;

/// The key in this file, on stdin for `-`, or with `kms:` before its id, ARN or alias in AWS KMS.
pub(super) async fn open(place: &Path) -> Result<CaKey, AuthorityError> {
    if place == Path::new("-") {
        let text = Zeroizing::new(file::read_text(place, LocalSigner::MAX_TEXT)?);
        let signer = LocalSigner::from_pem(&text, None);
        return Ok(signer.map_err(|source| KeyFileError::Key { path: place.to_owned(), source })?.into());
    }
    match KeyPlace::named(place) {
        KeyPlace::Kms(name) => Ok(CaKey::of_kms(&name).await?),
        KeyPlace::File(path) => Ok(KeyFile::new(path).read(None)?.into()),
    }
}
