use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cvm_provisioning::ETag;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, IF_MATCH};
use reqwest::{Client, Method, StatusCode, Url};
use serde::de::DeserializeOwned;

use super::ApiError;
use super::patience::Patience;
use super::refusal::Refusal;
use super::token::OperatorToken;
use crate::address::Address;
use crate::https;
use crate::output::{Output, printable};

/// Asks a server's registry.
pub(crate) struct RegistryApi<'a> {
    client: Client,
    pub(super) address: Address,
    /// The file with the CAs that are trusted for the server's TLS, where it is not the system's.
    pub(super) root_ca: Option<PathBuf>,
    token: OperatorToken,
    output: &'a Output,
    /// Whether it has ever answered: a server that did is waited for when it is gone.
    answered: Cell<bool>,
    /// When it was last told that there is a wait.
    told: Cell<Option<Instant>>,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Vec<u8>>,
}

/// What was answered.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// Whether what was asked may be asked again where the answer was lost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Repeat {
    /// Twice is the same as once.
    Safe,
    /// It is not known then whether it was done, and somebody has to look.
    Unsafe,
}

/// Where a list goes on.
const CONTINUATION: HeaderName = HeaderName::from_static("x-ms-continuation");

impl<'a> RegistryApi<'a> {
    /// The longest one try may take: what `cvm serve` allows a request, 30 s, and the way there and back.
    const TIMEOUT: Duration = Duration::from_secs(45);
    /// The longest answer that is read, in bytes: the server ends a list at 4 MiB and one device.
    const MAX_ANSWER: usize = 16 * 1024 * 1024;
    /// Between two words about waiting.
    const TOLD: Duration = Duration::from_secs(15);

    pub(super) fn new(
        address: Address,
        root_ca: Option<&Path>,
        token: OperatorToken,
        output: &'a Output,
    ) -> Result<Self, ApiError> {
        if address.is_plain() && !address.is_local() {
            return Err(ApiError::Plain { address });
        }
        let client = https::client(&address, root_ca, None, Self::TIMEOUT)?;
        let root_ca = root_ca.map(Path::to_owned);
        Ok(Self { client, address, root_ca, token, output, answered: Cell::new(false), told: Cell::new(None) })
    }

    /// What is to be asked below these segments of the address.
    pub(super) fn request(&self, method: Method, segments: &[&str]) -> Ask {
        Ask { method, url: self.address.below(segments), headers: HeaderMap::new(), body: None }
    }

    /// Asks, as often as the server says to ask again, and where nothing else is lost by it as often as the answer is
    /// lost.
    pub(super) async fn ask(&self, ask: &Ask, repeat: Repeat) -> Result<Answer, ApiError> {
        self.ask_patiently(|_| ask.clone(), repeat, Patience::SHORT).await
    }

    /// The same, for so long, of what is asked in another way where it may have been done before.
    pub(super) async fn ask_patiently(
        &self,
        ask: impl Fn(bool) -> Ask,
        repeat: Repeat,
        length: Duration,
    ) -> Result<Answer, ApiError> {
        let (mut patience, mut again) = (Patience::new(length), false);
        loop {
            match self.ask_once(ask(again)).await {
                Ok(answer) => {
                    let Some(refusal) = answer.refusal().filter(Refusal::is_for_now) else { return Ok(answer) };
                    // Of what could not be answered it is not known whether it was done.
                    let is_repeated = repeat == Repeat::Safe || answer.status == StatusCode::TOO_MANY_REQUESTS;
                    let pause = patience.next(https::retry_after(&answer.headers)).filter(|_| is_repeated);
                    let Some(pause) = pause else { return Err(refusal.into()) };
                    again |= answer.status != StatusCode::TOO_MANY_REQUESTS;
                    self.wait(pause, &format!("{} {}", refusal.status, refusal.words)).await?;
                }
                Err(error) if repeat == Repeat::Safe && self.is_lost(&error) => {
                    let Some(pause) = patience.next(None) else { return Err(error) };
                    again = true;
                    self.wait(pause, "the answer was lost").await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether an answer was lost, or a server that has answered is gone for a while: nobody waits for one that was never
    /// there.
    fn is_lost(&self, error: &ApiError) -> bool {
        matches!(error, ApiError::NoAnswer { source, .. } if self.answered.get() || !source.is_connect())
    }

    async fn ask_once(&self, Ask { method, url, headers, body }: Ask) -> Result<Answer, ApiError> {
        let failed = |source| {
            let address = self.address.clone();
            match https::is_not_http(&address, &source) {
                true => ApiError::NotHttp { address, source },
                false => ApiError::NoAnswer { address, source },
            }
        };
        let mut request = self.client.request(method, url).headers(headers).header(ACCEPT, "application/json");
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        // reqwest marks the header as one not to be shown.
        let response = request.bearer_auth(self.token.reveal()).send().await.map_err(failed)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = https::body(response, Self::MAX_ANSWER).await.map_err(failed)?;
        let body = body.ok_or(ApiError::AnswerTooLarge { limit: Self::MAX_ANSWER })?;
        self.answered.set(true);
        Ok(Answer { status, headers, body })
    }

    /// Waits, and says so now and then.
    pub(super) async fn wait(&self, pause: Duration, why: &str) -> Result<(), ApiError> {
        if self.told.get().is_none_or(|told| told.elapsed() > Self::TOLD) {
            self.told.set(Some(Instant::now()));
            let why = printable(why).replace('\n', " ");
            let seconds = pause.as_secs_f64();
            self.output
                .redraw("")
                .and_then(|_| self.output.note(format_args!("{why}; asking again in {seconds:.1} s")))
                .map_err(ApiError::Output)?;
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

impl Ask {
    /// With this in the query, where there is something.
    pub(super) fn query(mut self, name: &str, value: Option<impl AsRef<str>>) -> Self {
        if let Some(value) = value {
            self.url.query_pairs_mut().append_pair(name, value.as_ref());
        }
        self
    }

    /// For a device that has this entity tag, or for whatever is there.
    pub(super) fn if_match(mut self, expected: Option<&ETag>) -> Self {
        let tag = expected.and_then(|etag| HeaderValue::try_from(format!("\"{etag}\"")).ok());
        self.headers.insert(IF_MATCH, tag.unwrap_or(HeaderValue::from_static("*")));
        self
    }

    pub(super) fn json(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: Some(body.into()), ..self }
    }
}

impl Answer {
    pub(super) const fn status(&self) -> StatusCode {
        self.status
    }

    /// Why it was not done, where it was not.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        let refused = !self.status.is_success();
        refused.then(|| Refusal::new(self.status.as_u16(), &self.headers, &self.body))
    }

    /// The answer, where it was done.
    pub(super) fn done(self) -> Result<Self, ApiError> {
        match self.refusal() {
            None => Ok(self),
            Some(refusal) => Err(refusal.into()),
        }
    }

    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_json::from_slice(&self.body).map_err(ApiError::not_understood)
    }

    /// Where the list goes on that was asked for from `after` on.
    pub(super) fn next(&self, after: Option<&str>) -> Result<Option<String>, ApiError> {
        let Some(place) = self.headers.get(CONTINUATION) else { return Ok(None) };
        match place.to_str() {
            Ok(place) if Some(place) != after => Ok(Some(place.to_owned())),
            _ => Err(ApiError::not_understood("the list does not go on")),
        }
    }
}
