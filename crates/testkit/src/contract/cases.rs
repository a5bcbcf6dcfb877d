//! The devices and attempts that the contract is tried with.

use std::collections::{BTreeMap, BTreeSet};

use cvm_provisioning::{
    Attempt, AttemptId, Attestation, Beside, CertificateId, Credential, Denial, Device, EnrolmentToken, GenerationId,
    GroupCredential, Hierarchy, KeyOrigin, Leftover, Module, Proof, Refusal, Remains, ShownCertificate, State,
    Superseded, Timestamp, TrustedUserClaim, Verdict,
};

use super::{LEAF, OTHER_LEAF};
use crate::MemoryPlatform;
use crate::fixture::{NOW, csr, device, id, later, origin, templates, token};

const CA: &[u8] = b"a CA";
const OTHER_CA: &[u8] = b"another CA";

/// Devices in every state there is, and attempts of every kind there is.
pub(super) struct Cases {
    pub(super) devices: Vec<Device>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) credential: Credential,
    pub(super) superseded: Vec<Superseded>,
}

impl Cases {
    pub(super) async fn new() -> Self {
        let name = "contract";
        let (own, other) = (csr(name), csr(name));
        let fingerprint = *own.key().fingerprint();
        let registered = device(name);

        let attempt = |number, key, token: bool, key_made_here, now| Attempt {
            id: AttemptId::new(number),
            device: id(name),
            proof: Proof::of_key(key, token.then(|| crate::fixture::token().digest()), key_made_here),
            origin: origin(),
            now,
            prepared: None,
        };
        let factory = |leaf: &[u8], key, ca: &[u8], now| Attempt {
            id: AttemptId::of(&CertificateId::of(leaf)),
            device: id(name),
            proof: Proof::of_certificate(CertificateId::of(leaf), key, GroupCredential::Ca(CertificateId::of(ca))),
            origin: origin(),
            now,
            prepared: None,
        };
        let first = attempt(1, fingerprint, true, false, NOW);
        let connected = factory(LEAF, fingerprint, CA, NOW);
        let renewal = |number, key, shown: &[u8], renewable| {
            let attempt = attempt(number, key, false, false, later(2));
            let shown = Some(ShownCertificate { id: CertificateId::of(shown), renewable });
            Attempt { proof: Proof { shown, ..attempt.proof }, ..attempt }
        };
        let superseded = |certificate: &[u8], since| Superseded {
            certificate: CertificateId::of(certificate),
            certificate_name: "an earlier one".to_owned(),
            key: *other.key().fingerprint(),
            thing: name.to_owned().try_into().expect("a thing's name"),
            since,
        };
        let mut attempts = vec![
            attempt(2, fingerprint, true, false, later(2)),
            attempt(3, *other.key().fingerprint(), true, false, later(2)),
            attempt(4, fingerprint, false, false, later(2)),
            attempt(5, *other.key().fingerprint(), false, true, later(2)),
            attempt(6, *other.key().fingerprint(), true, true, later(2)),
            attempt(7, fingerprint, true, false, later(29)),
            attempt(8, fingerprint, true, false, later(30)),
            attempt(9, *other.key().fingerprint(), true, false, later(600)),
            attempt(10, *other.key().fingerprint(), true, true, later(600)),
            factory(LEAF, fingerprint, CA, later(2)),
            factory(LEAF, fingerprint, CA, later(600)),
            factory(OTHER_LEAF, fingerprint, CA, later(600)),
            factory(OTHER_LEAF, *other.key().fingerprint(), CA, later(600)),
            factory(LEAF, fingerprint, OTHER_CA, later(2)),
            renewal(11, fingerprint, LEAF, false),
            renewal(12, fingerprint, LEAF, true),
            renewal(13, *other.key().fingerprint(), LEAF, false),
            renewal(14, *other.key().fingerprint(), LEAF, true),
            renewal(15, *other.key().fingerprint(), OTHER_LEAF, false),
            renewal(16, fingerprint, OTHER_LEAF, true),
        ];

        let prepared = Some(credential(&registered, &first, &own).await);
        attempts.push(Attempt { prepared, ..attempt(17, fingerprint, true, false, later(30)) });

        let with = |change: &dyn Fn(&mut Device)| {
            let mut device = registered.clone();
            change(&mut device);
            device
        };
        let credential = credential(&registered, &first, &own).await;
        let leaf = Credential { certificate: CertificateId::of(LEAF), ..credential.clone() };
        let made_here = Credential { key_made_here: true, ..credential.clone() };
        let ends = |not_after| Credential { not_after, ..credential.clone() };
        let public_key = Attestation::PublicKey { key: fingerprint };
        let expires = |expires_at: Timestamp| Attestation::Token {
            digest: token().digest(),
            second: None,
            expires_at: Some(expires_at),
        };
        let refused = |denial| Refusal { denial, key: *other.key().fingerprint(), at: later(1), noted: true };
        let clone = refused(Denial::Cloned);
        let reserve = |device: &mut Device| device.reserve(&first);
        let provision = |device: &mut Device, credential: &Credential| {
            device.reserve(&first);
            device
                .commit(first.id, credential.clone(), Beside::NOTHING, later(1))
                .expect("the attempt holds the device");
        };
        let release = |device: &mut Device, left: Leftover| {
            device.reserve(&first);
            device.release(first.id, left, Remains::Nothing, later(1));
        };
        let guess = |device: &mut Device| {
            device.refuse(&refused(Denial::WrongProof));
            (0..6).for_each(|_| device.refuse(&Refusal { noted: false, ..refused(Denial::WrongProof) }));
        };
        let devices = vec![
            registered.clone(),
            with(&|device| device.disable("stolen".parse().ok(), later(1))),
            with(&|device| device.attestation = public_key.clone()),
            with(&|device| device.attestation = Attestation::PublicKey { key: *other.key().fingerprint() }),
            with(&|device| device.attestation = expires(later(2))),
            with(&|device| device.attestation = expires(later(3))),
            with(&|device| device.key_origin = KeyOrigin::Service),
            with(&|device| {
                device.key_origin = KeyOrigin::Service;
                device.template = Some("other".parse().expect("a template name"));
                device.parameters = BTreeMap::from([("Site".to_owned(), "Ulm".to_owned())]);
                device.settable_parameters = BTreeSet::from(["Site".to_owned()]);
                provision(device, &made_here);
            }),
            with(&|device| provision(device, &made_here)),
            with(&reserve),
            with(&|device| {
                reserve(device);
                device.disable("stolen".parse().ok(), later(1));
            }),
            with(&|device| release(device, Leftover::Unknown)),
            with(&|device| release(device, Leftover::Known(None))),
            with(&|device| release(device, Leftover::Known(Some(credential.clone())))),
            with(&|device| {
                release(device, Leftover::Unknown);
                device.reserve(&attempt(20, *other.key().fingerprint(), true, false, later(1)));
            }),
            with(&|device| provision(device, &credential)),
            with(&|device| {
                device.attestation = public_key.clone();
                provision(device, &credential);
            }),
            with(&|device| provision(device, &ends(later(1)))),
            with(&|device| provision(device, &ends(later(2)))),
            with(&|device| {
                device.attestation = public_key.clone();
                provision(device, &ends(later(1)));
            }),
            with(&|device| {
                device.attestation = Attestation::Ca { id: Some(CertificateId::of(CA)) };
                provision(device, &Credential { certificate: CertificateId::of(LEAF), ..ends(later(1)) });
            }),
            with(&|device| {
                provision(device, &ends(later(1)));
                device.reserve(&first);
            }),
            with(&|device| {
                provision(device, &ends(later(1)));
                device.refuse(&clone);
            }),
            with(&|device| {
                provision(device, &credential);
                device.refuse(&clone);
            }),
            with(&|device| {
                provision(device, &credential);
                device.refuse(&clone);
                device.approve(Verdict::AdmitNextKey, later(1)).expect("it is in quarantine");
            }),
            with(&|device| {
                provision(device, &credential);
                device.refuse(&clone);
                device.approve(Verdict::KeepCertificate, later(1)).expect("it is in quarantine");
            }),
            with(&|device| {
                provision(device, &credential);
                device.state = State::Revoked;
            }),
            with(&|device| device.attestation = Attestation::Certificate { id: CertificateId::of(LEAF), second: None }),
            with(&|device| device.attestation = Attestation::Ca { id: Some(CertificateId::of(CA)) }),
            with(&|device| {
                device.attestation =
                    Attestation::Certificate { id: CertificateId::of(CA), second: Some(CertificateId::of(LEAF)) };
            }),
            with(&|device| device.attestation = Attestation::Ca { id: None }),
            with(&|device| device.attestation = Attestation::Nothing),
            with(&|device| {
                let other = EnrolmentToken::generate().expect("there is randomness").digest();
                device.attestation =
                    Attestation::Token { digest: other, second: Some(token().digest()), expires_at: Some(later(500)) };
                device.group = Some("berlin".parse().expect("a group"));
                device.hierarchy = Hierarchy {
                    edge: true,
                    scope: Some("scope://own".parse().expect("a scope")),
                    parents: vec!["scope://parent".parse().expect("a scope")],
                };
                let module = Module::new(GenerationId::new(3), device.attestation.clone(), later(1));
                device.put_module("gateway".parse().expect("a module"), module, later(1));
                let managed = Module {
                    managed_by: Some("iotEdge".parse().expect("a manager")),
                    ..Module::new(GenerationId::new(4), Attestation::Nothing, later(1))
                };
                device.put_module("other".parse().expect("a module"), managed, later(1));
            }),
            with(&|device| device.attestation = Attestation::Claim { certificate: None }),
            with(&|device| device.attestation = Attestation::Claim { certificate: Some(CertificateId::of(CA)) }),
            with(&|device| device.attestation = Attestation::TrustedUser { claim: None }),
            with(&|device| {
                let user = "arn:aws:iam::123456789012:user/installer".parse().expect("a user");
                device.attestation = Attestation::TrustedUser { claim: None };
                device.vouch(
                    TrustedUserClaim { certificate: CertificateId::of(LEAF), user, expires_at: later(300) },
                    NOW,
                );
            }),
            with(&|device| {
                device.attestation = Attestation::Ca { id: Some(CertificateId::of(CA)) };
                device.reserve(&connected);
            }),
            with(&|device| {
                device.attestation = Attestation::Ca { id: Some(CertificateId::of(CA)) };
                device.reserve(&connected);
                device.confirm(credential.clone(), later(1));
            }),
            with(&|device| {
                device.attestation = Attestation::Ca { id: Some(CertificateId::of(CA)) };
                device.reserve(&connected);
                device.confirm(Credential { used_at: Some(later(1)), ..credential.clone() }, later(1));
                device.reserve(&factory(OTHER_LEAF, fingerprint, CA, later(2)));
            }),
            with(&|device| provision(device, &leaf)),
            with(&|device| {
                provision(device, &leaf);
                device.superseded = vec![superseded(OTHER_LEAF, NOW)];
            }),
            with(&|device| {
                provision(device, &credential);
                device.superseded = vec![superseded(CA, NOW), superseded(LEAF, later(1))];
                guess(device);
            }),
            with(&|device| {
                provision(device, &leaf);
                device.reserve(&attempt(20, *other.key().fingerprint(), true, false, later(1)));
            }),
            with(&|device| {
                provision(device, &leaf);
                device.renew(later(1)).expect("there is something to renew");
            }),
            with(&|device| {
                device.key_origin = KeyOrigin::Service;
                provision(device, &made_here);
                device.mark_used(later(1));
            }),
            with(&guess),
        ];
        let superseded = vec![superseded(LEAF, later(1))];
        Self { devices, attempts, credential, superseded }
    }
}

/// What `attempt` would be given.
pub(super) async fn credential(device: &Device, attempt: &Attempt, csr: &cvm_provisioning::Csr) -> Credential {
    let resources = templates().evaluate(device, &BTreeMap::new()).expect("the template fits");
    let issued = MemoryPlatform::default().issue(csr).await.expect("the platform in memory issues");
    Credential::new(&issued, attempt, &resources)
}
