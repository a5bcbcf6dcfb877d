//! The CA of a server of one's own: a folder with a root, those that issue below it, and their keys.
//!
//! `cvm serve` issues with it, and looks into the folder again while it runs; `cvm ca show`, `rotate`, `passphrase` and
//! `issue-server` operate it.

mod authority;
mod error;
mod folder;
mod key_place;
mod lists;
mod passphrase;
mod server_certificate;

pub(crate) use self::authority::{OwnAuthority, Root, Rotation, rotate};
pub(crate) use self::error::OwnCaError;
pub(crate) use self::folder::{CaFolder, current};
pub(crate) use self::key_place::KeyPlace;
pub(crate) use self::lists::{ListFacts, has_revoked, of_root as root_list, read as read_lists};
pub(crate) use self::passphrase::{PassphraseArguments, read as read_passphrase};
pub(crate) use self::server_certificate::{ServerFiles, ServerRequest};

#[cfg(test)]
mod tests;
