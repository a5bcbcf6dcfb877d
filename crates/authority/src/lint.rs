//! What was made, taken apart and compared with what it was to say, before anybody gets it.

use cvm_provisioning::PublicKey;
use pkcs8::ObjectIdentifier;
use x509_parser::certificate::X509Certificate;
use x509_parser::x509::{AlgorithmIdentifier, X509Version};

use crate::contents::{Contents, Extension};
use crate::{SerialNumber, SignatureAlgorithm};

/// Who signs, and how that shows in what is signed.
#[derive(Clone, Copy)]
pub(crate) struct Signatory<'a> {
    pub(crate) algorithm: SignatureAlgorithm,
    pub(crate) key: &'a PublicKey,
    /// Its name in DER.
    pub(crate) name: &'a [u8],
    /// The identifier of its key, which a certificate that it signs for itself need not have.
    pub(crate) key_identifier: Option<&'a [u8]>,
    /// Whether its signatures are checked before anybody gets them, which takes several times as long as to make them.
    /// A key in this process was seen to be the CA's, and the library that signs with it has nobody to trust but itself.
    pub(crate) is_checked: bool,
}

/// Checks every part of a certificate: all that it says, that it says nothing else, and the signature over it, unless its
/// signatory is not checked.
pub(crate) fn certificate(
    der: &[u8],
    contents: &Contents<'_>,
    key: &PublicKey,
    signatory: Signatory<'_>,
) -> Result<(), Defect> {
    let (rest, certificate) = x509_parser::parse_x509_certificate(der).map_err(|_| Defect::Encoding)?;
    if !rest.is_empty() {
        return Err(Defect::Encoding);
    }
    let signed = &certificate.tbs_certificate;
    let validity = &contents.validity;
    let rules = [
        (signed.version == X509Version::V3 && no_unique_identifier(&certificate), Defect::Version),
        (SerialNumber::from_bytes(signed.raw_serial()).as_ref() == Ok(&contents.serial_number), Defect::SerialNumber),
        (signed.issuer.as_raw() == signatory.name, Defect::Issuer),
        (signed.subject.as_raw() == contents.subject(), Defect::Subject),
        (
            signed.validity.not_before.timestamp() == validity.not_before.seconds()
                && signed.validity.not_after.timestamp() == validity.not_after.seconds(),
            Defect::Validity,
        ),
        (signed.subject_pki.raw == key.spki(), Defect::Key),
        // Octets, all of whose bits count.
        (certificate.signature_value.unused_bits == 0, Defect::Encoding),
        (extensions(&certificate) == Some(contents.extensions(key, signatory.key_identifier)), Defect::Extensions),
    ];
    rules.into_iter().try_for_each(|(holds, defect)| if holds { Ok(()) } else { Err(defect) })?;
    signature(
        signatory,
        [&signed.signature, &certificate.signature_algorithm],
        signed.as_ref(),
        &certificate.signature_value.data,
    )
}

/// Checks the signature, and that both names of its algorithm are the right one, with the right parameters.
pub(crate) fn signature(
    signatory: Signatory<'_>,
    names: [&AlgorithmIdentifier<'_>; 2],
    signed: &[u8],
    signature: &[u8],
) -> Result<(), Defect> {
    let is_rsa = signatory.algorithm == SignatureAlgorithm::RsaSha256;
    let is_named = names.into_iter().all(|name| {
        name.algorithm.as_bytes() == signatory.algorithm.object_identifier().as_bytes()
            && match &name.parameters {
                // NULL for RSA (RFC 4055 section 5), nothing for ECDSA (RFC 5758 section 3.2).
                Some(parameters) => is_rsa && parameters.as_null().is_ok(),
                None => !is_rsa,
            }
    });
    if !is_named {
        return Err(Defect::SignatureAlgorithm);
    }
    if signatory.is_checked && !signatory.algorithm.verifies(signatory.key, signed, signature) {
        return Err(Defect::Signature);
    }
    Ok(())
}

fn no_unique_identifier(certificate: &X509Certificate<'_>) -> bool {
    certificate.issuer_uid.is_none() && certificate.subject_uid.is_none()
}

/// Those that it has, or none if one has a name that none of ours could be.
fn extensions(certificate: &X509Certificate<'_>) -> Option<Vec<Extension>> {
    let extension = |extension: &x509_parser::extensions::X509Extension<'_>| {
        let object_identifier = ObjectIdentifier::from_bytes(extension.oid.as_bytes()).ok()?;
        Some(Extension { object_identifier, is_critical: extension.critical, value: extension.value.to_vec() })
    };
    let mut extensions = certificate.extensions().iter().map(extension).collect::<Option<Vec<_>>>()?;
    extensions.sort();
    Some(extensions)
}

/// What is not as it was to be. Each is a defect of this program or of the key that signed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Defect {
    /// It cannot be read to the last byte.
    #[error("it cannot be read")]
    Encoding,
    /// A revocation list lists something else.
    #[error("it does not list what is revoked, or something else")]
    Entries,
    /// There are others than the profile has, or with other values.
    #[error("its extensions are not those of the profile")]
    Extensions,
    /// It names another issuer, or in other bytes.
    #[error("it names another issuer than the CA")]
    Issuer,
    /// It certifies another key.
    #[error("it certifies another key")]
    Key,
    /// It has another number.
    #[error("it has another serial number, or one that is not allowed")]
    SerialNumber,
    /// The signature is wrong.
    #[error("its signature is not that of the CA's key: check that the key that signs is the one of the certificate")]
    Signature,
    /// The signature is of another kind than the key's.
    #[error("it names another signature algorithm than the one of the CA's key")]
    SignatureAlgorithm,
    /// It names another subject.
    #[error("it names another subject")]
    Subject,
    /// It is valid at other times.
    #[error("its times are not those of the profile")]
    Validity,
    /// It has another version, or fields that went out of use with version 3.
    #[error("it has another version than was asked for")]
    Version,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cvm_provisioning::Timestamp;
    use rcgen::{
        BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod,
        KeyUsagePurpose, SanType, SubjectPublicKeyInfo,
    };

    use super::*;
    use crate::contents::{Purpose, Validity};
    use crate::revocation_address::{Addresses, INFORMATION_ACCESS};
    use crate::testing::p256;
    use crate::{Authority, AuthorityProfile, LocalSigner, Signer, Tier};

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    async fn authority() -> Authority<LocalSigner> {
        let profile = AuthorityProfile {
            name: "Issuing CA".parse().unwrap(),
            organization: None,
            tier: Tier::Issuing,
            validity: Duration::from_secs(1_000_000),
        };
        Authority::create(&profile, p256(), NOW).await.unwrap()
    }

    /// The CA as one whose key is elsewhere.
    fn doubted(authority: &Authority<LocalSigner>) -> Signatory<'_> {
        Signatory { is_checked: true, ..authority.signatory() }
    }

    fn contents() -> Contents<'static> {
        Contents {
            organization: None,
            common_name: "sn-0001",
            purpose: Purpose::Client {
                uri: Some("urn:example:sn-0001".to_owned()),
                addresses: Some(Addresses {
                    crl: "http://example.org/crl".to_owned(),
                    ocsp: "http://example.org/ocsp".to_owned(),
                    ca: "http://example.org/ca".to_owned(),
                }),
            },
            serial_number: SerialNumber::random(NOW).unwrap(),
            validity: Validity::from_now(Duration::from_secs(1000), NOW),
        }
    }

    /// What the lint says of a certificate that was made with this change.
    async fn changed(change: impl FnOnce(&mut CertificateParams)) -> Result<(), Defect> {
        let (authority, key, contents) = (authority().await, p256(), contents());
        let mut params = contents.params().unwrap();
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let key = key.public_key();
        let info = SubjectPublicKeyInfo::from_der(key.spki()).unwrap();
        let signed = authority.sign(|issuer| params.signed_by(&info, issuer));
        certificate(signed.await.unwrap().der(), &contents, key, authority.signatory())
    }

    #[tokio::test]
    async fn threat_16_a_certificate_that_says_anything_else_is_not_handed_out() {
        assert_eq!(changed(|_| ()).await, Ok(()));
        assert_eq!(changed(|params| params.serial_number = Some(1_u64.into())).await, Err(Defect::SerialNumber));
        assert_eq!(changed(|params| params.not_after += time::Duration::SECOND).await, Err(Defect::Validity));
        assert_eq!(changed(|params| params.not_before -= time::Duration::SECOND).await, Err(Defect::Validity));
        let subject = changed(|params| params.distinguished_name.push(rcgen::DnType::CommonName, "sn-0002"));
        assert_eq!(subject.await, Err(Defect::Subject));
        let subject = changed(|params| params.distinguished_name.push(rcgen::DnType::CountryName, "DE"));
        assert_eq!(subject.await, Err(Defect::Subject));
    }

    #[tokio::test]
    async fn threat_16_an_extension_more_or_less_or_other_is_found() {
        type Change = fn(&mut CertificateParams);
        let changes: [Change; 17] = [
            |params| params.is_ca = IsCa::NoCa,
            |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
            |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)),
            |params| params.key_usages.clear(),
            |params| params.key_usages.push(KeyUsagePurpose::KeyCertSign),
            |params| params.key_usages.push(KeyUsagePurpose::KeyEncipherment),
            |params| params.extended_key_usages.clear(),
            |params| params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth),
            |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any],
            |params| params.subject_alt_names.clear(),
            |params| params.subject_alt_names.push(SanType::DnsName("example.org".try_into().unwrap())),
            |params| params.crl_distribution_points[0].uris.push("http://example.com/crl".to_owned()),
            |params| params.custom_extensions.clear(),
            |params| {
                let access = CustomExtension::from_oid_content(INFORMATION_ACCESS, vec![0x30, 0]);
                params.custom_extensions = vec![access];
            },
            |params| params.use_authority_key_identifier_extension = false,
            |params| params.key_identifier_method = KeyIdMethod::Sha384,
            |params| {
                params.custom_extensions.push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 1], vec![5, 0]));
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            assert_eq!(changed(change).await, Err(Defect::Extensions), "change {number}");
        }
    }

    #[tokio::test]
    async fn a_certificate_of_another_issuer_or_key_is_not_handed_out() {
        let (authority, other, contents, key) = (authority().await, authority().await, contents(), p256());
        let made = authority.certify(&contents, key.public_key()).await.unwrap();
        let (_, block) = x509_parser::pem::parse_x509_pem(made.pem().as_bytes()).unwrap();
        let lint = |der: &[u8], key: &LocalSigner, signatory: Signatory<'_>| {
            certificate(der, &contents, key.public_key(), signatory)
        };
        let der = block.contents;
        assert_eq!(lint(&der, &key, doubted(&authority)), Ok(()));
        assert_eq!(lint(&der, &p256(), doubted(&authority)), Err(Defect::Key));
        assert_eq!(lint(&der, &key, doubted(&other)), Err(Defect::Extensions), "the issuer's key identifier");
        let stolen = Signatory { key: other.signer().public_key(), ..doubted(&authority) };
        assert_eq!(lint(&der, &key, stolen), Err(Defect::Signature));
        assert_eq!(lint(&der, &key, Signatory { name: &[0x30, 0], ..doubted(&authority) }), Err(Defect::Issuer));
        let algorithm = SignatureAlgorithm::EcdsaSha384;
        let other = Signatory { algorithm, ..doubted(&authority) };
        assert_eq!(lint(&der, &key, other), Err(Defect::SignatureAlgorithm));
        assert_eq!(lint(&[&der[..], &[0]].concat(), &key, doubted(&authority)), Err(Defect::Encoding));
        // Version 3 is encoded as 2.
        let version = der.windows(5).position(|bytes| bytes == [0xa0, 3, 2, 1, 2]).unwrap() + 4;
        let mut older = der.clone();
        older[version] = 1;
        assert_eq!(lint(&older, &key, doubted(&authority)), Err(Defect::Version));
        for position in (0..der.len()).step_by(7) {
            let mut damaged = der.clone();
            damaged[position] ^= 1;
            assert!(lint(&damaged, &key, doubted(&authority)).is_err(), "octet {position}");
        }
    }
}
