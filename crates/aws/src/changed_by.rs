//! Who made a change: beside each change in its item, so that the table's stream can tell it.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use cvm_provisioning::Origin;
use cvm_records::OriginRecord;

/// The attribute.
pub(crate) const CHANGED_BY: &str = "changedBy";

/// The value of the attribute.
#[expect(clippy::expect_used, reason = "four strings: they have a form")]
pub(crate) fn changed_by(origin: &Origin) -> AttributeValue {
    let item: HashMap<_, _> =
        serde_dynamo::to_item(OriginRecord::from(origin)).expect("every field has a DynamoDB form");
    AttributeValue::M(item)
}

/// The origin that an item's attribute says, if it has one.
pub(crate) fn origin(item: &serde_dynamo::Item) -> Option<Origin> {
    let by: OriginRecord<'static> = serde_dynamo::from_attribute_value(item.inner().get(CHANGED_BY)?.clone()).ok()?;
    Some(by.into())
}
