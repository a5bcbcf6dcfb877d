//! Who made a change: kept beside each one.

use std::borrow::Cow;

use cvm_provisioning::{Actor, Door, Origin};
use serde::{Deserialize, Serialize};

/// An origin, field by field.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OriginRecord<'a> {
    door: Cow<'a, str>,
    request_id: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<Cow<'a, str>>,
}

impl<'a> From<&'a Origin> for OriginRecord<'a> {
    fn from(origin: &'a Origin) -> Self {
        Self {
            door: Cow::Borrowed(origin.door.name()),
            request_id: Cow::Borrowed(&origin.request_id),
            source: origin.source.as_deref().map(Cow::Borrowed),
            actor: origin.actor.as_ref().map(|actor| Cow::Borrowed(actor.as_str())),
        }
    }
}

impl From<OriginRecord<'_>> for Origin {
    fn from(record: OriginRecord<'_>) -> Self {
        Self {
            door: Door::of_name(&record.door),
            request_id: record.request_id.into_owned(),
            source: record.source.map(Cow::into_owned),
            actor: record.actor.and_then(|actor| Actor::new(&actor)),
        }
    }
}
