use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

/// Where a request comes in, or which part of cvm acts by itself. The names are stored, logged and sent.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Door {
    /// The certificate provider, which AWS IoT calls to sign a CSR.
    CertificateProvider,
    /// The API for trusted users.
    Claim,
    /// The command `cvm`, on the registry itself.
    Command,
    /// The first connection of a device with its certificate.
    Confirm,
    /// Part of the server: what operators decided is applied.
    Enforcement,
    /// EST.
    Est,
    /// The pre-provisioning hook.
    Hook,
    /// Just-in-time registration.
    Jitr,
    /// An import, an export or another job.
    Job,
    /// What follows each change of the registry on AWS.
    Lifecycle,
    /// The reconciler.
    Reconcile,
    /// The registry API.
    Registry,
    /// Part of the server: certificates that were replaced end.
    Succession,
    /// The vending API.
    Vend,
    /// A door that this version does not know, in what a later version stored.
    Other,
}

impl Door {
    /// All doors, in the order of their names.
    pub const ALL: [Self; 15] = [
        Self::CertificateProvider,
        Self::Claim,
        Self::Confirm,
        Self::Command,
        Self::Enforcement,
        Self::Est,
        Self::Hook,
        Self::Jitr,
        Self::Job,
        Self::Lifecycle,
        Self::Other,
        Self::Reconcile,
        Self::Registry,
        Self::Succession,
        Self::Vend,
    ];

    /// The name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CertificateProvider => "certificate-provider",
            Self::Claim => "claim",
            Self::Command => "cvm",
            Self::Confirm => "confirm",
            Self::Enforcement => "enforcement",
            Self::Est => "est",
            Self::Hook => "hook",
            Self::Jitr => "jitr",
            Self::Job => "job",
            Self::Lifecycle => "lifecycle",
            Self::Other => "other",
            Self::Reconcile => "reconcile",
            Self::Registry => "registry",
            Self::Succession => "succession",
            Self::Vend => "vend",
        }
    }

    /// The door of this name; [`Door::Other`] for every other name.
    pub fn of_name(name: &str) -> Self {
        name.parse().unwrap_or(Self::Other)
    }
}

impl FromStr for Door {
    type Err = UnknownDoor;

    fn from_str(name: &str) -> Result<Self, UnknownDoor> {
        Self::ALL.into_iter().find(|door| door.name() == name).ok_or(UnknownDoor)
    }
}

/// A text is not the name of a door.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("unknown door: expected one of {}", Door::ALL.map(Door::name).join(", "))]
pub struct UnknownDoor;

impl Display for Door {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_schema_and_the_documentation_have_every_door() {
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../../../schemas/lifecycle-event.schema.json")).unwrap();
        let listed: Vec<_> = schema["properties"]["door"]["enum"].as_array().unwrap().iter().collect();
        let names = Door::ALL.map(Door::name);
        assert_eq!(listed, names);
        let page = include_str!("../../../docs/operations.md");
        for name in names {
            assert!(page.contains(&format!("| `{name}` |")), "docs/operations.md, Doors: {name}");
            assert_eq!(Door::of_name(name).name(), name);
        }
        assert_eq!(Door::of_name("vends"), Door::Other);
    }
}
