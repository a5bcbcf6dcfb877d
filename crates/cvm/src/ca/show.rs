use clap::Args;
use cvm_authority::{KeyFile, published_name};
use cvm_provisioning::{Certificate, PublicKey, Timestamp};
use serde::Serialize;
use x509_parser::pem::parse_x509_pem;

use super::view::common_name;
use super::{CaError, DataArguments, now};
use crate::error::CommandError;
use crate::facts::Facts;
use crate::output::Output;
use crate::own_ca::{CaFolder, ListFacts, OwnCaError, current, read_lists};

/// Show the CA of a server of one's own: who issues, until when, and how old the revocation lists are
///
/// It needs neither keys nor their passphrase, and the server may run.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct ShowArguments {
    #[command(flatten)]
    data: DataArguments,
}

const EXAMPLES: &str = "\
Examples:
  cvm ca show --data /var/lib/cvm
  cvm ca show --output json | jq -r '.issuing[] | select(.state == \"next\")'";

pub(super) fn run(ShowArguments { data }: &ShowArguments, output: &Output) -> Result<(), CommandError> {
    let view = view(&data.folder(), now()).map_err(CaError::from)?;
    output.json(&view)?;
    for line in lines(&view) {
        output.say(line)?;
    }
    Ok(())
}

/// The CA of a server. Every field is always there.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct View {
    root: AuthorityView,
    /// The first one first.
    issuing: Vec<AuthorityView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AuthorityView {
    ca_id: String,
    name: Option<String>,
    /// `root`, or of one that issues: `earlier`, `issuing`, `next` or `ended`.
    state: &'static str,
    issues_from: Option<String>,
    /// Its name in the paths `/ca/NAME.pem` and `/crl/NAME.pem`.
    published_as: String,
    key_algorithm: Option<String>,
    /// `plain`, `encrypted`, `kms` (in AWS KMS) or `elsewhere`.
    key: &'static str,
    not_before: String,
    not_after: String,
    revocation_list: Option<ListView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ListView {
    number: u64,
    entries: usize,
    this_update: String,
    next_update: Option<String>,
    /// Nobody believes it any more.
    is_over: bool,
}

fn view(folder: &CaFolder, now: Timestamp) -> Result<View, OwnCaError> {
    let root = folder.root()?.ok_or_else(|| OwnCaError::NoCa { folder: folder.path().to_owned() })?;
    let lists = read_lists(&folder.lists_path())?;
    let all = folder.issuing()?;
    let issues = current(&all, now);
    let root_key = key_state(&folder.root_key_path())?;
    let root = authority(&root, ("root", None), root_key, &lists, now);
    let issuing = all.iter().map(|ca| {
        let state = match ca.has_ended(now) {
            true => "ended",
            false if Some(ca.number) == issues => "issuing",
            false if ca.has_begun(now) => "earlier",
            false => "next",
        };
        let key = key_state(&folder.issuing_path(ca.number, "key"))?;
        Ok(authority(&ca.certificate, (state, ca.issues_from), key, &lists, now))
    });
    Ok(View { root, issuing: issuing.collect::<Result<_, OwnCaError>>()? })
}

fn authority(
    certificate: &Certificate,
    (state, issues_from): (&'static str, Option<Timestamp>),
    key: &'static str,
    lists: &[ListFacts],
    now: Timestamp,
) -> AuthorityView {
    let subject = subject(certificate.pem());
    let list = lists.iter().find(|list| Some(&list.issuer) == subject.as_ref().map(|(name, _)| name));
    AuthorityView {
        ca_id: certificate.id().to_string(),
        name: common_name(certificate.pem()),
        state,
        issues_from: issues_from.map(|moment| moment.to_string()),
        published_as: published_name(certificate),
        key_algorithm: subject.and_then(|(_, algorithm)| algorithm),
        key,
        not_before: Timestamp::from(certificate.not_before()).to_string(),
        not_after: Timestamp::from(certificate.not_after()).to_string(),
        revocation_list: list.map(|list| ListView {
            number: list.number,
            entries: list.entries,
            this_update: list.this_update.to_string(),
            next_update: list.next_update.map(|moment| moment.to_string()),
            is_over: list.next_update.is_some_and(|moment| moment < now),
        }),
    }
}

/// The subject in DER, and the kind of the key.
fn subject(pem: &str) -> Option<(Vec<u8>, Option<String>)> {
    let (_, block) = parse_x509_pem(pem.as_bytes()).ok()?;
    let certificate = block.parse_x509().ok()?;
    let key = PublicKey::from_spki(certificate.public_key().raw).ok();
    Some((certificate.subject().as_raw().to_vec(), key.map(|key| key.algorithm().to_string())))
}

fn key_state(path: &std::path::Path) -> Result<&'static str, OwnCaError> {
    if path.with_extension("kms").exists() {
        return Ok("kms");
    }
    Ok(match path.exists() {
        false => "elsewhere",
        true if KeyFile::new(path).is_encrypted()? => "encrypted",
        true => "plain",
    })
}

/// One fact a line.
fn lines(View { root, issuing }: &View) -> Vec<String> {
    let mut facts = Facts::default();
    for ca in std::iter::once(root).chain(issuing) {
        facts.add(ca.state, ca.name.as_deref().unwrap_or("-"));
        facts.add("  CA", &ca.ca_id);
        if let (Some(from), "next") = (&ca.issues_from, ca.state) {
            facts.add("  issues from", from);
        }
        facts.add("  key", format_args!("{}, {}", ca.key_algorithm.as_deref().unwrap_or("-"), ca.key));
        facts.add("  not after", &ca.not_after);
        facts.add("  published", &ca.published_as);
        match &ca.revocation_list {
            Some(list) => {
                let end = list.next_update.as_deref().unwrap_or("-");
                let verb = if list.is_over { "WAS believed" } else { "believed" };
                facts.add(
                    "  list",
                    format_args!(
                        "{}, of {}, {verb} until {end}, {} revoked",
                        list.number, list.this_update, list.entries
                    ),
                );
            }
            None => facts.add("  list", "none yet; the server makes it when it runs"),
        }
    }
    facts.0
}
