//! Which devices a command is about, as far as the registry can tell.

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use cvm_provisioning::{DeviceFilter, DeviceId, GroupName, State, TemplateName, Timestamp};
use serde_json::{Value, json};

use crate::arguments::TimeToLive;
use crate::registry::now;

/// The heading of filters in a help text.
const FILTERS: &str = "Filters";

/// Which devices are meant.
#[derive(Args, Clone, Debug)]
pub(crate) struct FilterArguments {
    /// Only devices in this state
    #[arg(long, help_heading = FILTERS, value_parser = PossibleValuesParser::new(State::ALL.map(|state| state.name())))]
    state: Option<String>,
    /// Only devices of this status
    #[arg(long, help_heading = FILTERS, value_enum)]
    status: Option<StatusName>,
    /// Only devices of this group
    #[arg(long, help_heading = FILTERS, value_name = "NAME")]
    group: Option<GroupName>,
    /// Only devices whose items name this provisioning template
    #[arg(long, help_heading = FILTERS, value_name = "NAME")]
    template: Option<TemplateName>,
    /// Only devices whose ids begin with this
    #[arg(long, help_heading = FILTERS, value_name = "TEXT")]
    prefix: Option<DeviceId>,
    /// Only devices that changed in this time, such as 15m, 24h or 7d
    #[arg(long, help_heading = FILTERS, value_name = "TIME")]
    changed_within: Option<TimeToLive>,
    /// Only devices that have been refused, however long ago
    #[arg(long, help_heading = FILTERS, conflicts_with = "refused_within")]
    refused: bool,
    /// Only devices whose last refusal was in this time
    #[arg(long, help_heading = FILTERS, value_name = "TIME")]
    refused_within: Option<TimeToLive>,
    /// Only devices whose certificate expires in this time, or has expired; no revoked devices
    #[arg(long, help_heading = FILTERS, value_name = "TIME")]
    expires_within: Option<TimeToLive>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum StatusName {
    Enabled,
    Disabled,
}

impl FilterArguments {
    pub(crate) fn filter(&self) -> DeviceFilter {
        let ago = |time: TimeToLive| now().before(time.duration());
        let ever = self.refused.then(|| Timestamp::from_seconds(0));
        DeviceFilter {
            state: self.state.as_deref().and_then(State::from_name),
            enabled: self.status.map(|status| status == StatusName::Enabled),
            group: self.group.clone(),
            template: self.template.clone(),
            changed_since: self.changed_within.map(ago),
            prefix: self.prefix.clone(),
            refused_since: ever.or_else(|| self.refused_within.map(ago)),
            expires_before: self.expires_within.map(|time| now().after(time.duration())),
        }
    }

    /// Whether it lets every device through.
    pub(crate) fn is_empty(&self) -> bool {
        self.filter() == DeviceFilter::default()
    }

    /// The same, as the API asks for it in the body of a job.
    pub(crate) fn to_json(&self) -> Value {
        let DeviceFilter { state, enabled, group, template, changed_since, prefix, refused_since, expires_before } =
            self.filter();
        let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
        let fields = [
            ("state", state.map(|state| state.name().to_owned())),
            ("status", enabled.map(|enabled| if enabled { "enabled" } else { "disabled" }.to_owned())),
            ("group", group.map(|group| group.to_string())),
            ("template", template.map(|template| template.to_string())),
            ("changedSince", time(changed_since)),
            ("prefix", prefix.map(|prefix| prefix.to_string())),
            ("refusedSince", time(refused_since)),
            ("expiresBefore", time(expires_before)),
        ];
        let given = fields.into_iter().filter_map(|(name, value)| value.map(|value| (name.to_owned(), json!(value))));
        Value::Object(given.collect())
    }
}
