//! An import to a server: `POST /devices`, a hundred lines at a time.

use std::collections::{BTreeMap, BTreeSet};

use cvm_bulk::{ImportRegistry, Refused};
use cvm_interchange::{BulkAnswer, BulkError, IdentityLine, ImportLine};
use cvm_provisioning::{DeviceId, ETag, GenerationId, ImportEntry, ImportMode, Imported, Settings};
use futures_util::{StreamExt as _, stream};
use reqwest::{Method, StatusCode};

use super::ask::{Answer, Ask, Repeat};
use super::patience::Patience;
use super::refusal::{Refusal, word};
use super::{ApiError, RegistryApi};
use crate::device::{AddError, DeviceError};

/// The most entries that the server takes at once.
const MAX_ENTRIES: usize = 100;
/// The most bytes of them: the server takes 512 KiB.
const MAX_BYTES: usize = 500 * 1024;
/// Requests at once: each is worked off one entry after the other.
const CONCURRENCY: usize = 8;

/// How entries are meant.
#[derive(Clone, Copy, Debug, Default)]
struct Manner {
    /// They may have been done before.
    again: bool,
    /// They are lines of an export.
    restore: bool,
}

/// What became of an entry.
type Done = Result<Imported, BulkError>;

impl ImportRegistry for RegistryApi<'_> {
    type Error = ApiError;

    /// Asks for a change of a state that no device is in, so that nothing is changed: of those that are not there the
    /// server says just that.
    async fn there(&self, devices: Vec<DeviceId>) -> Result<BTreeSet<DeviceId>, ApiError> {
        let looks = devices.into_iter().map(|id| ImportEntry {
            id,
            module: None,
            etag: Some(ETag::of(GenerationId::new(0), 0)),
            mode: ImportMode::UpdateIfMatchETag,
            settings: Settings::default(),
        });
        let looks: Vec<_> = looks.collect();
        let entries: Vec<_> = looks.iter().map(written).collect::<Result<_, _>>()?;
        let (mut there, mut is_clear) = (BTreeSet::new(), true);
        self.send_all(&entries, Manner::default(), CONCURRENCY, |entry, done| match done {
            Err(error) if error.error_code == "DeviceNotFound" => {}
            Err(error) if error.error_code == "PreconditionFailed" => {
                there.insert(looks[entry].id.clone());
            }
            _ => is_clear = false,
        })
        .await?;
        match is_clear {
            true => Ok(there),
            false => Err(ApiError::not_understood("it does not say which devices are there")),
        }
    }

    async fn write(
        &self,
        lines: &[ImportLine],
        again: bool,
        mut told: impl FnMut(&ImportLine, Result<Imported, Refused>),
    ) -> Result<(), ApiError> {
        let restore = lines.iter().any(|line| line.device.is_some());
        let entries = lines.iter().map(|line| match &line.device {
            Some(device) => serde_json::to_string(&IdentityLine::of(device, true)).map_err(ApiError::not_understood),
            None => written(&line.entry),
        });
        let entries: Vec<_> = entries.collect::<Result<_, _>>()?;
        // A module's line may come right after that of its device, and has to be done after it.
        let concurrency = if lines.iter().any(|line| line.entry.module.is_some()) { 1 } else { CONCURRENCY };
        let manner = Manner { again, restore };
        let told = |entry: usize, done: Done| told(&lines[entry], done.map_err(|error| refused(&error)));
        self.send_all(&entries, manner, concurrency, told).await
    }
}

impl RegistryApi<'_> {
    /// Registers a device.
    pub(super) async fn create(&self, entry: &ImportEntry) -> Result<(), DeviceError> {
        let entries = [written(entry)?];
        match self.send(&entries, Manner::default()).await?.pop() {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) if error.error_code == "DeviceAlreadyExists" => {
                Err(AddError::Exists { id: entry.id.clone() }.into())
            }
            Some(Err(error)) if error.error_code == "GenericConflict" => {
                Err(AddError::KeyInUse { message: error.reason().to_owned() }.into())
            }
            Some(Err(error)) => {
                // A store that failed may have done it all the same.
                let is_final = error.error_code != "ServerError";
                Err(ApiError::NotDone { reason: error.reason().to_owned(), is_final }.into())
            }
            None => Err(ApiError::not_understood("it says nothing of the device").into()),
        }
    }

    /// Sends these entries, some portions of them at once, and tells of each whether it is done.
    async fn send_all(
        &self,
        entries: &[String],
        manner: Manner,
        concurrency: usize,
        mut told: impl FnMut(usize, Done),
    ) -> Result<(), ApiError> {
        let sent = portions(entries).into_iter().map(async |portion| {
            let done = self.send(&entries[portion.clone()], manner).await?;
            Ok::<_, ApiError>((portion, done))
        });
        let mut sent = stream::iter(sent).buffer_unordered(concurrency);
        while let Some(portion) = sent.next().await {
            let (entries, done) = portion?;
            entries.zip(done).for_each(|(entry, done)| told(entry, done));
        }
        Ok(())
    }

    /// Sends these entries until the server says of each whether it is done. What it has no time for is sent again, as
    /// are all where the answer is lost: they may have been done then.
    async fn send(&self, entries: &[String], manner: Manner) -> Result<Vec<Done>, ApiError> {
        let Manner { mut again, restore } = manner;
        let mut done: BTreeMap<usize, Done> = BTreeMap::new();
        let mut left: Vec<usize> = (0..entries.len()).collect();
        let mut patience = Patience::new(Patience::LONG);
        while !left.is_empty() {
            let body = format!("[{}]", left.iter().map(|entry| entries[*entry].as_str()).collect::<Vec<_>>().join(","));
            let ask = |lost: bool| -> Ask {
                let ask = self.request(Method::POST, &["devices"]).json(body.as_str());
                let ask = ask.query("again", (again || lost).then_some("true"));
                ask.query("restore", restore.then_some("true"))
            };
            let answer = self.ask_patiently(ask, Repeat::Safe, Patience::LONG).await?;
            if let (Some(refusal), [only]) = (answer.refusal().filter(is_too_large), left.as_slice()) {
                let error_status = BulkError::status(1, &refusal.words);
                let (device_id, error_code) = (String::new(), "MessageTooLarge".to_owned());
                done.insert(*only, Err(BulkError { device_id, module_id: None, error_code, error_status }));
                break;
            }
            let (mut waiting, mut why) = (Vec::new(), String::new());
            for (entry, told) in left.iter().zip(told(answer, left.len())?) {
                match told {
                    Err(error) if is_for_now(&error) => {
                        waiting.push(*entry);
                        error.reason().clone_into(&mut why);
                    }
                    told => {
                        done.insert(*entry, told);
                    }
                }
            }
            left = waiting;
            if !left.is_empty() {
                // The store may have done what it did not answer.
                again = true;
                let pause = patience.next(None).ok_or(ApiError::NotDone { reason: why.clone(), is_final: false })?;
                self.wait(pause, &why).await?;
            }
        }
        Ok(done.into_values().collect())
    }
}

/// What the answer says of each of so many entries.
fn told(answer: Answer, entries: usize) -> Result<Vec<Done>, ApiError> {
    // 400 is said where some were not done, too.
    let answer = match answer.json::<BulkAnswer>() {
        Ok(told) if matches!(answer.status(), StatusCode::OK | StatusCode::BAD_REQUEST) => told,
        Ok(_) => return Err(ApiError::not_understood("it does not fit its status")),
        Err(error) => {
            answer.done()?;
            return Err(error);
        }
    };
    let mut errors = answer.errors.into_iter();
    let told: Option<Vec<Done>> =
        answer.cvm.entries.into_iter().map(|entry| entry.map(Ok).or_else(|| errors.next().map(Err))).collect();
    let told = told.filter(|told| told.len() == entries && errors.next().is_none());
    told.ok_or_else(|| ApiError::not_understood("it does not say what became of each entry"))
}

const fn is_too_large(refusal: &Refusal) -> bool {
    refusal.status == 413
}

fn is_for_now(error: &BulkError) -> bool {
    matches!(error.error_code.as_str(), "ThrottlingException" | "ServiceUnavailable")
}

/// The same as a table says it.
fn refused(error: &BulkError) -> Refused {
    Refused { code: word(&error.error_code), message: error.reason().to_owned() }
}

fn written(entry: &ImportEntry) -> Result<String, ApiError> {
    serde_json::to_string(&IdentityLine::asking(entry)).map_err(ApiError::not_understood)
}

/// The entries that are sent together, one range after the other. One that is too long goes alone, and is refused alone.
fn portions(entries: &[String]) -> Vec<std::ops::Range<usize>> {
    let mut portions = Vec::new();
    let (mut begin, mut bytes) = (0, 0);
    for (number, entry) in entries.iter().enumerate() {
        if number > begin && (number - begin == MAX_ENTRIES || bytes + entry.len() > MAX_BYTES) {
            portions.push(begin..number);
            (begin, bytes) = (number, 0);
        }
        bytes += entry.len() + 1;
    }
    if begin < entries.len() {
        portions.push(begin..entries.len());
    }
    portions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_together_is_as_much_as_the_server_takes() {
        assert!(portions(&[]).is_empty());
        let short = vec!["{}".to_owned(); 250];
        assert_eq!(portions(&short), [0..100, 100..200, 200..250]);
        let long = "x".repeat(MAX_BYTES / 2);
        let mixed = ["{}".to_owned(), long.clone(), long.clone(), "x".repeat(2 * MAX_BYTES), "{}".to_owned()];
        assert_eq!(portions(&mixed), [0..2, 2..3, 3..4, 4..5]);
    }
}
