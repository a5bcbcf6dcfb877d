use std::time::Duration;

use cvm_authority::{
    Authority, CrlError, Issued, LocalSigner, Profile, RevocationReason, RevokedCertificate, SerialNumber, Unfit,
};
use cvm_provisioning::Timestamp;

use crate::support::{Bench, DAY, YEAR, device_key, id, issuing, now, profile};

const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

async fn issued(authority: &Authority<LocalSigner>, profile: &Profile, now: Timestamp) -> Issued {
    authority.issue(profile, &id(), &device_key(), now).await.unwrap()
}

fn revoked(issued: &Issued, reason: RevocationReason) -> RevokedCertificate {
    RevokedCertificate {
        serial_number: issued.serial_number().clone(),
        revoked_at: now(),
        reason,
        not_after: issued.certificate().not_after().into(),
    }
}

#[tokio::test]
async fn a_certificate_is_trusted_until_it_is_on_the_list() {
    let (authority, bench) = (issuing().await, Bench::new());
    let [good, bad] = [issued(&authority, &profile(), now()).await, issued(&authority, &profile(), now()).await];
    bench.write("ca.pem", authority.certificate().pem());
    bench.write("good.pem", good.certificate().pem());
    bench.write("bad.pem", bad.certificate().pem());
    let empty = authority.sign_crl(Vec::new(), 1, WEEK, now()).await.unwrap();
    assert_eq!(empty.entries(), 0);
    assert!(bench.trusts("good.pem", "ca.pem", &empty) && bench.trusts("bad.pem", "ca.pem", &empty));
    let list = authority.sign_crl([revoked(&bad, RevocationReason::Unspecified)], 2, WEEK, now()).await.unwrap();
    assert_eq!(list.entries(), 1);
    assert!(bench.trusts("good.pem", "ca.pem", &list) && !bench.trusts("bad.pem", "ca.pem", &list));
}

#[tokio::test]
async fn a_list_says_its_number_its_times_and_why() {
    let (authority, bench) = (issuing().await, Bench::new());
    for number in [0, 1, 127, 128, 255, 256, 0x8000, u64::MAX] {
        let mut entries = Vec::new();
        for reason in [RevocationReason::CertificateHold, RevocationReason::Unspecified] {
            entries.push(revoked(&issued(&authority, &profile(), now()).await, reason));
        }
        let at = now();
        let list = authority.sign_crl(entries.clone(), number, WEEK, at).await.unwrap();
        assert_eq!(list.next_update(), at.after(WEEK));
        let (_, parsed) = x509_parser::parse_x509_crl(list.der()).unwrap();
        assert_eq!(parsed.last_update().timestamp(), at.before(Profile::BACKDATED).seconds(), "for slow clocks");
        assert_eq!(parsed.next_update().unwrap().timestamp(), at.after(WEEK).seconds());
        bench.write("crl.der", list.der());
        bench.write("ca.pem", authority.certificate().pem());
        let text = bench.openssl("crl -inform DER -in crl.der -noout -text -CAfile ca.pem");
        assert!(text.contains("verify OK") && text.contains("Version 2 (0x1)"), "{text}");
        assert!(text.contains("Certificate Hold"), "{text}");
        assert_eq!(text.matches("CRL Reason Code").count(), 1, "`unspecified` is not said: {text}");
        for entry in entries {
            assert!(
                text.contains(&format!("Serial Number: {}", entry.serial_number.to_string().to_uppercase())),
                "{text}"
            );
        }
        let said = bench.openssl("crl -inform DER -in crl.der -noout -crlnumber");
        let said = said.trim().trim_start_matches("crlNumber=").trim_start_matches("0x").to_owned();
        assert_eq!(u64::from_str_radix(&said, 16).unwrap(), number);
    }
}

#[tokio::test]
async fn threat_56_pruning_never_drops_what_is_revoked_and_not_expired() {
    let authority = issuing().await;
    let start = now();
    let lives = [DAY, WEEK, 90 * DAY, YEAR];
    let mut entries = Vec::new();
    for life in lives {
        let one = issued(&authority, &Profile::new(life), start).await;
        // Revoked at once, and long ago by the time of the last list.
        entries.push(RevokedCertificate { revoked_at: start, ..revoked(&one, RevocationReason::Unspecified) });
    }
    for days in 0..400 {
        let at = start.after(days * DAY);
        if !(days < 20 || days % 30 < 3 || (88..110).contains(&days)) {
            continue;
        }
        let list = authority.sign_crl(entries.clone(), days.into(), WEEK, at).await.unwrap();
        let (_, parsed) = x509_parser::parse_x509_crl(list.der()).unwrap();
        let listed: Vec<SerialNumber> = parsed
            .iter_revoked_certificates()
            .map(|entry| SerialNumber::from_bytes(entry.raw_serial()).unwrap())
            .collect();
        for entry in &entries {
            let is_listed = listed.contains(&entry.serial_number);
            // The last list that has it is of a time after its expiry, however rarely lists are made.
            if at <= entry.not_after.after(WEEK) {
                assert!(is_listed, "{} is missing at {at}", entry.not_after);
            }
            if at > entry.not_after.after(WEEK + 2 * DAY) {
                assert!(!is_listed, "{} is still there at {at}", entry.not_after);
            }
        }
    }
}

#[tokio::test]
async fn threat_56_who_is_revoked_twice_is_so_since_the_first_time_and_not_in_the_future() {
    let authority = issuing().await;
    let certificate = issued(&authority, &profile(), now()).await;
    let at = now();
    let first =
        RevokedCertificate { revoked_at: at.before(DAY), ..revoked(&certificate, RevocationReason::CertificateHold) };
    let second = RevokedCertificate { revoked_at: at, reason: RevocationReason::Unspecified, ..first.clone() };
    for entries in [[first.clone(), second.clone()], [second.clone(), first.clone()]] {
        let list = authority.sign_crl(entries, 1, WEEK, at).await.unwrap();
        let (_, parsed) = x509_parser::parse_x509_crl(list.der()).unwrap();
        let entry = parsed.iter_revoked_certificates().next().unwrap();
        assert_eq!((list.entries(), entry.revocation_date.timestamp()), (1, at.before(DAY).seconds()));
        assert_eq!(entry.reason_code().unwrap().1.0, 6);
    }
    let future = RevokedCertificate { revoked_at: at.after(DAY), ..first };
    let list = authority.sign_crl([future], 1, WEEK, at).await.unwrap();
    let (_, parsed) = x509_parser::parse_x509_crl(list.der()).unwrap();
    assert_eq!(parsed.iter_revoked_certificates().next().unwrap().revocation_date.timestamp(), at.seconds());
}

#[tokio::test]
async fn threat_56_a_list_may_be_long() {
    let (authority, bench) = (issuing().await, Bench::new());
    let at = now();
    let entries = (1..=20_000_u32).map(|number| RevokedCertificate {
        serial_number: SerialNumber::from_bytes(&number.to_be_bytes()).unwrap(),
        revoked_at: at,
        reason: RevocationReason::Unspecified,
        not_after: at.after(YEAR),
    });
    let list = authority.sign_crl(entries, 7, WEEK, at).await.unwrap();
    bench.write("crl.der", list.der());
    bench.write("ca.pem", authority.certificate().pem());
    let text = bench.openssl("crl -inform DER -in crl.der -noout -text -CAfile ca.pem");
    assert!(text.contains("verify OK"));
    assert_eq!((list.entries(), text.matches("Serial Number").count()), (20_000, 20_000));
}

#[tokio::test]
async fn a_list_is_not_signed_by_a_ca_that_may_not_or_is_not_valid() {
    let authority = issuing().await;
    let error = authority.sign_crl(Vec::new(), 1, WEEK, now().after(10 * YEAR)).await.unwrap_err();
    assert!(matches!(error, CrlError::Unfit(Unfit::Expired { .. })), "{error}");
    let error = authority.sign_crl(Vec::new(), 1, Duration::ZERO, now()).await.unwrap_err();
    assert!(matches!(error, CrlError::NoValidity), "{error}");

    let bench = Bench::new();
    bench.openssl("ecparam -name prime256v1 -genkey -noout -out ca.key");
    bench.openssl(
        "req -x509 -new -key ca.key -subj /CN=Factory -days 9 -out ca.pem -addext keyUsage=critical,keyCertSign",
    );
    let read = |name: &str| std::fs::read_to_string(bench.path().join(name)).unwrap();
    let key = LocalSigner::from_pem(&read("ca.key"), None).unwrap();
    let authority =
        Authority::new(cvm_provisioning::Certificate::parse(&read("ca.pem")).unwrap(), Vec::new(), key).unwrap();
    let error = authority.sign_crl(Vec::new(), 1, WEEK, now()).await.unwrap_err();
    assert!(matches!(error, CrlError::KeyUsage), "{error}");
}
