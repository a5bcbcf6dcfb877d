//! The enrolment tokens that an import makes: lines of JSON, kept before any device depends on one.

use std::collections::BTreeMap;
use std::io::{self, BufRead};

use cvm_interchange::ImportLine;
use cvm_provisioning::{Attestation, EnrolmentToken};
use serde::Deserialize;
use serde_json::json;

/// The tokens that were made for these lines.
pub(crate) fn token_lines<'a>(lines: impl Iterator<Item = &'a ImportLine>) -> String {
    let made = lines.filter(|line| line.keys.primary.is_some() || line.keys.secondary.is_some());
    made.map(|ImportLine { line, entry, keys, .. }| {
        let module = entry.module.as_ref().map(|(module, _)| module);
        let [token, second] = [&keys.primary, &keys.secondary].map(|key| key.as_ref().map(|key| key.reveal()));
        let value = json!({
            "line": line, "deviceId": entry.id, "moduleId": module, "token": token, "secondToken": second,
        });
        format!("{value}\n")
    })
    .collect()
}

/// The tokens that were kept for a batch which was cut off: devices may have got them.
#[derive(Debug, Default)]
pub struct KeptTokens(BTreeMap<u64, Kept>);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    line: u64,
    token: Option<String>,
    second_token: Option<String>,
}

impl KeptTokens {
    /// Adds those that are in this text, and returns the length in bytes of its whole lines: the last one may have been
    /// cut off, and is none then.
    ///
    /// # Errors
    ///
    /// When the text cannot be read.
    pub fn read(&mut self, text: &mut impl BufRead) -> io::Result<u64> {
        let (mut end, mut line) = (0, Vec::new());
        while text.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            end += line.len() as u64;
            if let Ok(token) = serde_json::from_slice::<Kept>(&line) {
                self.0.insert(token.line, token);
            }
            line.clear();
        }
        Ok(end)
    }

    /// Gives a line the tokens that were made for it before, and says whether there were any.
    pub(crate) fn give(&self, line: &mut ImportLine) -> bool {
        let Some(kept) = self.0.get(&line.line) else { return false };
        let token = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<EnrolmentToken>().ok());
        let (Some(primary), secondary) = (token(&kept.token), token(&kept.second_token)) else { return false };
        let attestation = match &mut line.entry.module {
            Some((_, settings)) => &mut settings.attestation,
            None => &mut line.entry.settings.attestation,
        };
        if let Some(Attestation::Token { digest, second, .. }) = attestation {
            *digest = primary.digest();
            *second = secondary.as_ref().map(EnrolmentToken::digest).or(*second);
        }
        true
    }
}
