use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use cvm_provisioning::{DeviceId, EnrolmentToken};
use reqwest::header::ACCEPT;
use reqwest::{Client, Identity};
use serde::Serialize;

use super::VendError;
use super::key::Key;
use super::problem::Problem;
use crate::address::Address;
use crate::https;
use crate::output::{Output, printable};

/// Calls the vending API.
#[derive(Debug)]
pub(super) struct Caller {
    client: Client,
    address: Address,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    device_id: &'a DeviceId,
    #[serde(skip_serializing_if = "Option::is_none")]
    csr: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    parameters: &'a BTreeMap<String, String>,
}

impl Caller {
    const PATH: &str = "/v1/certificates";
    /// The longest one try may take: what API Gateway waits for an integration, 30 s (API Gateway quotas, HTTP APIs),
    /// and the way there and back.
    const TIMEOUT: Duration = Duration::from_secs(40);
    /// How often is asked where the answer is to ask again.
    const TRIES: u32 = 6;
    /// The longest pause that is obeyed; a longer one is better spent elsewhere.
    const MAX_PAUSE: Duration = Duration::from_secs(60);
    /// The pause where the answer does not say how long.
    const PAUSE: Duration = Duration::from_secs(3);
    /// The longest answer that is read, in bytes: two certificates, a key and a device configuration many times over.
    const MAX_ANSWER: usize = 256 * 1024;

    /// Returns a caller of this address. It trusts the CAs in `root_ca`, or those of the system without it, and presents
    /// `identity`, the certificate of the device and its key.
    pub(super) fn new(address: Address, root_ca: Option<&Path>, identity: Option<Identity>) -> Result<Self, VendError> {
        let client = https::client(&address, root_ca, identity, Self::TIMEOUT)?;
        Ok(Self { client, address })
    }

    /// Asks for a certificate, as often as the API says to ask again, and returns what it hands out.
    pub(super) async fn call(
        &self,
        device: &DeviceId,
        key: Option<&Key>,
        token: Option<&EnrolmentToken>,
        parameters: &BTreeMap<String, String>,
        output: &Output,
    ) -> Result<Vec<u8>, VendError> {
        let request = Request { device_id: device, csr: key.map(|key| key.csr().pem()), parameters };
        let mut tries = 1;
        loop {
            let (problem, pause) = match self.ask(&request, token).await? {
                Ok(answer) => return Ok(answer),
                Err(refused) => refused,
            };
            let pause = pause.unwrap_or(Self::PAUSE);
            if !problem.is_passing() || tries == Self::TRIES || pause > Self::MAX_PAUSE {
                return Err(VendError::Problem { device: device.clone(), problem });
            }
            tries += 1;
            output
                .note(format_args!(
                    "{status} {words}; asking again in {pause} s (try {tries} of {most})",
                    status = problem.status,
                    words = printable(&problem.words).replace('\n', " "),
                    pause = pause.as_secs(),
                    most = Self::TRIES,
                ))
                .map_err(VendError::Output)?;
            tokio::time::sleep(pause).await;
        }
    }

    /// Asks once.
    async fn ask(
        &self,
        request: &Request<'_>,
        token: Option<&EnrolmentToken>,
    ) -> Result<Result<Vec<u8>, (Problem, Option<Duration>)>, VendError> {
        let mut call = self.client.post(self.address.at(Self::PATH)).header(ACCEPT, "application/json").json(request);
        if let Some(token) = token {
            // reqwest marks the header as one not to be shown.
            call = call.bearer_auth(token.reveal());
        }
        let response = call.send().await.map_err(|error| self.no_answer(error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = https::body(response, Self::MAX_ANSWER).await.map_err(|error| self.no_answer(error))?;
        let body = body.ok_or(VendError::AnswerTooLarge { limit: Self::MAX_ANSWER })?;
        if matches!(status.as_u16(), 200 | 201) {
            return Ok(Ok(body));
        }
        let request_id = headers.get("x-request-id").and_then(|id| id.to_str().ok());
        Ok(Err((Problem::new(status.as_u16(), request_id, &body), https::retry_after(&headers))))
    }

    fn no_answer(&self, error: reqwest::Error) -> VendError {
        match https::is_not_http(&self.address, &error) {
            true => VendError::NotHttp { address: self.address.clone(), source: error },
            false => VendError::NoAnswer(error),
        }
    }
}
