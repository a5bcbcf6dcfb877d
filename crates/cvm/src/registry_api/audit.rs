//! `cvm audit` on a server.

use cvm_interchange::AuditDocument;
use cvm_provisioning::{AuditPage, AuditQuery};
use reqwest::Method;

use super::ask::Repeat;
use super::{ApiError, RegistryApi};

impl RegistryApi<'_> {
    /// At most `limit` entries of the trail, the latest first.
    pub(crate) async fn audit(
        &self,
        query: &AuditQuery,
        after: Option<&str>,
        limit: u16,
    ) -> Result<AuditPage, ApiError> {
        let ask = self
            .request(Method::GET, &["audit"])
            .query("device", query.device.as_ref().map(|device| device.as_str()))
            .query("since", Some(query.since.to_string()))
            .query("until", Some(query.until.to_string()))
            .query("top", Some(limit.to_string()))
            .query("continuation", after);
        let answer = self.ask(&ask, Repeat::Safe).await?.done()?;
        let entries: Vec<AuditDocument<'_>> = answer.json()?;
        let entries: Option<Vec<_>> = entries.into_iter().map(AuditDocument::entry).collect();
        let entries = entries.ok_or_else(|| ApiError::not_understood("an entry of the trail is none"))?;
        Ok(AuditPage { entries, next: answer.next(after)? })
    }
}
