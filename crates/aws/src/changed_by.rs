//! Who made a change: beside each change in its item, so that the table's stream can tell it.

use std::borrow::Cow;
use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use cvm_provisioning::{Actor, Origin};
use serde::{Deserialize, Serialize};

/// The attribute.
pub(crate) const CHANGED_BY: &str = "changedBy";

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct ChangedBy<'a> {
    door: Cow<'a, str>,
    request_id: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<Cow<'a, str>>,
}

/// The value of the attribute.
#[expect(clippy::expect_used, reason = "four strings: they have a form")]
pub(crate) fn changed_by(origin: &Origin) -> AttributeValue {
    let item: HashMap<String, AttributeValue> = serde_dynamo::to_item(ChangedBy {
        door: Cow::Borrowed(&origin.door),
        request_id: Cow::Borrowed(&origin.request_id),
        source: origin.source.as_deref().map(Cow::Borrowed),
        actor: origin.actor.as_ref().map(|actor| Cow::Borrowed(actor.as_str())),
    })
    .expect("every field has a DynamoDB form");
    AttributeValue::M(item)
}

/// The origin that an item's attribute says, if it has one.
pub(crate) fn origin(item: &serde_dynamo::Item) -> Option<Origin> {
    let by = serde_dynamo::from_attribute_value::<_, ChangedBy<'static>>(item.inner().get(CHANGED_BY)?.clone()).ok()?;
    Some(Origin {
        door: Cow::Owned(by.door.into_owned()),
        request_id: by.request_id.into_owned(),
        source: by.source.map(Cow::into_owned),
        actor: by.actor.and_then(|actor| Actor::new(&actor)),
    })
}
