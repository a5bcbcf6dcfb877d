//! A CA as the library that encodes has it, read once: to read it for each certificate takes as long as to write one.

use rcgen::string::{BmpString, Ia5String, PrintableString, TeletexString, UniversalString};
use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyIdMethod, KeyUsagePurpose};
use x509_parser::asn1_rs::Tag;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// What the library takes of an issuer: its name, the identifier of its key, and whether it signs revocation lists.
pub(crate) fn library_issuer(
    name: &X509Name<'_>,
    key_identifier: &[u8],
    signs_crls: bool,
) -> Option<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for part in name.iter() {
        let mut attributes = part.iter();
        let (attribute, None) = (attributes.next()?, attributes.next()) else { return None };
        let kind: Vec<u64> = attribute.attr_type().iter()?.collect();
        params.distinguished_name.push(DnType::from_oid(&kind), value(attribute)?);
    }
    params.key_identifier_method = KeyIdMethod::PreSpecified(key_identifier.to_vec());
    if signs_crls {
        params.key_usages.push(KeyUsagePurpose::CrlSign);
    }
    Some(params)
}

/// The value in the string type that it has.
fn value(attribute: &AttributeTypeAndValue<'_>) -> Option<DnValue> {
    let value = attribute.attr_value();
    let text = || str::from_utf8(value.data).ok();
    match value.header.tag() {
        Tag::BmpString => BmpString::from_utf16be(value.data.to_vec()).ok().map(DnValue::BmpString),
        Tag::Ia5String => Ia5String::try_from(text()?).ok().map(DnValue::Ia5String),
        Tag::PrintableString => PrintableString::try_from(text()?).ok().map(DnValue::PrintableString),
        Tag::T61String => TeletexString::try_from(text()?).ok().map(DnValue::TeletexString),
        Tag::UniversalString => UniversalString::from_utf32be(value.data.to_vec()).ok().map(DnValue::UniversalString),
        Tag::Utf8String => text().map(|text| DnValue::Utf8String(text.to_owned())),
        _ => None,
    }
}
