//! The names a template gives, each parsed against the pattern of the AWS IoT API reference.

use std::fmt;

/// Why a text is no name of its kind. The text itself is never repeated: it can come from a device.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// A character outside the alphabet.
    #[error("{kind} is made of the characters {alphabet} only")]
    Character {
        /// What the text was to be.
        kind: &'static str,
        /// The characters it may have.
        alphabet: &'static str,
    },
    /// Too short or too long.
    #[error("{kind} has {min} to {max} characters, this one has {length}")]
    Length {
        /// What the text was to be.
        kind: &'static str,
        /// The shortest there is.
        min: usize,
        /// The longest there is.
        max: usize,
        /// Its length in characters.
        length: usize,
    },
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $min:literal..=$max:literal, letters, digits and $others:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                let length = text.chars().count();
                if !($min..=$max).contains(&length) {
                    return Err(InvalidName::Length { kind: $kind, min: $min, max: $max, length });
                }
                if !text.chars().all(|character| character.is_ascii_alphanumeric() || $others.contains(character)) {
                    return Err(InvalidName::Character { kind: $kind, alphabet: concat!("A-Z a-z 0-9 ", $others) });
                }
                Ok(Self(text))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// The name of a thing: `[a-zA-Z0-9:_-]{1,128}` (AWS IoT API reference, CreateThing).
    ThingName, "a thing name", 1..=128, letters, digits and ":_-"
}
name! {
    /// The name of a thing type: `[a-zA-Z0-9:_-]{1,128}` (AWS IoT API reference, CreateThingType).
    ThingTypeName, "a thing type name", 1..=128, letters, digits and ":_-"
}
name! {
    /// The name of a thing group: `[a-zA-Z0-9:_-]{1,128}` (AWS IoT API reference, CreateThingGroup).
    ThingGroupName, "a thing group name", 1..=128, letters, digits and ":_-"
}
name! {
    /// The name of a billing group: `[a-zA-Z0-9:_-]{1,128}` (AWS IoT API reference, CreateBillingGroup).
    BillingGroupName, "a billing group name", 1..=128, letters, digits and ":_-"
}
name! {
    /// The name of a thing's attribute: `[a-zA-Z0-9_.,@/:#=\[\]-]{1,128}` (AWS IoT API reference, AttributePayload).
    AttributeName, "an attribute name", 1..=128, letters, digits and "_.,@/:#=[]-"
}
name! {
    /// The value of a thing's attribute: `[a-zA-Z0-9_.,@/:#=\[\]-]{0,800}` (AWS IoT API reference, AttributePayload).
    AttributeValue, "an attribute value", 0..=800, letters, digits and "_.,@/:#=[]-"
}
name! {
    /// The name of a software package: `[a-zA-Z0-9-_.]{1,128}` (AWS IoT API reference, CreatePackage).
    PackageName, "a package name", 1..=128, letters, digits and "-_."
}
name! {
    /// The name of a software package's version: `[a-zA-Z0-9-_.]{1,64}` (AWS IoT API reference, CreatePackageVersion).
    PackageVersionName, "a package version", 1..=64, letters, digits and "-_."
}
name! {
    /// The name of a policy: `[\w+=,.@-]{1,128}`, in ASCII (AWS IoT API reference, CreatePolicy).
    PolicyName, "a policy name", 1..=128, letters, digits and "_+=,.@-"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_the_alphabet_and_length_of_the_service() {
        assert!(ThingName::try_from("x".repeat(128)).is_ok());
        assert_eq!(
            ThingName::try_from("x".repeat(129)),
            Err(InvalidName::Length { kind: "a thing name", min: 1, max: 128, length: 129 })
        );
        assert!(ThingName::try_from(String::new()).is_err());
        assert!(AttributeValue::try_from(String::new()).is_ok());
        assert!(AttributeValue::try_from("x".repeat(800)).is_ok());
        assert!(AttributeValue::try_from("x".repeat(801)).is_err());
        assert!(AttributeName::try_from("a_.,@/:#=[]-9".to_owned()).is_ok());
        assert!(PolicyName::try_from("p+=,.@-_9".to_owned()).is_ok());
        assert!(PackageVersionName::try_from("x".repeat(65)).is_err());
    }

    #[test]
    fn threat_14_no_hostile_text_is_a_name() {
        for hostile in ["*", "a b", "a\0", "a\n", "ａ", "${iot:ClientId}", "a%00", "a?", "a\"", "a+b", "../a", "$aws"]
        {
            assert!(ThingName::try_from(hostile.to_owned()).is_err(), "{hostile:?}");
            assert!(ThingGroupName::try_from(hostile.to_owned()).is_err(), "{hostile:?}");
        }
        for hostile in ["*", "a b", "a\n", "ａ", "${iot:ClientId}", "\""] {
            assert!(AttributeValue::try_from(hostile.to_owned()).is_err(), "{hostile:?}");
            assert!(PolicyName::try_from(hostile.to_owned()).is_err(), "{hostile:?}");
        }
    }
}
