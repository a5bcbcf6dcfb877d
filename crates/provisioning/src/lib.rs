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
//! | what it needs from the world | [`DeviceStore`], [`Platform`], [`Audit`] |
//! | what is changed in the registry, over any store | [`Changes`] |

mod attempt;
mod attestation;
mod audit;
mod certificate;
mod change;
mod changes;
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
mod door;
mod elliptic_curve;
mod enforce;
mod etag;
mod first_connect;
mod fleet;
mod hierarchy;
mod import;
mod key;
mod key_request;
mod lifecycle;
mod module;
mod name;
mod notice;
mod operations;
mod pem;
mod policy_lint;
mod ports;
mod pre_provisioning;
mod presence;
mod printable;
mod reason;
mod reconcile;
mod registry_name;
mod rsa;
mod settings;
mod signature;
mod status;
mod subject;
mod superseded;
mod template;
mod template_name;
mod templates;
mod timestamp;
mod tombstone;
mod trusted_users;
mod unknown_devices;
mod vend;
mod vend_at_once;
mod vend_prepared;

pub use attempt::{Attempt, AttemptId, Beside, Leftover, Remains, Reservation, ReservationLost};
pub use attestation::{
    Attestation, EnrolmentToken, GroupCredential, InvalidGroupCredential, InvalidToken, InvalidTokenDigest,
    InvalidTrustedUser, Proof, ShownCertificate, TokenDigest, TrustedUser, TrustedUserClaim,
};
pub use audit::{Actor, AuditRecord, LogAudit, Origin, Outcome};
pub use certificate::{BadCertificate, Certificate, CertificateDefect};
pub use change::{Change, ClaimChange, DeviceChange, LedgerChange, Put};
pub use changes::Changes;
pub use claim::{Claim, MadeOut};
pub use confirm::{Confirm, ConfirmError, Confirmation, Connection};
pub use credential::{Credential, IssuedCertificate, IssuedClaim, RegisteredCertificate, Standing};
pub use csr::{Csr, CsrError};
pub use decision::{Decision, Denial, Refusal};
pub use der::{BadDer, encode as encode_der};
pub use device::{
    Device, GenerationId, KeyOrigin, LastRefusal, NotProvisioned, NotQuarantined, NothingToRevoke, State, Unsettled,
    Verdict,
};
pub use device_id::{DeviceId, InvalidDeviceId};
pub use device_key::{DeviceKey, DeviceKeyError};
pub use device_naming::{DeviceNaming, InvalidPattern, Unnamed};
pub use digest::{CertificateId, InvalidDigest, KeyFingerprint};
pub use door::{Door, UnknownDoor};
pub use enforce::{Enforce, EnforceError};
pub use etag::{ETag, InvalidETag};
pub use first_connect::{Admission, FirstConnect, FirstConnectError, RefusedCertificates, Registration};
pub use fleet::{FleetMoment, FleetSummary, RecentActivity};
pub use hierarchy::{Hierarchy, InvalidScope, Scope};
pub use import::{ImportEntry, ImportMode, Imported, InvalidImportMode};
pub use key::{BadKey, KeyAlgorithm, PublicKey, RefusedKeys};
pub use key_request::KeyRequest;
pub use lifecycle::{AuditEntry, AuditPage, AuditQuery, AuditTrail, Bus, BusError, Lifecycle, LifecycleError, Stuck};
pub use module::Module;
pub use name::{BadName, SubjectAttribute};
pub use notice::{Notice, NoticeKind, RegistryWrite};
pub use operations::{ModuleSettings, OperationError, Operations, Precondition};
pub use pem::BadPem;
pub use policy_lint::{PolicyFinding, PolicyProblem, Severity, lint_policy};
pub use ports::{
    Audit, CertificateAuthority, CertificateIndex, CertificateLedger, CertificateOwner, CertificateSummary,
    Certificates, ClaimIssuer, ClaimStore, Cursors, Departures, DeviceCounts, DeviceFilter, DeviceStore, Inventory,
    InventoryPage, LedgerEntry, NotRestored, Page, Platform, PlatformError, Presences, RegistryError, Reserve,
    Tombstones, UnsettledDevice,
};
pub use pre_provisioning::{ClientIds, NotAllowed, PreProvisioning, ProvisioningRequest};
pub use presence::Presence;
pub use printable::is_printable;
pub use reason::{InvalidReason, ReasonText};
pub use reconcile::{Portion, Reconcile, ReconcileError, Reconciled};
pub use registry_name::{GroupName, InvalidRegistryName, ModuleId, ModuleManager};
pub use settings::{InvalidSettings, Settings, StatusSetting};
pub use signature::BadSignature;
pub use status::Status;
pub use subject::{DeviceIdFrom, InvalidDeviceIdFrom, Subject};
pub use superseded::{Superseded, end_successions};
pub use template::{
    AttributeName, AttributeValue, BillingGroupName, CertificateResource, CertificateSource, CertificateStatus,
    Feature, FeatureKind, InvalidName, InvalidParameter, InvalidPolicyDocument, Override, PackageName,
    PackageVersionName, Parameters, Policy, PolicyDocument, PolicyName, ProvisioningTemplate, Resources, TemplateError,
    TemplateProblem, Thing, ThingGroupName, ThingName, ThingOverride, ThingPrincipalType, ThingTypeName,
};
pub use template_name::{InvalidTemplateName, TemplateName};
pub use templates::{ParametersError, Templates, UnusableTemplate};
pub use timestamp::{InvalidTimestamp, Timestamp};
pub use tombstone::Tombstone;
pub use trusted_users::{ClaimError, ClaimRequest, MadeOutClaim, TrustedUsers};
pub use unknown_devices::{
    UnknownAttempt, UnknownCount, UnknownDevice, UnknownDeviceStore, UnknownDevices, UnknownSource, network_of,
};
pub use vend::{Vend, VendError, VendRequest, Vended, Vending};
pub use vend_at_once::VendAtOnce;
