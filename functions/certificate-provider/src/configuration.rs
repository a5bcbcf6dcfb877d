//! The function's environment, read and cross-checked once, at the start.

use std::num::NonZeroU16;

use cvm_authority::{CaCertificates, Profile};
use cvm_lambda::{Environment, InvalidEnvironment};
use cvm_provisioning::{ClientIds, DeviceIdFrom, RefusedKeys};

/// Everything the function is told by its environment.
#[derive(Debug)]
pub(crate) struct Configuration {
    /// `CA_CERTIFICATE_PEM`: the CA that signs, and those above it.
    pub(crate) certificates: CaCertificates,
    /// `CA_KEY_ARN`: where in AWS KMS the CA's private key is.
    pub(crate) key_id: String,
    /// `CERTIFICATE_DAYS`: how long certificates are valid. They end with the CA at the latest.
    pub(crate) profile: Profile,
    /// `REFUSED_KEYS`.
    pub(crate) refused_keys: RefusedKeys,
    /// `CLIENT_ID`: `serial` or `any`.
    pub(crate) client_ids: ClientIds,
    /// `CSR_DEVICE_ID_FROM`.
    pub(crate) device_id_from: DeviceIdFrom,
}

impl Configuration {
    pub(crate) fn read(environment: &Environment) -> Result<Self, InvalidEnvironment> {
        let client_ids = match environment.optional("CLIENT_ID") {
            None | Some("serial") => ClientIds::Serial,
            Some("any") => ClientIds::Any,
            Some(_) => {
                let (name, source) = ("CLIENT_ID".to_owned(), "it is serial or any".into());
                return Err(InvalidEnvironment::Unusable { name, source });
            }
        };
        Ok(Self {
            certificates: environment.parsed("CA_CERTIFICATE_PEM")?,
            key_id: environment.required("CA_KEY_ARN")?.to_owned(),
            profile: Profile::of_days(environment.parsed::<NonZeroU16>("CERTIFICATE_DAYS")?),
            refused_keys: environment.refused_keys()?,
            client_ids,
            device_id_from: environment.device_id_from()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cvm_authority::{Authority, AuthorityProfile, Curve, LocalSigner, Tier};
    use cvm_provisioning::{Certificate, Timestamp};

    use super::*;

    async fn pem(tier: Tier) -> String {
        let profile = AuthorityProfile {
            name: "CA".parse().unwrap(),
            organization: None,
            tier,
            validity: Duration::from_secs(9),
        };
        let now = Timestamp::from_seconds(1_800_000_000);
        let made = Authority::create(&profile, LocalSigner::generate(Curve::P256).unwrap(), now).await.unwrap();
        made.certificate().pem().to_owned()
    }

    fn read(certificate: &str, name: &str, value: &str) -> Result<Configuration, InvalidEnvironment> {
        let variables = [
            ("CA_CERTIFICATE_PEM", certificate),
            ("CA_KEY_ARN", "arn:aws:kms:eu-central-1:123456789012:key/1"),
            ("CERTIFICATE_DAYS", "365"),
            (name, value),
        ];
        let owned = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Configuration::read(&owned.into_iter().collect())
    }

    #[tokio::test]
    async fn the_chain_is_the_ca_and_those_above_it() {
        let (issuing, root) = (pem(Tier::Issuing).await, pem(Tier::Root).await);
        let CaCertificates { certificate, above, key } =
            read(&format!("{issuing}\n{root}"), "CLIENT_ID", "any").unwrap().certificates;
        assert_eq!(certificate.pem(), issuing);
        assert_eq!(key.fingerprint(), certificate.key());
        assert_eq!(above.iter().map(Certificate::pem).collect::<String>(), root);
    }

    #[tokio::test]
    async fn a_variable_that_is_missing_or_makes_no_sense_refuses_to_start() {
        let pem = pem(Tier::Issuing).await;
        assert!(read(&pem, "CLIENT_ID", "").is_ok());
        for (name, value) in [
            ("CA_CERTIFICATE_PEM", ""),
            ("CA_CERTIFICATE_PEM", "abc"),
            ("CA_KEY_ARN", ""),
            ("CERTIFICATE_DAYS", ""),
            ("CERTIFICATE_DAYS", "0"),
            ("CERTIFICATE_DAYS", "-1"),
            ("CLIENT_ID", "mac"),
            ("CSR_DEVICE_ID_FROM", "CN"),
            ("REFUSED_KEYS", "abc"),
        ] {
            assert!(read(&pem, name, value).is_err(), "{name}={value}");
        }
        assert!(read(&format!("{pem}x"), "CLIENT_ID", "").is_err());
    }
}
