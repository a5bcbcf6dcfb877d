use crate::InvalidPolicyDocument;

/// Something about a policy document that its author should look at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PolicyFinding {
    /// The place, as a JSON pointer (RFC 6901).
    pub path: String,
    /// What is wrong there.
    pub problem: PolicyProblem,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// The policy must not be used.
    Error,
    /// It may be meant.
    Warning,
}

impl Severity {
    /// The stable word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// What is wrong with a policy document.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyProblem {
    /// `NotAction` with `Allow`.
    #[error("NotAction allows every action but those named, and each one that AWS IoT will ever have")]
    AllButAction,
    /// `NotResource` with `Allow`.
    #[error("NotResource allows everything but what is named, the topics of other devices included")]
    AllButResource,
    /// `${iot:ClientId}` where nothing binds the client id to the certificate.
    #[error("the device chooses its client id, so with it this resource")]
    ChosenByTheDevice,
    /// A wildcard in what a client may be called.
    #[error("the client id has a wildcard, so a device can connect under the name of another")]
    ClientWildcard,
    /// Not a policy document at all.
    #[error(transparent)]
    Document(#[from] InvalidPolicyDocument),
    /// `*` or `iot:*`.
    #[error("every action is allowed")]
    EveryAction,
    /// `*`.
    #[error("every resource is allowed, those of other devices included")]
    EveryResource,
    /// A value of another shape.
    #[error("expected {0}")]
    Expected(&'static str),
    /// An action that none of the statement's resources is for.
    #[error("{action} has no effect here, because it is about resources of the kind {expected}")]
    NoEffect {
        /// The action, cut to 64 characters.
        action: String,
        /// The kind of resource that it is about.
        expected: &'static str,
    },
    /// A connection that needs no attached thing.
    #[error("a certificate that is attached to no thing can connect")]
    NotAttached,
    /// A wildcard right behind a variable.
    #[error(
        "the wildcard right behind a variable reaches devices whose name begins with this one's, as sn-10 with sn-1"
    )]
    PrefixWildcard,
    /// One topic or thing for all devices.
    #[error("every device of the fleet shares this resource")]
    Shared,
    /// A client id without a variable.
    #[error("the client id is not bound to the device, so any device can connect under it")]
    UnboundClient,
    /// Topics or things without a variable.
    #[error("the resource has a wildcard and is not bound to the device, so it reaches what is another's")]
    Unbound,
    /// Another version of the policy language.
    #[error("expected the Version 2012-10-17, because no other fills in policy variables")]
    Version,
}

impl PolicyProblem {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        match self {
            Self::ChosenByTheDevice | Self::NoEffect { .. } | Self::NotAttached | Self::Shared => Severity::Warning,
            _ => Severity::Error,
        }
    }

    /// What to do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::AllButAction => "list the actions under Action",
            Self::AllButResource => "list the resources under Resource",
            Self::ChosenByTheDevice => {
                "use ${iot:Connection.Thing.ThingName}, or require iot:Connection.Thing.IsAttached to connect"
            }
            Self::ClientWildcard | Self::UnboundClient => "use client/${iot:Connection.Thing.ThingName}",
            Self::Document(InvalidPolicyDocument::TooLong { .. }) => {
                "join statements, and shorten resources by policy variables"
            }
            Self::Document(_) | Self::Expected(_) => "see \"AWS IoT Core policies\" in the AWS IoT Developer Guide",
            Self::EveryAction => "list what a device does: iot:Connect, iot:Publish, iot:Receive, iot:Subscribe",
            Self::EveryResource => {
                "name client/, topic/ and topicfilter/ resources with ${iot:Connection.Thing.ThingName}"
            }
            Self::NoEffect { .. } => "add such a resource, or take the action away",
            Self::NotAttached => {
                "add the condition \"Bool\": {\"iot:Connection.Thing.IsAttached\": \"true\"} to iot:Connect"
            }
            Self::PrefixWildcard => "put a / between the variable and the wildcard",
            Self::Shared => "if it is not meant, put ${iot:Connection.Thing.ThingName} into it",
            Self::Unbound => "put ${iot:Connection.Thing.ThingName} before the wildcard",
            Self::Version => "write \"Version\": \"2012-10-17\"",
        }
    }
}
