//! What operators say about a device: the part of it that is theirs to set.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Attestation, Device, DeviceId, GenerationId, GroupName, Hierarchy, InvalidParameter, KeyOrigin, Parameters,
    ReasonText, Scope, Status, TemplateName, Templates, Timestamp,
};

/// What an operator sets. What is `None` is left as it is, and on a new device as a new device has it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Settings {
    /// Whether it is let in, and why or why not.
    pub status: Option<StatusSetting>,
    /// How it proves itself.
    pub attestation: Option<Attestation>,
    /// Whether its key may be made by us.
    pub key_origin: Option<KeyOrigin>,
    /// Its provisioning template; `Some(None)` is the service's default.
    pub template: Option<Option<TemplateName>>,
    /// All values of template parameters that the operator chooses.
    pub parameters: Option<BTreeMap<String, String>>,
    /// All template parameters that the device may set for itself.
    pub settable_parameters: Option<BTreeSet<String>>,
    /// Its group; `Some(None)` is none.
    pub group: Option<Option<GroupName>>,
    /// Whether it is a gateway.
    pub edge: Option<bool>,
    /// Its scope; `Some(None)` is none, or a gateway's own.
    pub scope: Option<Option<Scope>>,
    /// The scopes above it.
    pub parents: Option<Vec<Scope>>,
}

/// Whether a device is let in, and why or why not.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StatusSetting {
    /// Whether.
    pub enabled: bool,
    /// Why.
    pub reason: Option<ReasonText>,
}

impl Settings {
    /// A device that has just been put on the allowlist, with these settings.
    ///
    /// # Errors
    ///
    /// [`InvalidSettings`].
    pub fn new_device(self, id: DeviceId, generation: GenerationId, now: Timestamp) -> Result<Device, InvalidSettings> {
        let mut device = Device::new(id, generation, Attestation::Nothing, now);
        self.apply(&mut device, now)?;
        device.version = 1;
        Ok(device)
    }

    /// Sets what is set here. A device that has it all already is left as it is, so that saying the same again is no
    /// change.
    ///
    /// # Errors
    ///
    /// [`InvalidSettings`]; the device is left as it was.
    pub fn apply(self, device: &mut Device, now: Timestamp) -> Result<(), InvalidSettings> {
        let mut set = device.clone();
        let Hierarchy { edge, scope, parents } = &mut set.hierarchy;
        *edge = self.edge.unwrap_or(*edge);
        *scope = self.scope.unwrap_or_else(|| scope.take());
        *parents = self.parents.unwrap_or_else(|| std::mem::take(parents));
        if *edge && scope.is_none() {
            *scope = Some(Scope::of_gateway(&set.id, set.generation));
        }
        set.attestation = match (self.attestation, set.attestation) {
            // That a trusted user vouches is said again; the claim that one has at this moment stays.
            (Some(Attestation::TrustedUser { claim: None }), there @ Attestation::TrustedUser { .. }) => there,
            (said, there) => said.unwrap_or(there),
        };
        set.key_origin = self.key_origin.unwrap_or(set.key_origin);
        set.template = self.template.unwrap_or(set.template);
        set.parameters = self.parameters.unwrap_or(set.parameters);
        set.settable_parameters = self.settable_parameters.unwrap_or(set.settable_parameters);
        set.group = self.group.unwrap_or(set.group);
        check(&set)?;
        match self.status {
            Some(StatusSetting { enabled: true, reason }) if !set.status.enabled => set.enable(reason, now),
            Some(StatusSetting { enabled: false, reason }) if set.status.enabled => set.disable(reason, now),
            // Said again, it is no new status; only the reason may be another.
            Some(StatusSetting { reason, .. }) => set.status = Status { reason, ..set.status },
            None => {}
        }
        if set != *device {
            set.version = device.version;
            set.touch(now);
            *device = set;
        }
        Ok(())
    }
}

fn check(device: &Device) -> Result<(), InvalidSettings> {
    if device.key_origin == KeyOrigin::Service && !matches!(device.attestation, Attestation::Token { .. }) {
        return Err(InvalidSettings::ServiceKey);
    }
    if device.hierarchy.parents.len() > Hierarchy::MAX_PARENTS {
        return Err(InvalidSettings::Parents);
    }
    let names = device.parameters.keys().chain(&device.settable_parameters);
    if names.clone().any(|name| Templates::ID_PARAMETERS.contains(&name.as_str())) {
        return Err(InvalidSettings::IdParameter);
    }
    // The template is the service's: what can be checked here are the bounds of names and values.
    Parameters::from_device(device.parameters.clone())?;
    let settable = device.settable_parameters.iter().map(|name| (name.clone(), String::new()));
    Parameters::from_device(settable.collect())?;
    Ok(())
}

/// Why a device cannot have these settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSettings {
    /// A parameter that is the device's id.
    #[error("the parameters SerialNumber and DeviceId are the device's id, and nobody sets them")]
    IdParameter,
    /// A parameter that no template could take.
    #[error("a parameter cannot be used: {0}")]
    Parameter(#[from] InvalidParameter),
    /// Too many scopes above it.
    #[error("a device has at most {max} parent scopes", max = Hierarchy::MAX_PARENTS)]
    Parents,
    /// A key of ours for a device that would not have to prove anything to get it.
    #[error("the service makes a key only for a device that proves itself with an enrolment token")]
    ServiceKey,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TrustedUserClaim;

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
    const LATER: Timestamp = Timestamp::from_seconds(1_800_000_060);

    fn device(settings: Settings) -> Result<Device, InvalidSettings> {
        settings.new_device("sn-1".parse().unwrap(), GenerationId::new(7), NOW)
    }

    #[test]
    fn saying_the_same_again_is_no_change() {
        let settings = Settings {
            status: Some(StatusSetting { enabled: false, reason: "on hold".parse().ok() }),
            group: Some("berlin".parse().ok()),
            edge: Some(true),
            ..Settings::default()
        };
        let made = device(settings.clone()).unwrap();
        assert_eq!((made.version, made.status.enabled), (1, false));
        assert!(made.hierarchy.scope.is_some(), "a gateway has a scope of its own");
        let mut again = made.clone();
        settings.apply(&mut again, LATER).unwrap();
        assert_eq!(again, made);
    }

    #[test]
    fn what_is_left_out_stays_and_one_write_is_one_version() {
        let mut changed = device(Settings { group: Some("berlin".parse().ok()), ..Settings::default() }).unwrap();
        let status = Some(StatusSetting { enabled: false, reason: None });
        Settings { status, template: Some("cameras".parse().ok()), ..Settings::default() }
            .apply(&mut changed, LATER)
            .unwrap();
        assert_eq!((changed.version, changed.status.since), (2, LATER));
        assert_eq!(changed.group.map(String::from).as_deref(), Some("berlin"));
    }

    #[test]
    fn a_claim_that_a_trusted_user_has_outlives_being_told_again_who_vouches() {
        let vouched = Attestation::TrustedUser { claim: None };
        let settings = Settings { attestation: Some(vouched), ..Settings::default() };
        let mut claimed = device(settings.clone()).unwrap();
        let certificate = "ab".repeat(32).parse().unwrap();
        claimed.vouch(TrustedUserClaim { certificate, user: "anna".parse().unwrap(), expires_at: LATER }, NOW);
        let before = claimed.clone();
        settings.apply(&mut claimed, LATER).unwrap();
        assert_eq!(claimed, before);
    }

    #[test]
    fn what_no_device_can_be_is_refused_and_changes_nothing() {
        let mut there = device(Settings::default()).unwrap();
        let before = there.clone();
        let parents = vec!["scope".parse().unwrap(); Hierarchy::MAX_PARENTS + 1];
        let id = BTreeMap::from([("SerialNumber".to_owned(), "sn-2".to_owned())]);
        for settings in [
            Settings { key_origin: Some(KeyOrigin::Service), ..Settings::default() },
            Settings { parents: Some(parents), ..Settings::default() },
            Settings { parameters: Some(id), ..Settings::default() },
        ] {
            assert!(settings.apply(&mut there, LATER).is_err());
            assert_eq!(there, before);
        }
    }
}
