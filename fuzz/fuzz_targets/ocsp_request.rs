//! `cvm_fuzz::ocsp_request` under libFuzzer.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| cvm_fuzz::ocsp_request(data));
