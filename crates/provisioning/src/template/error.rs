use std::convert::Infallible;

use super::names::InvalidName;
use super::policy::InvalidPolicyDocument;
use super::{Parameters, ProvisioningTemplate};

/// Why a text is no provisioning template, or why a template gives no resources for a device's values.
///
/// Names that come from the template or the device are cut to 64 characters and escaped; values are never repeated.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// A problem at one place of the template.
    #[error("{path}: {problem}")]
    At {
        /// The place, as a JSON pointer (RFC 6901).
        path: String,
        /// What is wrong there.
        problem: TemplateProblem,
    },
    /// One object has the same key twice, so two readers could read two templates.
    #[error("line {line} column {column}: this key is already in its object; remove one of the two")]
    DuplicateKey {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// Not JSON.
    #[error("line {line} column {column}: the text is not JSON from here on")]
    NotJson {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// JSON that is nested more than 127 levels deep.
    #[error("line {line} column {column}: JSON is nested at most 127 levels deep")]
    TooDeep {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// Longer than [`ProvisioningTemplate::MAX_LENGTH`].
    #[error("a template body has at most {max} characters, this one has {length}", max = ProvisioningTemplate::MAX_LENGTH)]
    TooLong {
        /// Its length in characters.
        length: usize,
    },
    /// A value for a parameter that the template does not have.
    #[error("the template declares no parameter \"{name}\"; declare it in Parameters or do not send it")]
    UndeclaredValue {
        /// The value's name.
        name: String,
    },
}

/// What is wrong at one place of a template.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateProblem {
    /// `Fn::Split` found nothing between two delimiters, and the part is meant for a policy document.
    #[error("Fn::Split gives an empty part, which must not reach a policy document; send a value without empty parts")]
    EmptyPart,
    /// The value has another shape.
    #[error("expected {0}")]
    Expected(&'static str),
    /// `Fn::Select` beyond the end of its list.
    #[error("Fn::Select takes an index from 0 below the length of its list, which is {length}")]
    Index {
        /// How many elements the list has.
        length: usize,
    },
    /// A key that must be there is not.
    #[error("{key} is missing")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// Neither a value nor a default.
    #[error("this parameter is needed, but has no default and was given no value; send one")]
    MissingValue,
    /// Text that is no name, attribute or version of its kind.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// `Fn::FindInMap` with keys that no entry has.
    #[error("Fn::FindInMap finds no such entry in the map \"{map}\"; add it to Mappings or send another value")]
    NoSuchEntry {
        /// The map's name.
        map: String,
    },
    /// `Fn::FindInMap` of a map that is not in `Mappings`.
    #[error("Mappings has no map \"{map}\"")]
    NoSuchMap {
        /// The map's name.
        map: String,
    },
    /// Several certificate sources, or a policy with both a name and a document, or with neither.
    #[error("expected exactly one of {expected}")]
    NotOne {
        /// The keys to choose from.
        expected: &'static str,
    },
    /// A declared parameter's name or default beyond the limits.
    #[error(transparent)]
    Parameter(#[from] InvalidParameter),
    /// A text that is no policy document.
    #[error(transparent)]
    PolicyDocument(#[from] InvalidPolicyDocument),
    /// A certificate's field with a default, which would stand for a field that the certificate lacks.
    #[error("an AWS::IoT::Certificate parameter cannot have a default")]
    PseudoDefault,
    /// Not exactly one certificate, or several things, or none where a device is to have one.
    #[error("expected exactly one resource of type {resource}, found {count}")]
    ResourceCount {
        /// The type.
        resource: &'static str,
        /// How many there are.
        count: usize,
    },
    /// A function's text grew beyond the limit.
    #[error("Fn::Join and Fn::Sub build at most {max} bytes of text", max = super::expression::MAX_TEXT)]
    TextTooLong,
    /// More than AWS IoT takes.
    #[error("at most {max} {what}, found {count}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        max: usize,
        /// How many there are.
        count: usize,
    },
    /// `${` without `}`, or nothing between them.
    #[error(
        "Fn::Sub takes ${{Name}} for a value and ${{!Text}} for a literal ${{Text}}; close the brace and name something"
    )]
    Unclosed,
    /// A reference to a parameter that is neither declared nor a pseudo parameter.
    #[error("no parameter \"{name}\" is declared; only Parameters and AWS::IoT::Certificate::* can be referred to")]
    UndeclaredParameter {
        /// The name that was referred to.
        name: String,
    },
    /// A key, resource type or function that is not known at this place.
    #[error("not known here; expected one of {expected}")]
    Unknown {
        /// What is known, joined by commas.
        expected: String,
    },
    /// A value that would change a policy document's meaning.
    #[error(
        "the value of \"{parameter}\" goes into a policy document, \
         so it has at least one character and A-Z a-z 0-9 : _ . - only"
    )]
    UnsafeValue {
        /// The parameter.
        parameter: String,
    },
}

/// Why a name and value are no part of [`Parameters`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidParameter {
    /// The name is empty or too long.
    #[error("a parameter's name has 1 to {max} characters, this one has {length}", max = Parameters::MAX_NAME_LENGTH)]
    NameLength {
        /// Its length in characters.
        length: usize,
    },
    /// The same name was given before: two sources must not speak for one parameter.
    #[error("a parameter with this name has a value already")]
    Repeated,
    /// A device gave a value for a name that only AWS IoT and cvm may fill in.
    #[error("parameters that begin with AWS:: come from the certificate, not from the device")]
    Reserved,
    /// The value is too long.
    #[error("a parameter's value has at most {max} characters, this one has {length}", max = Parameters::MAX_VALUE_LENGTH)]
    ValueLength {
        /// Its length in characters.
        length: usize,
    },
}

impl From<Infallible> for TemplateProblem {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// The first 64 characters of a name, with control characters escaped.
pub(super) fn excerpt(name: &str) -> String {
    name.chars().take(64).flat_map(char::escape_debug).collect()
}
