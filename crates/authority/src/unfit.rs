use cvm_provisioning::Timestamp;

/// Why a certificate is not one to issue with.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// The certificates above it do not lead up to a root.
    #[error("the certificate {position} of its chain was not signed by the one behind it, or that is not allowed to")]
    Chain {
        /// Which one, from 0, which is the CA's own.
        position: usize,
    },
    /// It has run out.
    #[error("it expired at {at}")]
    Expired {
        /// The last moment of its validity.
        at: Timestamp,
    },
    /// It, or its extensions, cannot be read.
    #[error("its extensions cannot be read")]
    Encoding,
    /// It may do other things only.
    #[error("it is a CA's whose key usage has no keyCertSign")]
    KeyUsage,
    /// The library takes one attribute for each part of a name.
    #[error("its subject has a part of several attributes, or of a kind that cannot be repeated as an issuer")]
    Name,
    /// Names are compared byte by byte on the way from a certificate to its CA.
    #[error("its subject cannot be repeated byte for byte as the issuer of a certificate")]
    NameBytes,
    /// It is not a CA's.
    #[error("it is no CA's: expected the basic constraint CA:TRUE")]
    NoAuthority,
    /// It is for later.
    #[error("it is not valid before {until}")]
    NotYet {
        /// The first moment of its validity.
        until: Timestamp,
    },
    /// The key that is to sign is another.
    #[error("the key that signs does not belong to it")]
    OtherKey,
}
