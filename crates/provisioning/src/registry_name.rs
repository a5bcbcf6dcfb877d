//! The names that operators give to what stands beside a device.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A newtype for a name in the alphabet of a device id, or one of the `$reserved` names.
macro_rules! registry_name {
    ($(#[$doc:meta])* $name:ident, $what:literal $(, $reserved:literal)*) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidRegistryName;

            fn from_str(text: &str) -> Result<Self, InvalidRegistryName> {
                Self::try_from(text.to_owned())
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidRegistryName;

            fn try_from(text: String) -> Result<Self, InvalidRegistryName> {
                let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'_' | b'.' | b'-');
                const RESERVED: &[&str] = &[$($reserved),*];
                if !RESERVED.contains(&text.as_str())
                    && (!(1..=128).contains(&text.len()) || !text.bytes().all(allowed)) {
                    return Err(InvalidRegistryName { what: $what });
                }
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

registry_name!(
    /// The enrolment group, or the batch, that a device belongs to.
    GroupName,
    "group name"
);
registry_name!(
    /// The name of a module on its device. IoT Edge has two whose names begin with `$`.
    ModuleId,
    "module id",
    "$edgeAgent",
    "$edgeHub"
);
registry_name!(
    /// Who manages a module, such as `iotEdge`.
    ModuleManager,
    "manager's name"
);

/// A text is no such name. The text itself is never repeated: it is a stranger's.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a {what} is 1 to 128 of the characters A-Z a-z 0-9 : _ . -")]
pub struct InvalidRegistryName {
    what: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dollar_is_for_the_modules_of_iot_edge_alone() {
        for module in ["camera", "$edgeAgent", "$edgeHub"] {
            assert_eq!(module.parse::<ModuleId>().unwrap().as_str(), module);
        }
        for bad in ["$edge", "$edgeAgent ", "edge$Agent", ""] {
            assert!(bad.parse::<ModuleId>().is_err(), "{bad}");
        }
        assert!("$edgeHub".parse::<GroupName>().is_err());
    }
}
