//! A device as a row of a table in CSV (RFC 4180), for spreadsheets.

use cvm_provisioning::{Device, KeyOrigin};

use crate::AttestationDocument;
use crate::table::is_formula;

/// The first row, with its line end. An import takes such a table; what the service has made of a device, and the
/// digests of tokens, are in an export in JSON only.
pub const SPREADSHEET_HEADER: &str = "deviceId,status,statusReason,group,template,keyOrigin,proof,publicKey,state,\
                                      certificateId,notAfter,createdAt,updatedAt\r\n";

/// The row of a device, with its line end.
pub fn spreadsheet_row(device: &Device) -> String {
    let proof = AttestationDocument::from(&device.attestation);
    let text = |value: Option<&dyn ToString>| value.map(ToString::to_string).unwrap_or_default();
    let credential = device.credential.as_ref();
    let cells = [
        device.id.to_string(),
        device.status.name().to_owned(),
        text(device.status.reason.as_ref().map(|reason| reason as _)),
        text(device.group.as_ref().map(|group| group as _)),
        text(device.template.as_ref().map(|template| template as _)),
        if device.key_origin == KeyOrigin::Service { "service" } else { "device" }.to_owned(),
        proof.kind,
        text(proof.public_key.as_ref().map(|key| key as _)),
        device.state.name().to_owned(),
        text(credential.map(|credential| &credential.certificate as _)),
        text(credential.map(|credential| &credential.not_after as _)),
        device.created_at.to_string(),
        device.updated_at.to_string(),
    ];
    cells.map(|cell| escaped(&cell)).join(",") + "\r\n"
}

/// A cell that no spreadsheet takes for a formula, quoted where it has to be.
fn escaped(cell: &str) -> String {
    let cell = if is_formula(cell) || cell.starts_with('\'') { format!("'{cell}") } else { cell.to_owned() };
    if cell.contains([',', '"', '\r', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
}

#[cfg(test)]
mod tests {
    use cvm_testkit::fixture::{device, later};

    use super::*;

    #[test]
    fn threat_41_no_cell_of_an_export_is_a_formula() {
        let mut device = device("-sn-1");
        device.disable(Some("=HYPERLINK(\"http://x\",\"y\")".parse().unwrap()), later(1));
        let row = spreadsheet_row(&device);
        assert!(
            row.starts_with("'-sn-1,disabled,\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\",,,device,token,,"),
            "{row}"
        );
        assert_eq!(SPREADSHEET_HEADER.matches(',').count(), 12);
    }
}
