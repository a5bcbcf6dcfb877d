//! What each fuzz target does with its input, as plain functions, so that a test can call them as well as libFuzzer.
//!
//! A body panics if a rule is broken. A target is a function here, a file of three lines in `fuzz_targets/`, a
//! `[[bin]]`, a folder in `corpus/` and a line in `tests/smoke.rs`.

use cvm_authority::OcspRequest;
use cvm_provisioning::{
    Certificate, Csr, DeviceId, DeviceIdFrom, DeviceNaming, Parameters, ProvisioningTemplate, PublicKey, SubjectAttribute,
};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

/// A signing request, as DER and as text. One that is accepted reads the same again from its canonical text, which is
/// short enough for AWS IoT, and the device that its subject names may send it.
pub fn csr(data: &[u8]) {
    let accepted = [Csr::from_der(data).ok(), str::from_utf8(data).ok().and_then(|text| Csr::parse(text).ok())];
    for csr in accepted.into_iter().flatten() {
        assert!(csr.pem().len() <= Csr::MAX_PEM);
        for from in [DeviceIdFrom::CommonName, DeviceIdFrom::SerialNumber, DeviceIdFrom::Either, DeviceIdFrom::None] {
            if let Ok(Some(device)) = from.device(csr.subject()) {
                assert!(from.allows(csr.subject(), device));
            }
        }
        assert_eq!(PublicKey::from_spki(csr.key().spki()).as_ref(), Ok(csr.key()));
        assert_eq!(Csr::parse(csr.pem()), Ok(csr));
    }
}

/// A factory certificate, as DER and as text: a device shows it, and any CA that is registered may have made it. One that
/// is read has the id of its own bytes, and whatever it names as its device is a device id.
pub fn certificate(data: &[u8]) {
    let text = str::from_utf8(data).ok().and_then(|text| Certificate::parse(text).ok());
    for certificate in [Certificate::from_der(data).ok(), text].into_iter().flatten() {
        assert_eq!(Certificate::parse(certificate.pem()).as_ref().map(Certificate::id), Ok(certificate.id()));
        for attribute in [SubjectAttribute::CommonName, SubjectAttribute::SerialNumber] {
            if let Ok(device) = DeviceNaming::by(attribute).device(&certificate) {
                assert!((1..=DeviceId::MAX_LENGTH).contains(&device.as_str().len()));
            }
        }
        let _ = certificate.lint(certificate.key());
    }
}

/// A question whether certificates are revoked, which anybody may ask. What is read of it is within its bounds.
pub fn ocsp_request(data: &[u8]) {
    if let Ok(request) = OcspRequest::parse(data) {
        assert!(data.len() <= OcspRequest::MAX_LENGTH);
        assert!((1..=OcspRequest::MAX_CERTIFICATES).contains(&request.certificates().len()));
        assert!(request.nonce().is_none_or(|nonce| (1..=OcspRequest::MAX_NONCE).contains(&nonce.len())));
    }
}

/// A provisioning template, which is the operator's, and then its evaluation, whose values are the device's.
pub fn template(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    // What follows the first NUL are values for the parameters that the template declares, one a line.
    let (body, values) = text.split_once('\0').unwrap_or((text, ""));
    let Ok(template) = ProvisioningTemplate::parse(body) else { return };
    let mut parameters = Parameters::default();
    for ((name, _), value) in template.parameters().zip(values.lines()) {
        if parameters.insert(name, value).is_err() {
            return;
        }
    }
    if let Ok(resources) = template.evaluate(&parameters) {
        assert!((1..=128).contains(&resources.thing.name.as_str().len()));
    }
}

/// An HTTP request to the vend: header lines `name: value`, a blank line, the body.
pub fn vend_request(data: &[u8]) {
    let (headers, body) = http_request(data);
    let uri = Uri::from_static("/v1/certificates");
    if let Err(problem) = cvm_http::parse(&uri, &headers, body) {
        assert!(!problem.code().is_empty());
    }
}

/// The same to EST, as a request for a certificate and as one for a key.
pub fn est_request(data: &[u8]) {
    let (headers, body) = http_request(data);
    let uri = Uri::from_static("/.well-known/est/simpleenroll");
    if let Err(problem) = cvm_http::parse_est(&uri, &headers, body) {
        assert!(!problem.code().is_empty());
    }
}

fn http_request(data: &[u8]) -> (HeaderMap, &[u8]) {
    let end = data.windows(2).position(|pair| pair == b"\n\n").unwrap_or(0);
    let (head, body) = (&data[..end], data.get(end + 2..).unwrap_or_default());
    let mut headers = HeaderMap::new();
    for line in head.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&line[colon + 1..]));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    (headers, body)
}
