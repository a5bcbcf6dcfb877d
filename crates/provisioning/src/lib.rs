//! The decision behind every door: *this device says it is X and offers this proof and this key; may it become X, and
//! what does it get?*
//!
//! The crate knows no AWS, no HTTP, no SQL and has no clock of its own. A door decodes its event into a request,
//! calls the decision and encodes the answer; the ports at the edge carry the effects.
//!
//! | to find | look in |
//! |---|---|
//! | a device and the states it goes through | [`Device`] |
//! | whether it may | [`Device::decide`] |
//! | what it becomes | [`ProvisioningTemplate`] |
//! | what happens then | [`Vend`] |
//! | what it needs from the world | [`Reservations`], [`DeviceStore`], [`Platform`], [`Audit`] |

mod attempt;
mod attestation;
mod audit;
mod certificate;
mod claim;
mod confirm;
mod credential;
mod csr;
mod decision;
mod der;
mod device;
mod device_id;
mod device_key;
mod device_naming;
mod digest;
mod elliptic_curve;
mod first_connect;
mod key;
mod name;
mod pem;
mod policy_lint;
mod ports;
mod pre_provisioning;
mod reason;
mod reconcile;
mod rsa;
mod signature;
mod template;
mod template_name;
mod templates;
mod timestamp;
mod trusted_users;
mod vend;
mod wrong_proofs;

pub use attempt::{Attempt, AttemptId, Leftover, Remains, Reservation, ReservationLost};
pub use attestation::{
    Attestation, EnrolmentToken, GroupCredential, InvalidGroupCredential, InvalidToken, InvalidTokenDigest,
    InvalidTrustedUser, Proof, TokenDigest, TrustedUser, TrustedUserClaim,
};
pub use audit::{AuditRecord, LogAudit, Origin, Outcome};
pub use certificate::{BadCertificate, Certificate, CertificateDefect};
pub use claim::{Claim, MadeOut};
pub use confirm::{Confirm, ConfirmError, Confirmation, Connection};
pub use credential::{Credential, IssuedCertificate, IssuedClaim, RegisteredCertificate, Standing};
pub use csr::{Csr, CsrError};
pub use decision::{Decision, Denial, Refusal};
pub use der::BadDer;
pub use device::{Device, GenerationId, KeyOrigin, LastRefusal, NotQuarantined, State, Status, Unsettled, Verdict};
pub use device_id::{DeviceId, InvalidDeviceId};
pub use device_key::{DeviceKey, DeviceKeyError};
pub use device_naming::{DeviceNaming, InvalidPattern, Unnamed};
pub use digest::{CertificateId, InvalidDigest, KeyFingerprint};
pub use first_connect::{Admission, FirstConnect, FirstConnectError, RefusedCertificates, Registration};
pub use key::{BadKey, KeyAlgorithm, PublicKey, RefusedKeys};
pub use name::{BadName, SubjectAttribute};
pub use pem::BadPem;
pub use policy_lint::{PolicyFinding, PolicyProblem, Severity, lint_policy};
pub use ports::{
    Audit, CertificateIndex, CertificateOwner, CertificateSummary, Certificates, ClaimIssuer, ClaimStore, Cursors,
    DeviceStore, Inventory, InventoryPage, Page, Platform, PlatformError, RegistryError, Reservations, Reserve,
};
pub use pre_provisioning::{ClientIds, NotAllowed, PreProvisioning, ProvisioningRequest};
pub use reason::{InvalidReason, ReasonText};
pub use reconcile::{Portion, Reconcile, ReconcileError, Reconciled};
pub use signature::BadSignature;
pub use template::{
    AttributeName, AttributeValue, BillingGroupName, CertificateResource, CertificateSource, CertificateStatus,
    Feature, FeatureKind, InvalidName, InvalidParameter, InvalidPolicyDocument, Override, PackageName,
    PackageVersionName, Parameters, Policy, PolicyDocument, PolicyName, ProvisioningTemplate, Resources, TemplateError,
    TemplateProblem, Thing, ThingGroupName, ThingName, ThingOverride, ThingPrincipalType, ThingTypeName,
};
pub use template_name::{InvalidTemplateName, TemplateName};
pub use templates::{ParametersError, Templates, UnusableTemplate};
pub use timestamp::Timestamp;
pub use trusted_users::{ClaimError, ClaimRequest, MadeOutClaim, TrustedUsers};
pub use vend::{Vend, VendError, VendRequest, Vended};
pub use wrong_proofs::WrongProofs;
