use std::str::FromStr;

use cvm_provisioning::{CertificateId, ClaimStore};

use super::ClaimError;

/// A claim by the id of its certificate, or by the beginning of it, as `cvm claim list` has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ClaimName(String);

impl ClaimName {
    /// The digits of an id that are listed.
    pub(super) const LISTED: usize = 12;
    /// The fewest digits that name a claim.
    const MIN_LENGTH: usize = 8;
    const ID_LENGTH: usize = 64;

    /// The id. The registry is asked only where part of it is missing.
    pub(super) async fn id(&self, registry: &impl ClaimStore) -> Result<CertificateId, ClaimError> {
        if let Ok(id) = self.0.parse() {
            return Ok(id);
        }
        let claims = registry.claims().await?;
        let mut ids = claims.iter().map(|claim| claim.certificate).filter(|id| id.to_string().starts_with(&self.0));
        match (ids.next(), ids.next()) {
            (Some(id), None) => Ok(id),
            (None, _) => Err(ClaimError::NotFound { name: self.0.clone() }),
            (Some(_), Some(_)) => Err(ClaimError::Ambiguous { name: self.0.clone() }),
        }
    }
}

impl FromStr for ClaimName {
    type Err = InvalidClaimName;

    fn from_str(text: &str) -> Result<Self, InvalidClaimName> {
        let is_part = (Self::MIN_LENGTH..=Self::ID_LENGTH).contains(&text.len());
        if !is_part || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidClaimName);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

/// A word names no claim.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a claim is named by the 64 hexadecimal digits of its certificate's id, or by the first 8 of them or more")]
pub(super) struct InvalidClaimName;

#[cfg(test)]
mod tests {
    use cvm_provisioning::Claim;
    use cvm_testkit::MemoryRegistry;
    use cvm_testkit::fixture::NOW;

    use super::*;

    async fn found(registry: &MemoryRegistry, name: &str) -> Result<CertificateId, ClaimError> {
        name.parse::<ClaimName>().unwrap().id(registry).await
    }

    #[tokio::test]
    async fn a_claim_is_named_by_the_beginning_of_its_id_where_no_other_begins_so() {
        let registry = MemoryRegistry::default();
        let [one, twin, other] = ["0", "1", "f"].map(|digit| format!("{}{digit}", "ab".repeat(31) + "c"));
        for id in [&one, &twin] {
            assert!(registry.put_claim(&Claim::new(id.parse().unwrap(), NOW), None).await.unwrap());
        }
        assert!(matches!(found(&registry, &one[..63]).await, Err(ClaimError::Ambiguous { .. })));
        assert_eq!(found(&registry, &one.to_uppercase()).await.unwrap().to_string(), one);
        assert_eq!(found(&registry, &other).await.unwrap().to_string(), other, "a whole id is not looked up");
        assert!(matches!(found(&registry, "00000000").await, Err(ClaimError::NotFound { .. })));
        let last = CertificateId::of(b"claim");
        assert!(registry.put_claim(&Claim::new(last, NOW), None).await.unwrap());
        assert_eq!(found(&registry, &last.to_string()[..8]).await.unwrap(), last);
    }

    #[test]
    fn what_is_too_short_or_no_number_names_no_claim() {
        for bad in ["", "abcdef0", "abcdefg0", "claim.pem", &"a".repeat(65)] {
            assert_eq!(bad.parse::<ClaimName>(), Err(InvalidClaimName), "{bad:?}");
        }
    }
}
