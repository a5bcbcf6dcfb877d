//! The vend with a CA of our own: what the certificate will be is known before anything is written, and so the right to be
//! the device, the certificate and its place in the ledger are one write. Nothing is ever reserved, and nothing can be left
//! behind.
//!
//! ```text
//! 1 look    the right proof, the right state: strangers cost no signature
//! 2 sign    a certificate that nobody has seen
//! 3 enrol   the decision again, and what follows from it; only now does anybody receive it
//! ```

use crate::changes::{TRIES, contended};
use crate::vend::{Requested, decide, failed, record, refuse_key, turn_away};
use crate::{
    Attempt, Audit, AuditRecord, CertificateAuthority, CertificateLedger, Changes as _, Credential, Decision, Device,
    DeviceStore, KeyFingerprint, Outcome, PlatformError, Put, RefusedKeys, Superseded, Templates, VendError,
    VendRequest, Vended, Vending,
};

/// The vend, with what it needs.
#[derive(Debug)]
pub struct VendAtOnce<R, C, A> {
    /// The device registry, which is the ledger as well.
    pub registry: R,
    /// Who signs.
    pub authority: C,
    /// Where decisions are written down.
    pub audit: A,
    /// What devices become.
    pub templates: Templates,
    /// Keys that no device may have: known to be compromised, or somebody else's.
    pub refused_keys: RefusedKeys,
}

impl<R, C, A> Vending for VendAtOnce<R, C, A>
where
    R: CertificateLedger + DeviceStore,
    C: CertificateAuthority,
    A: Audit,
{
    async fn vend(&self, request: VendRequest) -> Result<Vended, VendError> {
        let is_refused = |key: &KeyFingerprint| self.refused_keys.contains(key) || self.authority.has_key(key);
        let Requested { attempt, csr, private_key, parameters } = request.parse(is_refused, &self.audit)?;
        let attempt = &attempt;
        let fail = |error: VendError| failed(&self.audit, attempt, error);
        for _ in 0..TRIES {
            let found = self.registry.find(&attempt.device).await.map_err(|error| fail(error.into()))?;
            let device = match (decide(found.as_ref(), attempt), found) {
                (Decision::Provision, Some(device)) => device,
                (decision, found) => {
                    if matches!(decision, Decision::Deny(_)) {
                        self.tell_of_stranger(attempt).await;
                    }
                    let answer = turn_away(&self.registry, &self.audit, decision, found.as_ref(), attempt);
                    return Box::pin(answer).await;
                }
            };
            let resources =
                self.templates.evaluate(&device, &parameters).map_err(|error| fail(VendError::Parameters(error)))?;
            let signed = self.authority.certify(&csr, &resources.thing.name).await;
            let (issued, entry) = signed.map_err(|error| fail(error.into()))?;
            if let Err(defect) = issued.certificate.lint(csr.key().fingerprint()) {
                return Err(fail(PlatformError::Defective { source: defect.into() }.into()));
            }
            let credential = Credential::new(&issued, attempt, &resources);
            match Box::pin(self.registry.enrol(&device, attempt, &credential, &entry)).await {
                Ok(Put::Done) => {
                    let Credential { certificate, thing, .. } = &credential;
                    record(&self.audit, attempt, Outcome::Provisioned { certificate, thing });
                    return Ok(Vended { credential, private_key, replayed: false });
                }
                Ok(Put::KeyInUse { owner, .. }) => {
                    return Err(Box::pin(refuse_key(&self.registry, &self.audit, &owner, &device, attempt)).await);
                }
                // Somebody else was faster, or an operator stepped in. The certificate is in no ledger and nobody has seen it.
                Ok(Put::Changed) => {}
                Err(error) => return Err(fail(error.into())),
            }
        }
        Err(fail(contended().into()))
    }

    fn record(&self, record: &AuditRecord<'_>) {
        self.audit.record(record);
    }
}

impl<R: CertificateLedger, C, A> VendAtOnce<R, C, A> {
    /// Each certificate of our CA is entered before anybody gets it. One that is not in the ledger and whose key somebody holds
    /// was handed out after the backup that the registry is from, or by somebody else who has the CA's key.
    async fn tell_of_stranger(&self, attempt: &Attempt) {
        let Some(shown) = &attempt.proof.shown else { return };
        if matches!(self.registry.entry(&shown.id).await, Ok(None)) {
            tracing::warn!(
                device = %attempt.device,
                certificate = %shown.id,
                "a certificate of our CA is not in the registry: this is an earlier registry, or others sign with the CA's key; \
                 `cvm ca revoke` takes it out of power"
            );
        }
    }
}

impl Device {
    /// Makes `credential` the device's at once. Call it only where [`Device::decide`] said
    /// [`Decision::Provision`]. Returns what has to lose its power in the same write.
    pub fn enrol(&mut self, attempt: &Attempt, credential: Credential) -> Vec<Superseded> {
        let succession = self.succession(attempt);
        self.provision(credential, succession.kept, attempt.now);
        succession.outdated
    }
}
