use clap::Args;
use cvm_provisioning::{Credential, Device, DeviceId, DeviceStore, KeyOrigin, Operations, State, Status};

use super::DeviceError;
use super::view::{DeviceView, attestation, enrolled_with};
use crate::error::CommandError;
use crate::facts::Facts;
use crate::output::Output;

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
    operations: &Operations<impl DeviceStore>,
    output: &Output,
) -> Result<(), CommandError> {
    let device = operations.find(id).await.map_err(DeviceError::of(id))?;
    output.json(&DeviceView::from(&device))?;
    for line in lines(&device) {
        output.say(line)?;
    }
    Ok(())
}

/// The device, one fact a line.
fn lines(device: &Device) -> Vec<String> {
    let mut facts = Facts::default();
    facts.add("device", &device.id);
    match (&device.status, &device.status.reason) {
        (Status { enabled: true, .. }, None) => facts.add("status", "enabled"),
        (status @ Status { since, .. }, None) => facts.add("status", format_args!("{} since {since}", status.name())),
        (status @ Status { since, .. }, Some(reason)) => {
            facts.add("status", format_args!("{} since {since}: {reason}", status.name()));
        }
    }
    if let Some(group) = &device.group {
        facts.add("group", group);
    }
    facts.add("state", device.state.name());
    facts.add("proof", attestation(&device.attestation));
    facts.add(
        "key made by",
        match device.key_origin {
            KeyOrigin::Device => "the device",
            KeyOrigin::Service => "the service, or the device",
        },
    );
    facts.add("template", device.template.as_ref().map_or("the service's default", |name| name.as_str()));
    for (name, value) in &device.parameters {
        facts.add("parameter", format_args!("{name}={value}"));
    }
    for name in &device.settable_parameters {
        facts.add("settable", name);
    }
    if let Some(credential) = &device.credential {
        certificate(credential, &mut facts);
    }
    if let Some(reservation) = &device.reservation {
        facts.add("reserved", format_args!("until {} for the key {}", reservation.expires_at, reservation.key));
        if let Some(certificate) = &reservation.certificate {
            facts.add("  certificate", certificate);
        }
        facts.add("  unsettled", format_args!("{} attempts", reservation.attempts));
    }
    if let Some(group) = enrolled_with(device) {
        facts.add("enrolled with", group);
    }
    if let Some(refusal) = &device.last_refusal {
        facts.add("last refusal", format_args!("{} at {}", refusal.denial.code(), refusal.at));
        let key = if device.state == State::Quarantined { "  other key" } else { "  its key" };
        facts.add(key, refusal.key);
        facts.add("  next", refusal.denial.advice().replace(" ID", &format!(" {}", device.id)));
    }
    match device.wrong_proofs.blocked_until {
        Some(end) => facts.add("wrong proofs", format_args!("{}, none taken until {end}", device.wrong_proofs.count)),
        None => facts.add("wrong proofs", device.wrong_proofs.count),
    }
    facts.add("registered", device.created_at);
    facts.add("changed", format_args!("{}, version {}", device.updated_at, device.version));
    facts.0
}

fn certificate(credential: &Credential, facts: &mut Facts) {
    facts.add("certificate", credential.certificate);
    facts.add("  key", credential.key);
    facts.add("  thing", &credential.thing);
    facts.add("  issued", credential.issued_at);
    facts.add("  not after", credential.not_after);
    match credential.used_at {
        Some(at) => facts.add("  first used", at),
        None => facts.add("  first used", "not yet, as far as is known"),
    }
    for (name, value) in &credential.configuration {
        facts.add("  configured", format_args!("{name}={value}"));
    }
}

#[cfg(test)]
mod tests {
    use cvm_provisioning::{Denial, Refusal};
    use cvm_testkit::fixture::{NOW, attempt, csr, device, token};

    use super::*;

    #[test]
    fn a_refusal_is_shown_with_its_reason_and_a_command_that_pastes() {
        let mut device = device("sn-0001");
        let attempt = attempt("sn-0001", 1, &csr("sn-0001"), NOW);
        device.refuse(&Refusal::new(Denial::Unknown, Some(&device), &attempt));
        let text = lines(&device).join("\n");
        assert!(text.contains("last refusal  unknown-device at 2027-01-15T08:00:00Z"), "{text}");
        assert!(text.contains("next        `cvm device add sn-0001` puts it on the allowlist"), "{text}");
        assert!(!text.contains(" ID"), "{text}");
    }

    #[test]
    fn a_value_cannot_fake_a_line_of_its_own() {
        let mut device = device("sn-0001");
        device.parameters.insert("Site".to_owned(), "berlin\nstate         provisioned\x1b[2J".to_owned());
        let lines = lines(&device);
        assert!(
            lines.contains(&"parameter     Site=berlin state         provisioned\u{fffd}[2J".to_owned()),
            "{lines:?}"
        );
    }

    #[test]
    fn the_digest_of_the_token_is_never_shown() {
        let device = device("sn-0001");
        let digest = token().digest().to_string();
        assert!(!lines(&device).join("\n").contains(&digest));
        assert!(!serde_json::to_string(&DeviceView::from(&device)).unwrap().contains(&digest));
    }
}
