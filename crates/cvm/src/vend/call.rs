use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use cvm_provisioning::{Certificate, DeviceId, EnrolmentToken};
use reqwest::header::{ACCEPT, HeaderMap, RETRY_AFTER};
use reqwest::{Client, Response, redirect};
use serde::Serialize;

use super::VendError;
use super::address::Address;
use super::key::Key;
use super::problem::Problem;
use crate::file;
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
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
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

    /// A caller of this address, which trusts the CAs in `root_ca` or, without it, those of the system.
    pub(super) fn new(address: Address, root_ca: Option<&Path>) -> Result<Self, VendError> {
        let mut builder = Client::builder()
            .connect_timeout(Self::CONNECT_TIMEOUT)
            .timeout(Self::TIMEOUT)
            // A token is for the address that was given and for no other.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("cvm/", env!("CARGO_PKG_VERSION")));
        if address.is_local() {
            builder = builder.no_proxy();
        }
        if let Some(path) = root_ca {
            let unusable = |source| VendError::RootCa { path: path.to_owned(), source };
            let pem = file::read(path, 4 * Certificate::MAX_TEXT)?;
            let authorities = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| unusable(Some(error)))?;
            if authorities.is_empty() {
                return Err(unusable(None));
            }
            builder = builder.tls_certs_only(authorities);
        } else if address.is_plain() {
            // Without TLS there is nothing to trust, so a system without CAs is none to refuse.
            builder = builder.tls_certs_only([]);
        }
        Ok(Self { client: builder.build().map_err(VendError::Client)?, address })
    }

    /// Whether others can read what is sent.
    pub(super) fn is_readable_on_the_way(&self) -> bool {
        self.address.is_plain() && !self.address.is_local()
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
        let mut call = self.client.post(self.address.url().clone()).header(ACCEPT, "application/json").json(request);
        if let Some(token) = token {
            // reqwest marks the header as one not to be shown.
            call = call.bearer_auth(token.reveal());
        }
        let response = call.send().await.map_err(VendError::NoAnswer)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = body(response).await?;
        if matches!(status.as_u16(), 200 | 201) {
            return Ok(Ok(body));
        }
        let request_id = headers.get("x-request-id").and_then(|id| id.to_str().ok());
        Ok(Err((Problem::new(status.as_u16(), request_id, &body), retry_after(&headers))))
    }
}

async fn body(mut response: Response) -> Result<Vec<u8>, VendError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(VendError::NoAnswer)? {
        if body.len() + chunk.len() > Caller::MAX_ANSWER {
            return Err(VendError::AnswerTooLarge { limit: Caller::MAX_ANSWER });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// How long the answer says to wait, where it says so in seconds (RFC 9110 section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}
