//! The fuzz targets on any toolchain: the corpus as it is, then a fixed number of mutations of it from a fixed seed.

use std::fs;
use std::path::Path;

#[test]
fn threat_24_certificate() {
    smoke("certificate", cvm_fuzz::certificate, 20_000);
}

#[test]
fn threat_24_csr() {
    smoke("csr", cvm_fuzz::csr, 20_000);
}

#[test]
fn threat_24_est_request() {
    smoke("est_request", cvm_fuzz::est_request, 20_000);
}

#[test]
fn threat_24_ocsp_request() {
    smoke("ocsp_request", cvm_fuzz::ocsp_request, 20_000);
}

#[test]
fn threat_24_template() {
    smoke("template", cvm_fuzz::template, 20_000);
}

#[test]
fn threat_24_vend_request() {
    smoke("vend_request", cvm_fuzz::vend_request, 20_000);
}

fn smoke(target: &str, body: fn(&[u8]), mutations: usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let corpus: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(!corpus.is_empty());

    corpus.iter().for_each(|input| body(input));
    let mut random = Random(0x5eed);
    for _ in 0..mutations {
        let mut input = corpus[random.below(corpus.len())].clone();
        for _ in 0..=random.below(3) {
            mutate(&mut input, &corpus, &mut random);
        }
        body(&input);
    }
}

fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    let (start, end) = random.range(input.len());
    match random.below(6) {
        0 => input.truncate(start),
        1 => drop(input.drain(start..end)),
        2 => input.extend_from_within(start..end),
        3 => input.iter_mut().skip(start).take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
        4 => input.iter_mut().skip(start).take(1).for_each(|byte| *byte = [0, 1, 0x7f, 0x80, 0xff][random.below(5)]),
        _ => {
            let other = &corpus[random.below(corpus.len())];
            let (from, to) = random.range(other.len());
            input.splice(start..end, other[from..to].iter().copied());
        }
    }
}

/// Marsaglia's xorshift, 64 bits: the same numbers everywhere and for ever.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    /// A part of so many bytes, often a short one.
    fn range(&mut self, length: usize) -> (usize, usize) {
        let start = self.below(length + 1);
        let longest = (length - start).min(1 << self.below(10));
        (start, start + self.below(longest + 1))
    }
}
