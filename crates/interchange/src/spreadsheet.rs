//! A device as a row of a table in CSV (RFC 4180), for spreadsheets.

use cvm_provisioning::KeyOrigin;

use crate::DeviceDocument;
use crate::table::is_formula;

/// The first row, with its line end. An import takes such a table; what the service has made of a device, and the
/// digests of tokens, are in an export in JSON only.
pub const SPREADSHEET_HEADER: &str = "deviceId,status,statusReason,group,template,keyOrigin,proof,publicKey,state,\
                                      certificateId,notAfter,createdAt,updatedAt\r\n";

/// The row of a device, with its line end.
pub fn spreadsheet_row(device: &DeviceDocument) -> String {
    let told = &device.cvm;
    let proof = told.extension.attestation.as_ref();
    let text = |value: Option<&dyn ToString>| value.map(ToString::to_string).unwrap_or_default();
    let certificate = told.certificate.as_ref();
    let cells = [
        device.device_id.to_string(),
        device.status.clone(),
        text(device.status_reason.as_ref().map(|reason| reason as _)),
        text(told.extension.group.as_ref().and_then(Option::as_ref).map(|group| group as _)),
        text(told.extension.template.as_ref().and_then(Option::as_ref).map(|template| template as _)),
        if told.extension.key_origin == Some(KeyOrigin::Service) { "service" } else { "device" }.to_owned(),
        proof.map(|proof| proof.kind.clone()).unwrap_or_default(),
        text(proof.and_then(|proof| proof.public_key.as_ref()).map(|key| key as _)),
        told.state.clone(),
        text(certificate.map(|certificate| &certificate.certificate_id as _)),
        text(certificate.map(|certificate| &certificate.not_after as _)),
        told.created_at.to_string(),
        told.updated_at.to_string(),
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
    use crate::Keys;

    #[test]
    fn threat_41_no_cell_of_an_export_is_a_formula() {
        let mut device = device("-sn-1");
        device.disable(Some("=HYPERLINK(\"http://x\",\"y\")".parse().unwrap()), later(1));
        let row = spreadsheet_row(&DeviceDocument::new(&device, None, &Keys::default()));
        assert!(
            row.starts_with("'-sn-1,disabled,\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\",,,device,token,,"),
            "{row}"
        );
        assert_eq!(SPREADSHEET_HEADER.matches(',').count(), 12);
    }
}
