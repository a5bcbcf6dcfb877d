//! Text to DER and back (RFC 7468), with the accidents that happen to PEM on its way from a device.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// The DER in `text`: exactly one PEM block with one of these `labels`, or bare base64.
///
/// CRLF, missing newlines, and newlines that were escaped once too often for JSON (`\n` as two characters, see
/// esp-aws-iot issue 74) are taken for what they meant. A byte order mark before the text, as Windows editors write it, and
/// NULs after it, from firmware that sends the terminator of its string, are ignored. Other text around the block is
/// refused.
pub(crate) fn decode(text: &str, labels: &[&str], limit: usize) -> Result<Vec<u8>, BadPem> {
    if text.len() > limit {
        return Err(BadPem::TooLong { length: text.len(), limit });
    }
    if text.contains("PRIVATE KEY") {
        return Err(BadPem::PrivateKey);
    }
    let text = text.replace("\\r", "\r").replace("\\n", "\n");
    let text = text.trim_start_matches('\u{feff}').trim_end_matches(|end: char| end == '\0' || end.is_whitespace());
    let body: String = block(text.trim_start(), labels)?.split_ascii_whitespace().collect();
    if body.is_empty() {
        return Err(BadPem::Empty);
    }
    STANDARD.decode(body).map_err(|_| BadPem::Base64)
}

/// The canonical text: LF, 64 columns, a newline at the end. Nothing of `der` is left behind in memory but the text.
pub(crate) fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(encoded_length(label, der.len())));
    text.extend(["-----BEGIN ", label, "-----\n"]);
    for line in der.chunks(48) {
        STANDARD.encode_string(line, &mut text);
        text.push('\n');
    }
    text.extend(["-----END ", label, "-----\n"]);
    text
}

/// How many characters [`encode`] writes for so many bytes.
pub(crate) const fn encoded_length(label: &str, bytes: usize) -> usize {
    "-----BEGIN -----\n-----END -----\n".len() + 2 * label.len() + bytes.div_ceil(3) * 4 + bytes.div_ceil(48)
}

/// What stands between the boundaries, or the whole text if it has none.
fn block<'a>(text: &'a str, labels: &[&str]) -> Result<&'a str, BadPem> {
    if !text.contains("-----") {
        return Ok(text);
    }
    let mut parts = text.split("-----");
    let (Some(before), Some(begin), Some(body), Some(end), Some(after)) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(BadPem::Boundary);
    };
    if parts.next().is_some() {
        return Err(BadPem::SeveralBlocks);
    }
    if !before.is_empty() || !after.is_empty() {
        return Err(BadPem::TextAround);
    }
    let label = begin.strip_prefix("BEGIN ").ok_or(BadPem::Boundary)?;
    if end.strip_prefix("END ") != Some(label) {
        return Err(BadPem::Boundary);
    }
    if !labels.contains(&label) {
        return Err(BadPem::Label);
    }
    Ok(body)
}

/// Why a text is not the one PEM block it should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BadPem {
    /// What stands between the boundaries is not base64.
    #[error("the text is not base64: check that `+` and `=` survived the way and that no PEM header lines are in it")]
    Base64,
    /// Boundaries that do not belong together, or only one of them.
    #[error("the PEM boundaries do not match: expected one BEGIN line and the END line that belongs to it")]
    Boundary,
    /// Nothing.
    #[error("the text is empty")]
    Empty,
    /// A block of another kind, such as a certificate where a request is expected.
    #[error("the PEM block is of another kind than expected: see its BEGIN line")]
    Label,
    /// A private key, alone or with something else.
    #[error(
        "the text contains a private key. That key is burnt: it has left the device, so generate a new one, never use \
         this one, and send the signing request or certificate only"
    )]
    PrivateKey,
    /// More than one block.
    #[error("the text has more than one PEM block: send exactly one")]
    SeveralBlocks,
    /// Text before or after the block, such as bag attributes or a dump in plain text.
    #[error("there is text around the PEM block, such as bag attributes: send the block alone")]
    TextAround,
    /// Longer than what is read.
    #[error("the text has {length} bytes, at most {limit} are read")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The most that is read, in bytes.
        limit: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: [&str; 1] = ["CERTIFICATE REQUEST"];

    fn decoded(text: &str) -> Result<Vec<u8>, BadPem> {
        decode(text, &LABELS, 1000)
    }

    #[test]
    fn the_canonical_text_has_the_promised_length_and_reads_back() {
        for length in [1, 2, 3, 47, 48, 49, 96, 500] {
            let der = vec![0xa5; length];
            let text = encode(LABELS[0], &der);
            assert_eq!(text.len(), encoded_length(LABELS[0], length));
            assert!(text.lines().all(|line| line.len() <= 64));
            assert_eq!(decoded(&text), Ok(der));
        }
    }

    #[test]
    fn threat_21_what_happens_to_newlines_on_the_way_is_undone() {
        let der = vec![0x5a; 100];
        let text = encode(LABELS[0], &der);
        for accident in [
            text.replace('\n', "\r\n"),
            text.replace('\n', "\\n"),
            text.replace('\n', "\\r\\n"),
            text.replace('\n', ""),
            text.replace('\n', " "),
            format!("\n\t {}\n\n", *text),
            format!("\u{feff}{}", *text),
            format!("{}\0", *text),
            format!("{}\0\n", STANDARD.encode(&der)),
            STANDARD.encode(&der),
            text.lines().filter(|line| !line.contains('-')).collect::<Vec<_>>().join("\r\n"),
        ] {
            assert_eq!(decoded(&accident), Ok(der.clone()), "{accident}");
        }
    }

    #[test]
    fn threat_21_only_one_block_and_nothing_else_is_read() {
        let text = encode(LABELS[0], &[1, 2, 3]);
        for (bad, error) in [
            (String::new(), BadPem::Empty),
            (" \n\\n".to_owned(), BadPem::Empty),
            (text.replace("AQID", ""), BadPem::Empty),
            (text.repeat(2), BadPem::SeveralBlocks),
            (format!("Bag Attributes\n    localKeyID: 01\n{}", *text), BadPem::TextAround),
            (format!("{}done", *text), BadPem::TextAround),
            (format!("{}\0done", *text), BadPem::TextAround),
            (text.replace("AQID", "AQ\0ID"), BadPem::Base64),
            ("\u{feff}\0".to_owned(), BadPem::Empty),
            (text.replace("AQID", "Proc-Type: 4\n\nAQID"), BadPem::Base64),
            (text.replace("AQID", "AQI"), BadPem::Base64),
            (text.replace("AQID", "AQ-D"), BadPem::Base64),
            (text.replace("AQID", "AQJ="), BadPem::Base64),
            (text.replace("-----END CERTIFICATE REQUEST-----\n", ""), BadPem::Boundary),
            (text.replace("END", "BEGIN"), BadPem::Boundary),
            (text.replace("END CERTIFICATE", "END NEW CERTIFICATE"), BadPem::Boundary),
            (text.replace(" REQUEST", ""), BadPem::Label),
            ("x".repeat(1001), BadPem::TooLong { length: 1001, limit: 1000 }),
        ] {
            assert_eq!(decoded(&bad), Err(error), "{bad}");
        }
    }

    #[test]
    fn threat_21_a_private_key_is_told_to_be_burnt() {
        for label in ["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY", "ENCRYPTED PRIVATE KEY"] {
            let key = encode(label, &[1, 2, 3]);
            assert_eq!(decoded(&key), Err(BadPem::PrivateKey));
            assert_eq!(decoded(&format!("{}{}", *encode(LABELS[0], &[1]), *key)), Err(BadPem::PrivateKey));
        }
        assert!(BadPem::PrivateKey.to_string().contains("burnt"));
    }
}
