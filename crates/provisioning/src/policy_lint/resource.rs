use super::PolicyProblem;

/// What an action is about (AWS IoT Developer Guide, *AWS IoT Core action resources*).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Client,
    Filter,
    Thing,
    Topic,
}

/// The actions of devices, in lower case, with what they are about. `iot:ListRetainedMessages` and
/// `iot:AssumeRoleWithCertificate` are about neither a device nor a topic.
const ACTIONS: [(&str, Kind); 13] = [
    ("iot:connect", Kind::Client),
    ("iot:deletethingshadow", Kind::Thing),
    ("iot:describejobexecution", Kind::Thing),
    ("iot:getpendingjobexecutions", Kind::Thing),
    ("iot:getretainedmessage", Kind::Topic),
    ("iot:getthingshadow", Kind::Thing),
    ("iot:listnamedshadowsforthing", Kind::Thing),
    ("iot:publish", Kind::Topic),
    ("iot:receive", Kind::Topic),
    ("iot:retainpublish", Kind::Topic),
    ("iot:startnextpendingjobexecution", Kind::Thing),
    ("iot:subscribe", Kind::Filter),
    ("iot:updatethingshadow", Kind::Thing),
];

/// Topics on which AWS IoT itself answers, to the connection that asked: the requests for certificates and things (AWS
/// IoT Developer Guide, *Device provisioning MQTT API*) and those that go to a rule without a broker (*Basic Ingest*).
const SERVICE_TOPICS: [&str; 3] = ["$aws/certificates/", "$aws/provisioning-templates/", "$aws/rules/"];

impl Kind {
    /// The kinds that an action, which may have wildcards, is about; each once.
    pub(super) fn of(action: &str) -> impl Iterator<Item = Self> {
        let action = action.to_ascii_lowercase();
        [Self::Client, Self::Filter, Self::Thing, Self::Topic].into_iter().filter(move |kind| {
            ACTIONS.iter().any(|(known, about)| about == kind && matches(action.as_bytes(), known.as_bytes()))
        })
    }

    /// What its resources begin with.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Filter => "topicfilter",
            Self::Thing => "thing",
            Self::Topic => "topic",
        }
    }

    /// What is wrong with a resource of this kind.
    pub(super) fn problem(self, resource: &Resource) -> Option<PolicyProblem> {
        let Resource { name, .. } = resource;
        let is_wild = |text: &str| text.contains(['*', '?']) || self == Self::Filter && text.contains(['+', '#']);
        let literal = without_variables(name);
        let wild = is_wild(&literal);
        let bound = variables(name).any(binds);
        match self {
            Self::Client if wild => Some(PolicyProblem::ClientWildcard),
            Self::Client if !bound => Some(PolicyProblem::UnboundClient),
            Self::Client => None,
            _ if SERVICE_TOPICS.iter().any(|topics| name.starts_with(topics)) => None,
            _ if !bound && wild => Some(PolicyProblem::Unbound),
            _ if !bound => Some(PolicyProblem::Shared),
            _ if is_wild(before_the_first_variable(name)) => Some(PolicyProblem::Unbound),
            _ if name.contains("}*") || name.contains("}?") => Some(PolicyProblem::PrefixWildcard),
            _ => None,
        }
    }
}

/// What a statement is about: `*`, or the last part of an ARN, as `topic/devices/sn-1`.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Resource {
    kind: String,
    name: String,
}

impl Resource {
    /// Reads a resource. What CloudFormation fills in is a text of no importance here.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim().replace("${!", "${");
        let mut text = text.as_str();
        let mut plain = String::new();
        while let Some((before, after)) = text.split_once("${AWS::") {
            plain.extend([before, "aws"]);
            text = after.split_once('}').map_or("", |(_, rest)| rest);
        }
        plain.push_str(text);

        let everything = || Some(Self { kind: "*".to_owned(), name: "*".to_owned() });
        if plain == "*" {
            return everything();
        }
        let parts: Vec<&str> = plain.splitn(6, ':').collect();
        match parts[..] {
            ["arn", .., last] if parts.len() < 6 && last.ends_with('*') => everything(),
            ["arn", _, _, _, _, resource] => {
                let (kind, name) = resource.split_once('/').unwrap_or((resource, resource));
                Some(Self { kind: kind.to_owned(), name: name.to_owned() })
            }
            _ => None,
        }
    }

    /// Whether it is of no kind in particular.
    pub(super) fn is_everything(&self) -> bool {
        self.kind.contains('*') && self.name.contains('*') && !self.name.contains("${")
    }

    pub(super) fn is_of(&self, kind: Kind) -> bool {
        matches(self.kind.as_bytes(), kind.name().as_bytes())
    }

    pub(super) fn names_the_client_id(&self) -> bool {
        variables(&self.name).any(|variable| variable.eq_ignore_ascii_case("iot:ClientId"))
    }
}

/// Whether a variable is the device's own: its thing, its certificate or its client id. `parameter` is a value that a
/// provisioning template puts there.
fn binds(variable: &str) -> bool {
    let variable = variable.to_ascii_lowercase();
    ["iot:connection.thing.", "iot:certificate."].iter().any(|prefix| variable.starts_with(prefix))
        || matches!(variable.as_str(), "iot:clientid" | "parameter")
}

/// The names in `${...}`.
fn variables(text: &str) -> impl Iterator<Item = &str> {
    text.split("${").skip(1).filter_map(|after| after.split_once('}').map(|(name, _)| name))
}

fn without_variables(text: &str) -> String {
    let mut pieces = text.split("${");
    let first = pieces.next().unwrap_or_default().to_owned();
    // `${*}` and the like are the characters themselves (*Basic AWS IoT Core policy variables*, "escape").
    pieces.fold(first, |all, piece| all + piece.split_once('}').map_or(piece, |(_, rest)| rest))
}

fn before_the_first_variable(text: &str) -> &str {
    text.split("${").next().unwrap_or_default()
}

/// Whether a pattern with `*` and `?` is for this text: in time proportional to the product of both lengths, at most.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut next) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while next < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, next));
                at += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[next] => (at, next) = (at + 1, next + 1),
            _ => {
                let Some((back, taken)) = star else { return false };
                (at, next) = (back + 1, taken + 1);
                star = Some((back, taken + 1));
            }
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

/// The first 64 characters of a text from elsewhere, with control characters escaped.
pub(super) fn excerpt(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_as_a_shells_does() {
        for (pattern, text) in [("*", ""), ("iot:*", "iot:connect"), ("i?t:c*t", "iot:connect"), ("a*b*c", "aXbXbc")] {
            assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        for (pattern, text) in [("", "a"), ("iot:c", "iot:connect"), ("a?", "a"), ("a*b", "abc")] {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        let long = "a*".repeat(1_000);
        assert!(!matches(long.as_bytes(), "a".repeat(900).as_bytes()));
    }

    #[test]
    fn what_a_stack_fills_in_is_no_variable() {
        let name = "${AWS::Region}/${!iot:ClientId}";
        let resource =
            Resource::parse(&format!("arn:${{AWS::Partition}}:iot:${{AWS::Region}}:1:topic/{name}")).unwrap();
        assert_eq!(resource, Resource { kind: "topic".to_owned(), name: "aws/${iot:ClientId}".to_owned() });
        assert_eq!(variables(&resource.name).collect::<Vec<_>>(), ["iot:ClientId"]);
        assert!(Resource::parse("arn:aws:iot:*").unwrap().is_everything());
        assert_eq!(Resource::parse("topic/a"), None);
    }
}
