//! The CA as its callers see it, judged by OpenSSL.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a helper of a test that fails is a test that fails")]

mod authorities;
mod create;
mod crl;
mod issue;
mod key_file;
mod ocsp;
mod support;
