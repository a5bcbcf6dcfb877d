use cvm_provisioning::{Certificate, KeyFingerprint};
use x509_parser::pem::parse_x509_pem;

use crate::{Authorities, SerialNumber, Signer};

/// What a certificate is to the CA that has signed it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Recognized {
    /// The key of that CA.
    pub issuer: KeyFingerprint,
    /// Its number there.
    pub serial_number: SerialNumber,
}

impl<S: Signer> Authorities<S> {
    /// Which of the CAs has signed this certificate, whoever had it do so; none where its signature is nobody's here, or its
    /// number is one that no list can have.
    pub fn recognize(&self, certificate: &Certificate) -> Option<Recognized> {
        let (_, block) = parse_x509_pem(certificate.pem().as_bytes()).ok()?;
        let brought = block.parse_x509().ok()?;
        let issuer = self.iter().find(|authority| {
            let Ok((_, block)) = parse_x509_pem(authority.certificate().pem().as_bytes()) else { return false };
            block.parse_x509().is_ok_and(|authority| {
                brought.issuer().as_raw() == authority.subject().as_raw()
                    && brought.verify_signature(Some(authority.public_key())).is_ok()
            })
        })?;
        let serial_number = SerialNumber::from_bytes(brought.raw_serial()).ok()?;
        Some(Recognized { issuer: *issuer.certificate().key(), serial_number })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cvm_provisioning::Timestamp;

    use super::*;
    use crate::testing::p256;
    use crate::{Authority, AuthorityProfile, Issued, LocalSigner, Profile, Tier};

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    async fn authority(name: &str) -> Authority<LocalSigner> {
        let profile = AuthorityProfile {
            name: name.parse().unwrap(),
            organization: None,
            tier: Tier::Issuing,
            validity: 100 * DAY,
        };
        Authority::create(&profile, p256(), NOW).await.unwrap()
    }

    async fn issue(authority: &Authority<LocalSigner>) -> Issued {
        authority.issue(&Profile::new(DAY), &"sn-0001".parse().unwrap(), p256().public_key(), NOW).await.unwrap()
    }

    #[tokio::test]
    async fn threat_40_what_any_of_the_cas_has_signed_is_known_by_its_signature() {
        let (earlier, current) = (authority("earlier").await, authority("current").await);
        let impostor = authority("current").await;
        let issued = [issue(&earlier).await, issue(&current).await];
        let forged = issue(&impostor).await;
        let other = issue(&authority("other").await).await;
        let authorities = Authorities::new(current, vec![earlier]).unwrap();
        for issued in issued {
            let expected = Recognized { issuer: *issued.issuer(), serial_number: issued.serial_number().clone() };
            assert_eq!(authorities.recognize(issued.certificate()), Some(expected));
        }
        for stranger in [forged.certificate(), other.certificate(), authorities.current().certificate()] {
            let is_root = stranger.id() == authorities.current().certificate().id();
            // A CA that has signed itself has signed that certificate, too.
            assert_eq!(authorities.recognize(stranger).is_some(), is_root, "{stranger:?}");
        }
    }
}
