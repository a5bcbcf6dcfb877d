//! Which platform a database is of. Devices of another one would be taken for gone there, and what was decided about them
//! for done.

use cvm_provisioning::Cursors as _;
use cvm_sql::SqlRegistry;

use super::ServeError;
use super::enforcement::LIST_NUMBER;

/// The place in the registry that has the platform.
const PLATFORM: &str = "platform";

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
