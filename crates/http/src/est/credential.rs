//! Who asks, and with what: HTTP Basic (RFC 7030 section 3.2.3, RFC 7617), or the certificate of the connection
//! (section 3.3.2).

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cvm_provisioning::{Certificate, DeviceId, DeviceIdFrom, EnrolmentToken};
use zeroize::Zeroizing;

use crate::Problem;
use crate::door::ClientCertificate;
use crate::media::single;

/// What a client has shown of itself.
pub(super) struct Credential {
    pub(super) device: DeviceId,
    pub(super) token: Option<EnrolmentToken>,
    pub(super) shown: Option<Arc<Certificate>>,
}

impl Credential {
    /// Reads it. Where there are both, they have to name the same device, unless names in subjects do not count.
    pub(super) fn of(
        headers: &HeaderMap,
        client: Option<&ClientCertificate>,
        from: DeviceIdFrom,
    ) -> Result<Self, Problem> {
        let shown = client.map(|ClientCertificate(certificate)| Arc::clone(certificate));
        let certified = shown.as_ref().and_then(|certificate| certified(certificate, from));
        let (device, token) = match (basic(headers)?, certified) {
            (Some((device, _)), Some(certified)) if device != certified && from != DeviceIdFrom::None => {
                let detail = "the user name and the certificate of the connection name two devices: send one of them";
                return Err(Problem::device_id_mismatch(detail));
            }
            (Some(basic), _) => basic,
            (None, Some(certified)) => (certified, None),
            (None, None) => return Err(unauthenticated()),
        };
        Ok(Self { device, token, shown })
    }
}

/// The device that a certificate names. A private CA writes the device's id into the common name, whatever the subject of the
/// signing request was.
fn certified(certificate: &Certificate, from: DeviceIdFrom) -> Option<DeviceId> {
    let subject = certificate.subject();
    let serial_number = subject.serial_number().ok().flatten().filter(|_| from == DeviceIdFrom::SerialNumber);
    serial_number.or_else(|| subject.common_name().ok().flatten()).cloned()
}

/// The device id and the enrolment token of `Authorization: Basic`. A device whose key is registered has no token: its
/// password is empty, and the CSR's signature is the proof. The last colon separates the two, and not the first as RFC
/// 7617 has it: an id can have some, a MAC address for example, and a token has none.
fn basic(headers: &HeaderMap) -> Result<Option<(DeviceId, Option<EnrolmentToken>)>, Problem> {
    let Some(value) = single(headers, &AUTHORIZATION)? else { return Ok(None) };
    let wanted = || Problem::authorization_invalid("send `Authorization: Basic` with base64 of DEVICE_ID:TOKEN");
    let (scheme, encoded) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or_else(wanted)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(unauthenticated());
    }
    let decoded = Zeroizing::new(STANDARD.decode(encoded.trim()).map_err(|_| wanted())?);
    let (device, token) = str::from_utf8(&decoded).ok().and_then(|text| text.rsplit_once(':')).ok_or_else(wanted)?;
    let device = device.parse().map_err(|error| Problem::device_id_invalid(format!("user name: {error}")))?;
    let token = match token {
        "" => None,
        token => Some(token.parse().or_else(|_| no_token())?),
    };
    Ok(Some((device, token)))
}

/// A token that no device has. A password that cannot be a token is a wrong one: the response does not say which lengths or
/// characters a right one has, and the attempt counts.
fn no_token() -> Result<EnrolmentToken, Problem> {
    EnrolmentToken::generate().map_err(|_| Problem::internal("there is no randomness to be had"))
}

fn unauthenticated() -> Problem {
    Problem::unauthenticated("send HTTP Basic with device id and enrolment token, or show the device's certificate")
}
