use std::error::Error;
use std::fs;

use cvm_authority::{
    InvalidPassphrase, KeyError, KeyFile, KeyFileError, LocalSigner, Passphrase, Signer, unencrypted_key,
};
use zeroize::Zeroizing;

use crate::support::{Bench, p256};

const PASSPHRASE: &str = "correct horse battery";

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(Zeroizing::new(text.to_owned())).unwrap()
}

#[cfg(unix)]
fn set_mode(bench: &Bench, name: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(bench.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
}

fn file(bench: &Bench, name: &str) -> KeyFile {
    KeyFile::new(bench.path().join(name))
}

fn public_key_of(bench: &Bench, words: &str) -> Vec<u8> {
    bench.openssl(&format!("{words} -pubout -outform DER -out public.der"));
    fs::read(bench.path().join("public.der")).unwrap()
}

#[test]
fn a_key_file_is_private_whole_and_never_overwritten() {
    let (bench, key) = (Bench::new(), p256());
    file(&bench, "ca.key").create(&key, None).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(bench.path().join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let before = fs::read(bench.path().join("ca.key")).unwrap();
    let error = file(&bench, "ca.key").create(&p256(), None).unwrap_err();
    assert!(matches!(error, KeyFileError::Exists { .. }), "{error}");
    assert_eq!(fs::read(bench.path().join("ca.key")).unwrap(), before);
    assert_eq!(fs::read_dir(bench.path()).unwrap().count(), 1, "no temporary file is left");
    assert_eq!(file(&bench, "ca.key").read(None).unwrap().public_key(), key.public_key());
    assert_eq!(public_key_of(&bench, "pkey -in ca.key"), key.public_key().spki());
    assert!(matches!(file(&bench, "none/ca.key").create(&key, None), Err(KeyFileError::Write { .. })));
    assert!(matches!(file(&bench, "missing.key").read(None), Err(KeyFileError::Read { .. })));
}

#[test]
fn a_key_is_put_under_another_passphrase_and_stays_the_same_key() {
    let (bench, key, [first, second]) = (Bench::new(), p256(), ["first", "second"].map(passphrase));
    let file = file(&bench, "ca.key");
    file.create(&key, None).unwrap();
    assert!(!file.is_encrypted().unwrap());
    for (before, after) in [(None, Some(&first)), (Some(&first), Some(&second)), (Some(&second), None)] {
        file.change_passphrase(before, after).unwrap();
        assert_eq!(file.is_encrypted().unwrap(), after.is_some());
        assert_eq!(file.read(after).unwrap().public_key(), key.public_key());
    }
    file.change_passphrase(None, Some(&first)).unwrap();
    for wrong in [None, Some(&second)] {
        let error = file.change_passphrase(wrong, None).unwrap_err();
        assert!(matches!(error, KeyFileError::Key { .. }), "{error}");
    }
    assert_eq!(file.read(Some(&first)).unwrap().public_key(), key.public_key(), "it is as it was");
    assert_eq!(fs::read_dir(bench.path()).unwrap().count(), 1, "no temporary file is left");
}

#[cfg(unix)]
#[test]
fn threat_54_a_key_that_others_can_read_is_refused_unless_it_has_a_passphrase() {
    let (bench, key, passphrase) = (Bench::new(), p256(), passphrase(PASSPHRASE));
    file(&bench, "plain.key").create(&key, None).unwrap();
    file(&bench, "encrypted.key").create(&key, Some(&passphrase)).unwrap();
    bench.write("nothing.key", "no key");
    for mode in [0o640, 0o604, 0o620, 0o666] {
        for name in ["plain.key", "nothing.key"] {
            set_mode(&bench, name, mode);
            let error = file(&bench, name).read(Some(&passphrase)).unwrap_err();
            assert!(matches!(error, KeyFileError::Exposed { .. }), "{name} {mode:o}: {error}");
        }
    }
    set_mode(&bench, "encrypted.key", 0o644);
    assert!(file(&bench, "encrypted.key").read(Some(&passphrase)).is_ok());
    set_mode(&bench, "plain.key", 0o400);
    assert!(file(&bench, "plain.key").read(None).is_ok());
}

#[test]
fn threat_54_an_encrypted_key_is_opened_by_its_passphrase_alone() {
    let (bench, key) = (Bench::new(), p256());
    file(&bench, "ca.key").create(&key, Some(&passphrase(PASSPHRASE))).unwrap();
    let text = fs::read_to_string(bench.path().join("ca.key")).unwrap();
    assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"), "{text}");
    let opened = file(&bench, "ca.key").read(Some(&passphrase(PASSPHRASE))).unwrap();
    assert_eq!(opened.public_key(), key.public_key());
    let key_error = |passphrase: Option<&Passphrase>| match file(&bench, "ca.key").read(passphrase) {
        Err(KeyFileError::Key { source, .. }) => source,
        other => panic!("{other:?}"),
    };
    assert_eq!(key_error(None), KeyError::Encrypted);
    for wrong in ["Correct horse battery", "correct horse battery\n", " "] {
        assert_eq!(key_error(Some(&passphrase(wrong))), KeyError::Passphrase, "{wrong:?}");
    }
    assert_eq!(Passphrase::new(Zeroizing::default()).unwrap_err(), InvalidPassphrase);
    // The same key under the same passphrase is never the same text.
    assert_ne!(*key.to_pem(Some(&passphrase(PASSPHRASE))).unwrap(), text);
}

#[test]
fn openssl_opens_what_is_encrypted_here_and_the_other_way_round() {
    let (bench, key) = (Bench::new(), p256());
    bench.write("passphrase", PASSPHRASE);
    file(&bench, "ours.key").create(&key, Some(&passphrase(PASSPHRASE))).unwrap();
    assert_eq!(public_key_of(&bench, "pkey -in ours.key -passin file:passphrase"), key.public_key().spki());
    assert!(!bench.ask("pkey -in ours.key -passin pass:wrong -noout").0);
    let form = bench.openssl("asn1parse -in ours.key");
    for expected in ["PBES2", "PBKDF2", "hmacWithSHA256", "aes-256-cbc", ":0927C0"] {
        assert!(form.contains(expected), "{expected}, 600,000 times: {form}");
    }

    bench.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out plain.key");
    bench.openssl("pkcs8 -topk8 -in plain.key -passout file:passphrase -out theirs.key");
    let read = |name: &str, text: &str| {
        LocalSigner::from_pem(&fs::read_to_string(bench.path().join(name)).unwrap(), Some(&passphrase(text)))
    };
    let opened = read("theirs.key", PASSPHRASE).unwrap();
    assert_eq!(opened.public_key().spki(), public_key_of(&bench, "pkey -in plain.key"));
    assert_eq!(read("theirs.key", "wrong").unwrap_err(), KeyError::Passphrase);

    // What is not read says how it would be.
    for words in ["-scrypt", "-v2 aes-128-cbc", "-v2 aes-256-cbc -v2prf hmacWithSHA1", "-v2 des3"] {
        bench.openssl(&format!("pkcs8 -topk8 -in plain.key -passout file:passphrase -out other.key {words}"));
        let error = read("other.key", PASSPHRASE).unwrap_err();
        assert_eq!(error, KeyError::Encryption, "{words}");
        assert!(error.to_string().contains("openssl pkcs8 -topk8 -v2 aes-256-cbc"));
    }
    let advice = "pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA256 -iter 600000 -in plain.key -out advice.key";
    bench.openssl(&format!("{advice} -passout file:passphrase"));
    assert!(read("advice.key", PASSPHRASE).is_ok());
}

#[test]
fn the_older_forms_of_openssl_are_read_and_other_texts_are_not() {
    let bench = Bench::new();
    let read = |name: &str| LocalSigner::from_pem(&fs::read_to_string(bench.path().join(name)).unwrap(), None);
    bench.openssl("ecparam -name prime256v1 -genkey -out parameters.key");
    bench.openssl("ecparam -name secp521r1 -genkey -noout -out sec1.key");
    bench.openssl("genrsa -traditional -out pkcs1.key 2048");
    bench.openssl("genrsa -out pkcs8.key 3072");
    for name in ["parameters.key", "sec1.key", "pkcs1.key", "pkcs8.key"] {
        assert_eq!(
            read(name).unwrap().public_key().spki(),
            public_key_of(&bench, &format!("pkey -in {name}")),
            "{name}"
        );
        let again = read(name).unwrap().to_pem(None).unwrap();
        assert_eq!(LocalSigner::from_pem(&again, None).unwrap().public_key(), read(name).unwrap().public_key());
    }
    let text = fs::read_to_string(bench.path().join("pkcs8.key")).unwrap();
    let crlf = text.replace('\n', "\r\n");
    assert!(LocalSigner::from_pem(&crlf, None).is_ok());
    bench.openssl("genrsa -out weak.key 1024");
    bench.openssl("genpkey -algorithm ED25519 -out ed25519.key");
    assert!(matches!(read("weak.key"), Err(KeyError::Weak(_) | KeyError::Encoding)));
    assert_eq!(read("ed25519.key").unwrap_err(), KeyError::Encoding);
    bench.openssl("ec -in sec1.key -aes256 -passout pass:secret -out legacy.key");
    assert_eq!(read("legacy.key").unwrap_err(), KeyError::Encryption);
    // A key without a passphrase is found among the certificates and attributes of a PKCS #12 file.
    let text_around = format!("Bag Attributes\n    localKeyID: 01\n{text}subject=CN = sn-1\n");
    assert_eq!(unencrypted_key(&text_around), Ok(text.trim_end()));
    let legacy = fs::read_to_string(bench.path().join("legacy.key")).unwrap();
    assert_eq!(unencrypted_key(&legacy), Err(KeyError::Encrypted));
    for bad in ["", "no key", &text.repeat(2), &text[..text.len() / 2], &" ".repeat(LocalSigner::MAX_TEXT + 1)] {
        assert_eq!(LocalSigner::from_pem(bad, None).unwrap_err(), KeyError::Encoding);
    }
}

#[test]
fn threat_61_a_key_and_a_passphrase_are_never_shown() {
    let (bench, key) = (Bench::new(), p256());
    let pem = key.to_pem(None).unwrap();
    let secret = pem.lines().nth(1).unwrap();
    assert_eq!(format!("{:?}", passphrase("secret")), "Passphrase(..)");
    assert!(format!("{key:?}").starts_with("LocalSigner(PublicKey("), "{key:?}");
    bench.write("ca.key", pem.replace("-----END", "----END"));
    #[cfg(unix)]
    set_mode(&bench, "ca.key", 0o600);
    let error = file(&bench, "ca.key").read(None).unwrap_err();
    let text = format!("{error} {error:?} {:?}", error.source());
    assert!(!text.contains(secret) && text.contains("Encoding"), "{text}");
}
