//! The PEM blocks (RFC 7468) in an operator's file, among what tools write around them: attributes of a PKCS #12 file,
//! dumps in plain text, parameters of a curve, other certificates of a chain.

/// The blocks with this label, in their order. A block without its end is none.
pub(crate) fn blocks<'a>(text: &'a str, label: &'a str) -> impl Iterator<Item = &'a str> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let mut rest = text;
    std::iter::from_fn(move || {
        let block = &rest[rest.find(&begin)?..];
        let length = block.find(&end)? + end.len();
        let (block, after) = block.split_at(length);
        rest = after;
        Some(block)
    })
}

/// The one block with one of these labels. A text without it, or with several, is returned as it is, so that the parser
/// says what is wrong.
pub(crate) fn only_block<'a>(text: &'a str, labels: &'a [&str]) -> &'a str {
    let mut found = labels.iter().flat_map(|label| blocks(text, label));
    match (found.next(), found.next()) {
        (Some(block), None) => block,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----";
    const SECOND: &str = "-----BEGIN CERTIFICATE-----\r\nBAUG\r\n-----END CERTIFICATE-----";
    const REQUEST: &str = "-----BEGIN NEW CERTIFICATE REQUEST-----\nAQID\n-----END NEW CERTIFICATE REQUEST-----";

    #[test]
    fn blocks_are_found_among_other_text_in_their_order() {
        let text = format!("\u{feff}Bag Attributes\n  localKeyID: 01\n{FIRST}\n{REQUEST}\n1 s:CN = Root\n{SECOND}\n");
        assert_eq!(blocks(&text, "CERTIFICATE").collect::<Vec<_>>(), [FIRST, SECOND]);
        assert_eq!(blocks(&text, "PUBLIC KEY").count(), 0);
        assert_eq!(blocks(&FIRST[..FIRST.len() - 1], "CERTIFICATE").count(), 0);
    }

    #[test]
    fn a_text_that_is_ambiguous_is_left_to_the_parser() {
        let labels = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];
        assert_eq!(only_block(&format!("Certificate Request:\n  Data:\n{REQUEST}\n"), &labels), REQUEST);
        for text in [format!("{REQUEST}\n{REQUEST}"), FIRST.to_owned(), "AQID".to_owned()] {
            assert_eq!(only_block(&text, &labels), text);
        }
    }
}
