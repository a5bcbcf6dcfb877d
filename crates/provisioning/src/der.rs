//! A strict reader of DER (ITU-T X.690 section 10), for what strangers send, and a writer of it.
//!
//! One value has one encoding here: lengths are definite and minimal, tags are one byte, and nothing may follow what
//! was expected. That is what makes a fingerprint of an encoded key worth something, because the same key cannot
//! come back in other bytes. General-purpose X.509 readers tolerate more. The reader descends only where its caller
//! does, so it cannot recurse, and it never allocates.

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const NULL: u8 = 0x05;
pub(crate) const OID: u8 = 0x06;
pub(crate) const UTF8_STRING: u8 = 0x0c;
pub(crate) const PRINTABLE_STRING: u8 = 0x13;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;
/// `[0]`, constructed.
pub(crate) const CONTEXT_0: u8 = 0xa0;

/// Reads `input` to its end: whatever `read` leaves over is an error.
pub(crate) fn read_all<'a, T, E: From<BadDer>>(
    input: &'a [u8],
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, E>,
) -> Result<T, E> {
    let mut reader = Reader::new(input);
    let value = read(&mut reader)?;
    match reader.input.len() {
        0 => Ok(value),
        count => Err(BadDer::TrailingBytes { count }.into()),
    }
}

/// What has not been read yet of one level of an encoding.
pub(crate) struct Reader<'a> {
    input: &'a [u8],
}

/// One value: its tag, its content, and both together with the length as they were sent.
#[derive(Clone, Copy)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    pub(crate) encoded: &'a [u8],
}

impl<'a> Element<'a> {
    /// Reads the content to its end.
    pub(crate) fn read<T, E: From<BadDer>>(self, read: impl FnOnce(&mut Reader<'a>) -> Result<T, E>) -> Result<T, E> {
        read_all(self.content, read)
    }
}

impl<'a> Reader<'a> {
    /// For a look at the start of `input`. Where nothing may be left over, [`read_all`] is the way.
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self { input }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.input.is_empty()
    }

    /// The next value, whatever it is.
    pub(crate) fn element(&mut self) -> Result<Element<'a>, BadDer> {
        let (tag, length, header) = match *self.input {
            [tag, ..] if tag & 0x1f == 0x1f => return Err(BadDer::LongTag),
            [tag, length @ 0..0x80, ..] => (tag, usize::from(length), 2),
            [_, 0x80, ..] => return Err(BadDer::IndefiniteLength),
            [tag, 0x81, length @ 0x80..=0xff, ..] => (tag, usize::from(length), 3),
            [tag, 0x82, high @ 1..=0xff, low, ..] => (tag, usize::from(high) << 8 | usize::from(low), 4),
            [_, 0x81, _, ..] | [_, 0x82, _, _, ..] | [_, 0x83..=0xff, ..] => return Err(BadDer::Length),
            _ => return Err(BadDer::Truncated),
        };
        let (encoded, rest) = self.input.split_at_checked(header + length).ok_or(BadDer::Truncated)?;
        self.input = rest;
        Ok(Element { tag, content: &encoded[header..], encoded })
    }

    /// The next value, which has this tag.
    pub(crate) fn expect(&mut self, tag: u8) -> Result<Element<'a>, BadDer> {
        let element = self.element()?;
        if element.tag != tag {
            return Err(BadDer::Tag { expected: tag, found: element.tag });
        }
        Ok(element)
    }

    /// The next value if there is one and it has this tag.
    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<Element<'a>>, BadDer> {
        match self.input.first() {
            Some(found) if *found == tag => self.element().map(Some),
            _ => Ok(None),
        }
    }

    /// The next value, an INTEGER above or equal to zero, as its magnitude: big-endian, without a leading zero unless
    /// it is zero itself.
    pub(crate) fn unsigned_integer(&mut self) -> Result<&'a [u8], BadDer> {
        match self.expect(INTEGER)?.content {
            [0, magnitude @ ..] if magnitude.first().is_some_and(|first| *first >= 0x80) => Ok(magnitude),
            [0] => Ok(&[0]),
            [0, ..] | [] | [0x80..=0xff, ..] => Err(BadDer::Integer),
            magnitude => Ok(magnitude),
        }
    }

    /// The next value, a BIT STRING of whole bytes.
    pub(crate) fn bit_string(&mut self) -> Result<&'a [u8], BadDer> {
        match self.expect(BIT_STRING)?.content {
            [0, bytes @ ..] => Ok(bytes),
            _ => Err(BadDer::BitString),
        }
    }

    /// The next value if it is a BOOLEAN, else false: how `DEFAULT FALSE` reads. An encoded FALSE is let pass, because
    /// common encoders write it.
    pub(crate) fn boolean_or_false(&mut self) -> Result<bool, BadDer> {
        match self.optional(BOOLEAN)?.map(|boolean| boolean.content) {
            None | Some([0]) => Ok(false),
            Some([0xff]) => Ok(true),
            Some(_) => Err(BadDer::Boolean),
        }
    }
}

/// Why bytes are not the DER they should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BadDer {
    /// A BIT STRING that is empty or does not end on a byte.
    #[error("a BIT STRING is empty or has unused bits")]
    BitString,
    /// A BOOLEAN that is neither 00 nor FF.
    #[error("a BOOLEAN is neither 00 nor FF")]
    Boolean,
    /// BER's indefinite length.
    #[error("a length is indefinite, which is BER; encode the request as DER")]
    IndefiniteLength,
    /// An INTEGER that is empty, negative or has superfluous leading zeros.
    #[error("an INTEGER is empty, negative or padded with zeros")]
    Integer,
    /// A length in more bytes than it needs, or beyond 65,535.
    #[error("a length is written in more bytes than it needs, or is above 65535")]
    Length,
    /// A tag number above 30, which no request or key contains.
    #[error("a tag number is above 30")]
    LongTag,
    /// Another type of value than the format has at this place.
    #[error("a value has the tag {found:#04x} where the format has {expected:#04x}")]
    Tag {
        /// The tag the format has there.
        expected: u8,
        /// The tag that came.
        found: u8,
    },
    /// Bytes follow where the format ends.
    #[error("{count} bytes follow where the encoding should end; send one object and nothing after it")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// The bytes end inside a value.
    #[error("the encoding ends inside a value; it was cut off on the way")]
    Truncated,
}

/// Encodes a value in DER: its tag, its length in as few bytes as it takes, and the parts of its content.
pub fn encode(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let octets = length.to_be_bytes();
    let significant = &octets[octets.iter().take_while(|octet| **octet == 0).count()..];
    let mut encoded = Vec::with_capacity(2 + significant.len() + length);
    encoded.push(tag);
    if length >= 0x80 {
        encoded.push(0x80 | significant.len() as u8);
    } else if significant.is_empty() {
        encoded.push(0);
    }
    encoded.extend(significant);
    for part in parts {
        encoded.extend_from_slice(part);
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(input: &[u8]) -> Result<&[u8], BadDer> {
        read_all(input, |reader| Ok(reader.element()?.content))
    }

    #[test]
    fn threat_22_lengths_are_definite_minimal_and_within_the_input() {
        assert_eq!(one(&[0x04, 0x01, 0xaa]), Ok(&[0xaa][..]));
        assert_eq!(one(&[&[0x04, 0x81, 0x80][..], &[7; 128]].concat()), Ok(&[7; 128][..]));
        assert_eq!(one(&[&[0x04, 0x82, 0x01, 0x00][..], &[7; 256]].concat()), Ok(&[7; 256][..]));
        for (bytes, error) in [
            (&[][..], BadDer::Truncated),
            (&[0x30], BadDer::Truncated),
            (&[0x30, 0x81], BadDer::Truncated),
            (&[0x30, 0x82, 0x01], BadDer::Truncated),
            (&[0x30, 0x02, 0x00], BadDer::Truncated),
            (&[0x30, 0x80, 0x00, 0x00], BadDer::IndefiniteLength),
            (&[0x30, 0x81, 0x7f], BadDer::Length),
            (&[0x30, 0x82, 0x00, 0xff], BadDer::Length),
            (&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], BadDer::Length),
            (&[0x30, 0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], BadDer::Length),
            (&[0x30, 0xff], BadDer::Length),
            (&[0x1f, 0x81, 0x00], BadDer::LongTag),
            (&[0x05, 0x00, 0x00], BadDer::TrailingBytes { count: 1 }),
        ] {
            assert_eq!(one(bytes), Err(error), "{bytes:02x?}");
        }
    }

    #[test]
    fn a_length_that_is_written_has_the_form_of_der() {
        assert_eq!(encode(4, &[]), [4, 0]);
        assert_eq!(encode(4, &[&[7; 127]])[..3], [4, 127, 7]);
        assert_eq!(encode(4, &[&[7; 128]])[..4], [4, 0x81, 128, 7]);
        assert_eq!(encode(4, &[&[7; 200], &[7; 100]])[..5], [4, 0x82, 1, 44, 7]);
    }

    #[test]
    fn an_integer_has_one_encoding() {
        let read = |bytes: &[u8]| read_all(bytes, |reader| reader.unsigned_integer().map(<[u8]>::to_vec));
        assert_eq!(read(&[2, 1, 0]), Ok(vec![0]));
        assert_eq!(read(&[2, 1, 0x7f]), Ok(vec![0x7f]));
        assert_eq!(read(&[2, 2, 0, 0x80]), Ok(vec![0x80]));
        for bad in [&[2, 0][..], &[2, 1, 0x80], &[2, 2, 0, 0x7f], &[2, 3, 0, 0, 0x80]] {
            assert_eq!(read(bad), Err(BadDer::Integer), "{bad:02x?}");
        }
    }
}
