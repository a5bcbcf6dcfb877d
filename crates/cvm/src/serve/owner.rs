//! Which platform, which account and which CA a database is of. Devices of another platform would be taken for gone there, and
//! what was decided about them for done; of another CA's certificates nothing could be revoked.

use cvm_provisioning::{Certificate, Cursors as _};
use cvm_sql::SqlRegistry;

use super::ServeError;
use super::enforcement::LIST_NUMBER;
use crate::own_ca::CaFolder;

/// The place in the registry that has the platform.
const PLATFORM: &str = "platform";
/// The place in the registry that has the address of the account at AWS IoT.
const ACCOUNT: &str = "account";
/// The place in the registry that has the key of the CA's root.
const AUTHORITY: &str = "authority";

/// Writes down that the registry is of this platform, and refuses one that is of another.
pub(super) async fn claim(registry: &SqlRegistry, platform: &str) -> Result<(), ServeError> {
    let found = match registry.place(PLATFORM).await? {
        Some(found) => Some(found),
        // Before there was another platform, nobody wrote down which it was; but each start made revocation lists.
        None => registry.place(LIST_NUMBER).await?.map(|_| "own".to_owned()),
    };
    match found {
        Some(found) if found != platform => Err(ServeError::OtherPlatform { found, wanted: platform.to_owned() }),
        _ => Ok(registry.move_to(PLATFORM, Some(platform)).await?),
    }
}

/// Writes down that the registry is of the account with this address of AWS IoT's, which each account has for itself in each
/// region (AWS IoT API reference, `DescribeEndpoint`), and refuses one that is of another.
pub(super) async fn claim_account(registry: &SqlRegistry, address: &str) -> Result<(), ServeError> {
    match registry.begin_at(ACCOUNT, address).await? {
        found if found == address => Ok(()),
        found => Err(ServeError::OtherAccount { found, wanted: address.to_owned() }),
    }
}

/// Refuses a registry that has no history, or an older one than the revocation lists that the CA has published: the registry was
/// lost, or put back alone, and new lists would make revoked certificates valid again. The number of a list is in the registry
/// before the list is published. `has_served` is whether the server has operators, whose first comes after the first lists:
/// their file may be lost, too. `accepted` is the number of the lists whose loss the operator accepts. A backup may have lists
/// that were made while it was copied.
pub(super) async fn expect_history(
    registry: &SqlRegistry,
    folder: &CaFolder,
    has_served: bool,
    accepted: Option<u64>,
    is_backup: bool,
) -> Result<(), ServeError> {
    let began = has_served && folder.issuing_path(1, "pem").exists();
    let Some(number) = folder.last_list_number().or_else(|| began.then_some(0)) else { return Ok(()) };
    let lists = folder.lists_path();
    let known = registry.place(LIST_NUMBER).await?;
    if known.is_none() && registry.place(AUTHORITY).await?.is_none() {
        if accepted != Some(number) {
            return Err(ServeError::LostRegistry { lists, number });
        }
        tracing::warn!(number, "the server starts with an empty registry: what the CA had revoked is valid again");
        return Ok(());
    }
    let known = known.and_then(|known| known.parse().ok()).unwrap_or_default();
    let number = folder.last_issuing_list_number();
    if known < number && !is_backup {
        if accepted != Some(number) {
            return Err(ServeError::OldRegistry { lists, number, known });
        }
        tracing::warn!(
            number,
            known,
            "the server starts with an older registry: what was revoked since is valid again"
        );
    }
    Ok(())
}

/// Refuses a registry that is of another CA than the one of this root, before one is made where there is none.
pub(super) async fn expect_authority(registry: &SqlRegistry, root: Option<&Certificate>) -> Result<(), ServeError> {
    match registry.place(AUTHORITY).await? {
        Some(of) => is_of(&of, root),
        None => Ok(()),
    }
}

/// Writes down that the registry is of the CA of this root, unless another server was there before.
pub(super) async fn claim_authority(registry: &SqlRegistry, root: &Certificate) -> Result<(), ServeError> {
    is_of(&registry.begin_at(AUTHORITY, &root.key().to_string()).await?, Some(root))
}

fn is_of(of: &str, root: Option<&Certificate>) -> Result<(), ServeError> {
    match root {
        Some(root) if root.key().to_string() == of => Ok(()),
        root => {
            Err(ServeError::OtherAuthority { expected: of.to_owned(), found: root.map(|root| root.key().to_string()) })
        }
    }
}

#[cfg(test)]
mod tests {
    use cvm_authority::{Authority, AuthorityProfile, Curve, LocalSigner, Tier};
    use cvm_provisioning::Timestamp;

    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    async fn root() -> Certificate {
        root_authority().await.certificate().clone()
    }

    async fn root_authority() -> Authority<LocalSigner> {
        let profile = AuthorityProfile {
            name: "root".parse().unwrap(),
            organization: None,
            tier: Tier::Root,
            validity: std::time::Duration::from_secs(3600),
        };
        let signer = LocalSigner::generate(Curve::P256).unwrap();
        Authority::create(&profile, signer, NOW).await.unwrap()
    }

    #[tokio::test]
    async fn a_registry_is_of_one_ca_for_good() {
        let folder = tempfile::tempdir().unwrap();
        let registry = SqlRegistry::in_folder(folder.path()).unwrap();
        let (first, other) = (root().await, root().await);
        // It is of nobody's CA yet, and so one may be made.
        expect_authority(&registry, None).await.unwrap();
        for _ in 0..2 {
            claim_authority(&registry, &first).await.unwrap();
            expect_authority(&registry, Some(&first)).await.unwrap();
        }
        for other in [None, Some(&other)] {
            let refused = expect_authority(&registry, other).await;
            assert!(matches!(refused, Err(ServeError::OtherAuthority { .. })), "{other:?}");
        }
        // One that began at the same moment, and is late.
        assert!(matches!(claim_authority(&registry, &other).await, Err(ServeError::OtherAuthority { .. })));
    }

    #[tokio::test]
    async fn threat_56_an_empty_or_older_registry_is_refused_for_a_ca_that_has_published_lists() {
        let folder = tempfile::tempdir().unwrap();
        let registry = SqlRegistry::in_folder(&folder.path().join("registry")).unwrap();
        let ca = CaFolder::of_data(folder.path());
        std::fs::create_dir(ca.path()).unwrap();
        // A CA that was prepared, and has not issued yet.
        std::fs::write(ca.root_certificate_path(), "").unwrap();
        std::fs::write(ca.issuing_path(1, "pem"), "").unwrap();
        // Its first start was cut off before there was an operator.
        expect_history(&registry, &ca, false, None, false).await.unwrap();
        let refused = expect_history(&registry, &ca, true, None, false).await.unwrap_err();
        assert!(matches!(refused, ServeError::LostRegistry { number: 0, .. }), "the lists were lost, too");
        expect_history(&registry, &ca, true, Some(0), false).await.unwrap();
        let list = root_authority().await.sign_crl([], 41, std::time::Duration::from_secs(60), NOW).await.unwrap();
        for (lists, number) in [(list.pem(), 41), ("torn", 0)] {
            std::fs::write(ca.lists_path(), lists).unwrap();
            for accepted in [None, Some(7)] {
                let refused = expect_history(&registry, &ca, true, accepted, false).await.unwrap_err();
                assert!(matches!(refused, ServeError::LostRegistry { number: found, .. } if found == number));
                let option = format!("--accept-lost-registry {number}");
                assert!(refused.advice().contains(&option), "{}", refused.advice());
            }
            expect_history(&registry, &ca, true, Some(number), false).await.unwrap();
        }
        std::fs::write(ca.lists_path(), list.pem()).unwrap();
        for (known, is_backup, accepted, is_refused) in [
            ("41", false, None, false),
            ("40", false, None, true),
            ("40", false, Some(40), true),
            ("40", false, Some(41), false),
            ("40", true, None, false),
        ] {
            registry.move_to(LIST_NUMBER, Some(known)).await.unwrap();
            let begun = expect_history(&registry, &ca, true, accepted, is_backup).await;
            let refused = matches!(begun, Err(ServeError::OldRegistry { number: 41, known: 40, .. }));
            assert_eq!((refused, begun.is_err()), (is_refused, is_refused), "{known} {is_backup} {accepted:?}");
        }
    }

    #[tokio::test]
    async fn a_registry_is_of_one_platform_for_good() {
        let folder = tempfile::tempdir().unwrap();
        let registry = SqlRegistry::in_folder(folder.path()).unwrap();
        claim(&registry, "aws eu-central-1").await.unwrap();
        claim(&registry, "aws eu-central-1").await.unwrap();
        for other in ["own", "aws eu-west-1"] {
            assert!(matches!(claim(&registry, other).await, Err(ServeError::OtherPlatform { .. })), "{other}");
        }
    }

    #[tokio::test]
    async fn a_registry_of_before_there_were_two_is_of_the_own_ca() {
        let folder = tempfile::tempdir().unwrap();
        let registry = SqlRegistry::in_folder(folder.path()).unwrap();
        registry.move_to(LIST_NUMBER, Some("7")).await.unwrap();
        assert!(matches!(claim(&registry, "aws eu-central-1").await, Err(ServeError::OtherPlatform { .. })));
        claim(&registry, "own").await.unwrap();
    }

    #[tokio::test]
    async fn a_registry_is_of_one_account_for_good() {
        let folder = tempfile::tempdir().unwrap();
        let registry = SqlRegistry::in_folder(folder.path()).unwrap();
        for _ in 0..2 {
            claim_account(&registry, "a1-ats.iot.eu-central-1.amazonaws.com").await.unwrap();
        }
        let refused = claim_account(&registry, "b2-ats.iot.eu-central-1.amazonaws.com").await.unwrap_err();
        assert!(matches!(&refused, ServeError::OtherAccount { found, .. } if found.starts_with("a1")), "{refused}");
        assert!(refused.advice().contains("credentials"), "{}", refused.advice());
    }
}
