use regex_lite::Regex;

use crate::{BadName, Certificate, DeviceId, InvalidDeviceId, SubjectAttribute};

/// How a factory certificate says which device it is for: an attribute of its subject, or a part of one.
#[derive(Clone, Debug)]
pub struct DeviceNaming {
    attribute: SubjectAttribute,
    pattern: Option<Regex>,
}

impl DeviceNaming {
    /// The whole of this attribute is the device id.
    pub const fn by(attribute: SubjectAttribute) -> Self {
        Self { attribute, pattern: None }
    }

    /// The device id is what the first group of `pattern` matches, in an attribute that the pattern matches as a whole.
    ///
    /// # Errors
    ///
    /// [`InvalidPattern`] for what is no regular expression or has no group.
    pub fn by_part(attribute: SubjectAttribute, pattern: &str) -> Result<Self, InvalidPattern> {
        let whole = Regex::new(&format!("^(?:{pattern})$")).map_err(InvalidPattern::Syntax)?;
        // The whole match is a group of its own.
        if whole.captures_len() < 2 {
            return Err(InvalidPattern::NoGroup);
        }
        Ok(Self { attribute, pattern: Some(whole) })
    }

    /// The device that this certificate is for.
    ///
    /// # Errors
    ///
    /// [`Unnamed`] when the certificate says nothing, or nothing that is a device id.
    pub fn device(&self, certificate: &Certificate) -> Result<DeviceId, Unnamed> {
        let text = certificate.subject_text(self.attribute)?.ok_or(Unnamed::Missing)?;
        let id = match &self.pattern {
            None => text.as_str(),
            Some(pattern) => {
                let matched = pattern.captures(&text).and_then(|captures| captures.get(1));
                matched.ok_or(Unnamed::Pattern)?.as_str()
            }
        };
        Ok(id.parse()?)
    }
}

/// A text is no pattern for device ids.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPattern {
    /// It has no group.
    #[error("the pattern has no group; put the part that is the device id in parentheses, as in `Factory 1/(.+)`")]
    NoGroup,
    /// It is no regular expression.
    #[error("the pattern is no regular expression")]
    Syntax(#[source] regex_lite::Error),
}

/// A certificate does not say which device it is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Unnamed {
    /// What it says is no device id.
    #[error("the name in the subject is no device id: {0}")]
    DeviceId(#[from] InvalidDeviceId),
    /// The attribute is not there.
    #[error("the subject has no attribute that names the device")]
    Missing,
    /// The pattern does not match.
    #[error("the name in the subject does not match the configured pattern")]
    Pattern,
    /// The subject is ambiguous.
    #[error("the subject cannot be read: {0}")]
    Subject(#[from] BadName),
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn certificate(common_name: &str) -> Certificate {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let signed = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Certificate::parse(&signed.pem()).unwrap()
    }

    #[test]
    fn the_device_is_the_attribute_or_the_group_of_the_pattern() {
        let whole = DeviceNaming::by(SubjectAttribute::CommonName);
        assert_eq!(whole.device(&certificate("sn-1")), Ok("sn-1".parse().unwrap()));
        assert_eq!(whole.device(&certificate("Factory 1/sn-1")), Err(Unnamed::DeviceId(InvalidDeviceId::Character)),);
        assert_eq!(
            DeviceNaming::by(SubjectAttribute::SerialNumber).device(&certificate("sn-1")),
            Err(Unnamed::Missing)
        );
        let part = DeviceNaming::by_part(SubjectAttribute::CommonName, "Factory [0-9]/(.+)").unwrap();
        assert_eq!(part.device(&certificate("Factory 1/sn-1")), Ok("sn-1".parse().unwrap()));
    }

    #[test]
    fn threat_14_a_pattern_matches_the_whole_name_and_its_group_is_still_a_device_id() {
        let part = DeviceNaming::by_part(SubjectAttribute::CommonName, "a/(.*)|b/(.*)").unwrap();
        for name in ["x a/sn-1", "a/sn-1\nb", "b/sn-1"] {
            assert!(part.device(&certificate(name)).is_err(), "{name:?}");
        }
        assert_eq!(part.device(&certificate("a/${iot:ClientId}")), Err(Unnamed::DeviceId(InvalidDeviceId::Character)));
        assert_eq!(part.device(&certificate("a/")), Err(Unnamed::DeviceId(InvalidDeviceId::Empty)));
    }

    #[test]
    fn a_pattern_that_can_name_nothing_is_refused() {
        let pattern = |text| DeviceNaming::by_part(SubjectAttribute::CommonName, text);
        assert!(matches!(pattern(".+"), Err(InvalidPattern::NoGroup)));
        assert!(matches!(pattern("(.+"), Err(InvalidPattern::Syntax(_))));
    }
}
