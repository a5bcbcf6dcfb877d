use clap::Args;
use cvm_interchange::{CertificateTold, DeviceDocument};
use cvm_provisioning::{DeviceId, KeyOrigin, State};

use super::view::{DeviceView, attestation};
use super::{DeviceError, DeviceRegistry};
use crate::error::CommandError;
use crate::facts::Facts;
use crate::output::{Output, count};

/// Show all that the registry knows of a device, and why it was last refused
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct ShowArguments {
    /// The device's id
    id: DeviceId,
}

const EXAMPLES: &str = "\
Examples:
  cvm device show sn-0001
  cvm device show sn-0001 --output json | jq .lastRefusal";

pub(super) async fn run(
    ShowArguments { id }: &ShowArguments,
    registry: &impl DeviceRegistry,
    output: &Output,
) -> Result<(), CommandError> {
    let device = match registry.find(id).await {
        Err(DeviceError::NotFound { id }) => {
            return Err(match registry.unknown(&id).await {
                Ok(Some(asked)) => DeviceError::NotRegistered { asked },
                _ => DeviceError::NotFound { id },
            }
            .into());
        }
        found => found?,
    };
    output.json(&DeviceView::from(&device))?;
    for line in lines(&device) {
        output.say(line)?;
    }
    Ok(())
}

/// The device, one fact a line.
fn lines(device: &DeviceDocument) -> Vec<String> {
    let mut facts = Facts::default();
    let told = &device.cvm;
    facts.add("device", &device.device_id);
    let since = device.status_updated_time;
    let is_revoked = told.state == State::Revoked.name();
    match (device.status.as_str(), &device.status_reason) {
        ("enabled", None) => facts.add("status", "enabled"),
        ("enabled", Some(_)) if is_revoked => facts.add("status", "enabled"),
        (status, None) => facts.add("status", format_args!("{status} since {since}")),
        (status, Some(reason)) => facts.add("status", format_args!("{status} since {since}: {reason}")),
    }
    if let Some(Some(group)) = &told.extension.group {
        facts.add("group", group);
    }
    match &device.status_reason {
        Some(reason) if is_revoked && device.status == "enabled" => {
            facts.add("state", format_args!("revoked: {reason}"));
        }
        _ => facts.add("state", &told.state),
    }
    facts.add("proof", attestation(device));
    facts.add(
        "key made by",
        match told.extension.key_origin.unwrap_or_default() {
            KeyOrigin::Device => "the device",
            KeyOrigin::Service => "the service, or the device",
        },
    );
    let template = told.extension.template.as_ref().and_then(Option::as_ref);
    facts.add("template", template.map_or("the service's default", |name| name.as_str()));
    for (name, value) in told.extension.parameters.iter().flatten() {
        facts.add("parameter", format_args!("{name}={value}"));
    }
    for name in told.extension.settable_parameters.iter().flatten() {
        facts.add("settable", name);
    }
    if let Some(told) = &told.certificate {
        certificate(told, &mut facts);
    }
    for earlier in &told.superseded {
        facts.add("earlier one", earlier.certificate_id);
        facts.add("  key", earlier.key);
        if is_revoked {
            continue;
        }
        let end = earlier.until.map(|until| format!(", or at {until}")).unwrap_or_default();
        facts.add("  in power", format_args!("until the newer one was seen{end}"));
    }
    if let Some(reservation) = &told.reservation {
        facts.add("reserved", format_args!("until {} for the key {}", reservation.expires_at, reservation.key));
        if let Some(certificate) = &reservation.certificate_id {
            facts.add("  certificate", certificate);
        }
        facts.add("  unsettled", count(reservation.attempts.into(), "attempt"));
    }
    if let Some(group) = &told.enrolled_with {
        facts.add("enrolled with", group);
    }
    match told.last_refusal.as_ref().map(|refusal| (refusal, refusal.advice.as_ref())) {
        Some((refusal, Some(advice))) => {
            facts.add("last refusal", format_args!("{} at {}", refusal.reason, refusal.at));
            let key = if told.state == State::Quarantined.name() { "  other key" } else { "  its key" };
            facts.add(key, refusal.key);
            facts.add("  next", advice.replace(" ID", &format!(" {}", device.device_id)));
        }
        Some((refusal, None)) => {
            facts.add("last refusal", format_args!("{} at {}, resolved since", refusal.reason, refusal.at))
        }
        None => {}
    }
    facts.add("wrong proofs", told.wrong_proofs.count);
    facts.add("registered", told.created_at);
    facts.add("changed", format_args!("{}, version {}", told.updated_at, told.version));
    facts.0
}

fn certificate(certificate: &CertificateTold, facts: &mut Facts) {
    facts.add("certificate", certificate.certificate_id);
    facts.add("  key", certificate.key);
    facts.add("  thing", &certificate.thing_name);
    facts.add("  issued", certificate.issued_at);
    facts.add("  not after", certificate.not_after);
    match certificate.used_at {
        Some(at) => facts.add("  first used", at),
        None => facts.add("  first used", "not yet, as far as is known"),
    }
    for (name, value) in &certificate.device_configuration {
        facts.add("  configured", format_args!("{name}={value}"));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use cvm_provisioning::{CertificateId, Credential, Denial, Device, Refusal, Superseded, Timestamp, Verdict};
    use cvm_testkit::fixture::{NOW, attempt, csr, device, later, token};

    use super::*;
    use crate::device::registry::told;

    #[test]
    fn a_refusal_is_shown_with_its_reason_and_a_command_that_pastes() {
        let mut device = device("sn-0001");
        let attempt = attempt("sn-0001", 1, &csr("sn-0001"), NOW);
        device.refuse(&Refusal::new(Denial::Unknown, Some(&device), &attempt));
        let text = lines(&told(&device)).join("\n");
        assert!(text.contains("last refusal  unknown-device at 2027-01-15T08:00:00Z"), "{text}");
        assert!(text.contains("next        `cvm device add sn-0001` puts it on the allowlist"), "{text}");
        assert!(!text.contains(" ID"), "{text}");
    }

    /// A device that got its certificate at this time.
    fn provisioned(name: &str, at: Timestamp) -> Device {
        let mut device = device(name);
        let credential = Credential {
            certificate: CertificateId::of(b"certificate"),
            certificate_name: "arn".to_owned(),
            pem: String::new(),
            key: *csr(name).key().fingerprint(),
            key_made_here: false,
            not_after: later(86_400),
            issued_at: at,
            used_at: None,
            group: None,
            thing: name.to_owned().try_into().unwrap(),
            configuration: BTreeMap::new(),
        };
        device.confirm(credential, at);
        device
    }

    #[test]
    fn a_refusal_is_shown_without_advice_once_it_is_resolved() {
        let refused = |denial, mut device: Device, at| {
            let attempt = attempt("sn-0001", 1, &csr("sn-0001"), at);
            device.refuse(&Refusal::new(denial, Some(&device), &attempt));
            device
        };
        let is_shown = |device: &Device| {
            let document = told(device);
            let text = lines(&document).join(
                "
",
            );
            let json = serde_json::to_value(DeviceView::from(&document)).unwrap();
            assert!(text.contains("last refusal") && json["lastRefusal"]["reason"].is_string(), "{text}");
            assert_eq!(text.contains("  next"), json["lastRefusal"]["advice"].is_string(), "{text}");
            assert_eq!(text.contains("resolved since"), !text.contains("  next"), "{text}");
            text.contains("  next")
        };
        let wrong = refused(Denial::WrongProof, device("sn-0001"), NOW);
        assert!(is_shown(&wrong));
        let mut enabled = wrong.clone();
        enabled.enable(None, NOW);
        assert!(!is_shown(&enabled), "an operator looked");

        let mut disabled = device("sn-0001");
        disabled.disable(None, NOW);
        let mut disabled = refused(Denial::Disabled, disabled, NOW);
        assert!(is_shown(&disabled));
        disabled.enable(None, NOW);
        assert!(!is_shown(&disabled));

        let provisioned = provisioned("sn-0001", NOW);
        assert!(is_shown(&refused(Denial::OtherTemplate, provisioned.clone(), later(1))));
        assert!(!is_shown(&refused(Denial::OtherTemplate, provisioned.clone(), NOW.before(Duration::from_secs(1)))));
        let mut clone = refused(Denial::Cloned, provisioned, later(1));
        assert!(is_shown(&clone));
        clone.approve(Verdict::KeepCertificate, later(2)).unwrap();
        assert!(!is_shown(&clone));
    }

    #[test]
    fn threat_06_a_certificate_that_is_still_in_power_beside_the_newer_one_is_shown() {
        let mut device = device("sn-0001");
        assert!(!lines(&told(&device)).join("\n").contains("earlier one"));
        let earlier = Superseded {
            certificate: CertificateId::of(b"earlier"),
            certificate_name: "arn".to_owned(),
            key: *csr("sn-0001").key().fingerprint(),
            thing: "sn-0001".to_owned().try_into().unwrap(),
            since: NOW,
        };
        device.superseded.push(earlier.clone());
        let text = lines(&told(&device)).join("\n");
        assert!(text.contains(&format!("earlier one   {}", earlier.certificate)), "{text}");
        assert!(text.contains("in power    until the newer one was seen, or at 2027-01-22T08:00:00Z"), "{text}");
        let json = serde_json::to_value(DeviceView::from(&told(&device))).unwrap();
        assert_eq!(json["superseded"][0]["key"], earlier.key.to_string());
    }

    #[test]
    fn a_value_cannot_fake_a_line_of_its_own() {
        let mut device = device("sn-0001");
        device.parameters.insert("Site".to_owned(), "berlin\nstate         provisioned\x1b[2J".to_owned());
        let lines = lines(&told(&device));
        assert!(
            lines.contains(&"parameter     Site=berlin state         provisioned\u{fffd}[2J".to_owned()),
            "{lines:?}"
        );
    }

    #[test]
    fn the_digest_of_the_token_is_never_shown() {
        let device = device("sn-0001");
        let digest = token().digest().to_string();
        let device = told(&device);
        assert!(!lines(&device).join("\n").contains(&digest));
        assert!(!serde_json::to_string(&DeviceView::from(&device)).unwrap().contains(&digest));
    }
}
