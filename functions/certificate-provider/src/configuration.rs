//! The function's environment, read and cross-checked once, at the start.

use std::time::Duration;

use cvm_authority::{Profile, public_key};
use cvm_lambda::{Environment, InvalidEnvironment};
use cvm_provisioning::{Certificate, ClientIds, PublicKey, RefusedKeys};

/// Everything the function is told by its environment.
#[derive(Debug)]
pub(crate) struct Configuration {
    /// `CA_CERTIFICATE_PEM`: the CA that signs.
    pub(crate) authority: Certificate,
    /// The certificates behind it in `CA_CERTIFICATE_PEM`, each of which has signed the one before.
    pub(crate) above: Vec<Certificate>,
    /// The key in the CA's certificate.
    pub(crate) key: PublicKey,
    /// `CA_KEY_ARN`: where in AWS KMS its private half is.
    pub(crate) key_id: String,
    /// `CERTIFICATE_DAYS`: how long certificates are valid. They end with the CA at the latest.
    pub(crate) profile: Profile,
    /// `REFUSED_KEYS`.
    pub(crate) refused_keys: RefusedKeys,
    /// `CLIENT_ID`: `serial` or `any`.
    pub(crate) client_ids: ClientIds,
}

impl Configuration {
    pub(crate) fn read(environment: &Environment) -> Result<Self, InvalidEnvironment> {
        let mut chain = chain(environment.required(CERTIFICATE)?)?.into_iter();
        let authority = chain.next().ok_or_else(|| unusable(CERTIFICATE, "it holds no certificate"))?;
        let key = public_key(&authority).map_err(|error| unusable(CERTIFICATE, error))?;
        let days: u16 = environment.parsed("CERTIFICATE_DAYS")?;
        if days == 0 {
            return Err(unusable("CERTIFICATE_DAYS", "it is 1 or more"));
        }
        let client_ids = match environment.optional("CLIENT_ID") {
            None | Some("serial") => ClientIds::Serial,
            Some("any") => ClientIds::Any,
            Some(_) => return Err(unusable("CLIENT_ID", "it is serial or any")),
        };
        Ok(Self {
            authority,
            above: chain.collect(),
            key,
            key_id: environment.required("CA_KEY_ARN")?.to_owned(),
            profile: Profile::new(Duration::from_secs(24 * 60 * 60 * u64::from(days))).at_least(Duration::ZERO),
            refused_keys: environment.refused_keys()?,
            client_ids,
        })
    }
}

const CERTIFICATE: &str = "CA_CERTIFICATE_PEM";
const END: &str = "-----END CERTIFICATE-----";

/// The certificates, one behind the other.
fn chain(text: &str) -> Result<Vec<Certificate>, InvalidEnvironment> {
    let blocks = text.split_inclusive(END).filter(|block| !block.trim().is_empty());
    blocks.map(Certificate::parse).collect::<Result<_, _>>().map_err(|error| unusable(CERTIFICATE, error))
}

fn unusable(name: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> InvalidEnvironment {
    InvalidEnvironment::Unusable { name: name.to_owned(), source: source.into() }
}

#[cfg(test)]
mod tests {
    use cvm_authority::{Authority, AuthorityProfile, Curve, LocalSigner, Tier};
    use cvm_provisioning::Timestamp;

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
        let configuration = read(&format!("{issuing}\n{root}"), "CLIENT_ID", "any").unwrap();
        assert_eq!(configuration.authority.pem(), issuing);
        assert_eq!(configuration.key.fingerprint(), configuration.authority.key());
        assert_eq!(configuration.above.iter().map(Certificate::pem).collect::<String>(), root);
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
            ("REFUSED_KEYS", "abc"),
        ] {
            assert!(read(&pem, name, value).is_err(), "{name}={value}");
        }
        assert!(read(&format!("{pem}x"), "CLIENT_ID", "").is_err());
    }
}
