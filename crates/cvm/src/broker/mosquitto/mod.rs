//! `cvm broker mosquitto`: a folder with all that mosquitto needs.

mod written;

use std::fs;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use clap::Args;
use cvm_authority::ServerName;
use cvm_provisioning::Timestamp;
use serde_json::json;

use self::written::Written;
use super::BrokerError;
use crate::address::Address;
use crate::arguments::fixed_listen_address;
use crate::ca::{DataArguments, ServerTerms};
use crate::file::{self, FileError};
use crate::output::{Output, shell_word};
use crate::own_ca::{CaFolder, OwnCaError, PassphraseArguments, ServerFiles};

/// Write a complete configuration of mosquitto for the devices of `cvm serve`
///
/// Writes to DIR: mosquitto.conf, acl, the broker's key and certificate, the CAs, the revocation lists, and two shell
/// scripts. `refresh` fetches the CAs and the lists from the server and makes mosquitto read them. `run` starts mosquitto
/// in the foreground, refreshes every minute, and restarts mosquitto when a certificate was revoked, which ends the session
/// of the revoked device.
///
/// Run the command again to renew the broker's certificate, or with other options to change the configuration. A
/// configuration file or script that was edited is kept: delete it to have it written again.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct MosquittoArguments {
    /// A DNS name or an IP address by which devices know the broker
    #[arg(value_name = "NAME", default_value = "localhost")]
    names: Vec<ServerName>,
    #[command(flatten)]
    data: DataArguments,
    #[command(flatten)]
    passphrase: PassphraseArguments,
    /// The folder to write; created if missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The address on which mosquitto listens, as ADDRESS:PORT; 0.0.0.0:8883 for other machines
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8883", value_parser = fixed_listen_address)]
    listen: SocketAddr,
    /// The server that `refresh` asks; verified by root.pem, or by server-ca.pem in the folder if that file exists
    #[arg(long, env = "CVM_SERVER", value_name = "URL", default_value = "https://localhost:8443")]
    server: Address,
    /// Where mosquitto will find the folder, if it is copied elsewhere; the default is the path of --out
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    #[command(flatten)]
    terms: ServerTerms,
}

const EXAMPLES: &str = "\
Examples:
  cvm broker mosquitto --data .local/serve --out broker
  cvm broker mosquitto broker.example.com --data /var/lib/cvm \\
      --listen 0.0.0.0:8883 --server https://cvm.example.com \\
      --out mosquitto --path /etc/mosquitto/cvm";

/// The files that mosquitto.conf names. mosquitto reads them again on SIGHUP.
const CA: &str = "ca.pem";
const LISTS: &str = "crl.pem";
/// The root alone, by which `refresh` verifies the server.
const ROOT: &str = "root.pem";
const ACL: &str = "acl";
const CONFIGURATION: &str = "mosquitto.conf";
const REFRESH: &str = "refresh";
const RUN: &str = "run";

pub(super) async fn run(arguments: &MosquittoArguments, output: &Output) -> Result<(), BrokerError> {
    let MosquittoArguments { names, data, passphrase, out, listen, server, path, terms } = arguments;
    let ca = data.folder();
    let now: Timestamp = SystemTime::now().into();
    expect_trust(&ca)?;
    file::private_folder(out)?;
    copy_trust(&ca, out)?;
    let server_files = ServerFiles::new(out);
    let issued = server_files.issue(&ca, passphrase, &terms.request(names), now).await?;
    let absolute = std::path::absolute(path.as_ref().unwrap_or(out));
    let absolute = absolute.map_err(|source| FileError::Read { path: out.clone(), source })?;
    let absolute = without_detours(&absolute);
    let at = quotable(&absolute)?;
    // Elsewhere, the service of mosquitto has a user of its own.
    let as_root = path.is_none() && runs_as_root(out);
    let configured = [
        (CONFIGURATION, configuration(at, *listen, as_root), PLAIN),
        (ACL, acl(), PLAIN),
        (REFRESH, refresh(quotable(Path::new(&server.to_string()))?), EXECUTABLE),
        (RUN, include_str!("run.sh").to_owned(), EXECUTABLE),
    ];
    let (mut kept, mut rewritten) = (Vec::new(), Vec::new());
    for (name, text, mode) in configured {
        let file = out.join(name);
        match written::write(&file, &text)? {
            Written::Created => set_mode(&file, mode)?,
            Written::Kept => kept.push(name),
            Written::Rewritten => {
                set_mode(&file, mode)?;
                rewritten.push(name);
            }
            Written::Unchanged => {}
        }
    }
    let files = [ROOT, CA, LISTS, CONFIGURATION, ACL, REFRESH, RUN].map(|name| out.join(name));
    give_to_owner(out, &[&files[..], &[server_files.key(), server_files.certificate()]].concat())?;

    let not_after = Timestamp::from(issued.certificate.not_after());
    output.json(&json!({
        "path": out,
        "certificateId": issued.certificate.id(),
        "isNew": issued.is_new,
        "notAfter": not_after.to_string(),
        "kept": kept,
        "rewritten": rewritten,
    }))?;
    match issued.is_new {
        true => output.done(format_args!("issued the broker's certificate, valid until {not_after}"))?,
        false => output.done(format_args!("kept the broker's certificate, which is valid until {not_after}"))?,
    }
    for name in &kept {
        let file = out.join(name).display().to_string();
        output.note(format_args!(
            "kept {file}, which was edited; delete it and run this again to have it written with these options"
        ))?;
    }
    if !rewritten.is_empty() {
        output.done(format_args!("rewrote {}; restart mosquitto, or `run`, to use it", rewritten.join(", ")))?;
    }
    output.done(format_args!("wrote {}", out.display()))?;
    match path {
        None => output.say(format_args!("\nNext:\n  {}", shell_word(&out.join(RUN).display().to_string())))?,
        Some(path) => output.say(format_args!(
            "\nNext: copy {} to {} on the broker's machine, give it to the user of mosquitto (chown -R), and as that user:\n  {}",
            out.display(),
            path.display(),
            shell_word(&path.join(RUN).display().to_string())
        ))?,
    }
    Ok(())
}

/// What the broker trusts, and its name in the folder.
fn trust(ca: &CaFolder) -> [(PathBuf, &'static str); 3] {
    [(ca.root_certificate_path(), ROOT), (ca.bundle_path(), CA), (ca.lists_path(), LISTS)]
}

/// Makes sure that the server was started: the first start makes the CAs and the lists.
fn expect_trust(ca: &CaFolder) -> Result<(), BrokerError> {
    match trust(ca).into_iter().find(|(path, _)| !path.exists()) {
        Some((path, _)) => Err(OwnCaError::NoLists { path }.into()),
        None => Ok(()),
    }
}

/// Copies what the broker trusts out of the CA's folder. Files that exist are kept: `refresh` replaces them, and ends the
/// sessions of devices that are revoked by what is new.
fn copy_trust(ca: &CaFolder, out: &Path) -> Result<(), BrokerError> {
    for (from, to) in trust(ca) {
        let (text, path) = (file::read_text(&from, MAX_FILE)?, out.join(to));
        match file::create(&path, &text) {
            Err(FileError::Exists { .. }) if to == ROOT && file::read_text(&path, MAX_FILE)? != text => {
                return Err(BrokerError::OtherCa { path });
            }
            Ok(()) | Err(FileError::Exists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Gives the files to the owner of the folder, such as the user of mosquitto: root renews them, too.
fn give_to_owner(folder: &Path, files: &[PathBuf]) -> Result<(), FileError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt as _, chown};

        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| FileError::Write { path, source }
        };
        let owner = fs::metadata(folder).map_err(failed(folder))?;
        for path in files {
            let found = fs::metadata(path).map_err(failed(path))?;
            if (found.uid(), found.gid()) != (owner.uid(), owner.gid()) {
                chown(path, Some(owner.uid()), Some(owner.gid())).map_err(failed(path))?;
            }
        }
    }
    Ok(())
}

/// The largest file that is copied, in bytes: the revocation lists of a million certificates.
const MAX_FILE: usize = 64 * 1024 * 1024;

const PLAIN: u32 = 0o600;
const EXECUTABLE: u32 = 0o700;

fn set_mode(path: &Path, mode: u32) -> Result<(), FileError> {
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
        .map_err(|source| FileError::Write { path: path.to_owned(), source })?;
    Ok(())
}

/// Whether the folder belongs to root, who starts mosquitto then.
fn runs_as_root(folder: &Path) -> bool {
    #[cfg(unix)]
    let is_root = fs::metadata(folder).is_ok_and(|folder| std::os::unix::fs::MetadataExt::uid(&folder) == 0);
    #[cfg(not(unix))]
    let is_root = false;
    is_root
}

/// The path without `.`, `..` and slashes that mean nothing, as `pwd` in it shows it.
fn without_detours(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, component| {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
        plain
    })
}

/// The path as text that means the same in mosquitto.conf.
fn quotable(path: &Path) -> Result<&str, BrokerError> {
    let is_plain = |text: &&str| !text.contains(['\n', '\r', '"', '\'', '\\', '$', '`']);
    path.to_str().filter(is_plain).ok_or_else(|| BrokerError::Path { path: path.to_owned() })
}

fn configuration(path: &str, listen: SocketAddr, as_root: bool) -> String {
    let (address, port) = (listen.ip(), listen.port());
    let user = match as_root {
        true => "\n# Started by root, mosquitto becomes this user, who has to be able to read the files.\nuser root\n",
        false => "",
    };
    format!(
        "\
# mosquitto for the devices of cvm. mosquitto.conf(5) explains each line.
{user}
# Options below a listener are that listener's.
per_listener_settings true
pid_file {path}/mosquitto.pid
persistence true
persistence_location {path}/

listener {port} {address}
cafile {path}/{CA}
crlfile {path}/{LISTS}
certfile {path}/server.pem
keyfile {path}/server.key
tls_version tlsv1.2

# A device is who its certificate says: the common name becomes the user name, and the user name the client id, whatever
# client id the device sends.
require_certificate true
use_identity_as_username true
use_username_as_clientid true
allow_anonymous false
acl_file {path}/{ACL}

# Your own services connect by a listener of their own, for example on this machine with passwords:
# listener 1883 127.0.0.1
# allow_anonymous false
# password_file {path}/passwords
"
    )
}

fn acl() -> String {
    "\
# %u is the user name, which is the device id: a device has the topics under devices/ID/ and no others.
pattern readwrite devices/%u/#
"
    .to_owned()
}

/// The script that refreshes the lists from this server.
fn refresh(server: &str) -> String {
    include_str!("refresh.sh").replace("@SERVER@", server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_a_shell_or_mosquitto_would_read_otherwise_is_refused() {
        assert_eq!(quotable(Path::new("/etc/mosquitto/a b")).unwrap(), "/etc/mosquitto/a b");
        for bad in ["/a\nlistener 1883", "/a'b", "/$(reboot)", "/a`b`", "/a\\b", "/a\"b"] {
            assert!(matches!(quotable(Path::new(bad)), Err(BrokerError::Path { .. })), "{bad:?}");
        }
    }

    /// The end-to-end tests run what the command writes: this ties it to what people copy from the page.
    #[test]
    fn the_docs_have_the_configuration_that_is_written() {
        let page = include_str!("../../../../../docs/brokers.md");
        let configuration = configuration("/etc/mosquitto/cvm", "0.0.0.0:8883".parse().unwrap(), false);
        for text in [configuration, acl()] {
            assert!(page.contains(&format!("```conf\n{text}```\n")), "{text}");
        }
    }

    #[test]
    fn the_files_name_the_folder_in_which_mosquitto_finds_them() {
        let text = configuration("/etc/mosquitto/cvm", "0.0.0.0:8884".parse().unwrap(), false);
        for line in [
            "listener 8884 0.0.0.0",
            "cafile /etc/mosquitto/cvm/ca.pem",
            "crlfile /etc/mosquitto/cvm/crl.pem",
            "acl_file /etc/mosquitto/cvm/acl",
            "use_username_as_clientid true",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert!(!text.contains("user root"));
        assert!(configuration("/a", "0.0.0.0:8884".parse().unwrap(), true).contains("\nuser root\n"));
        assert!(refresh("https://cvm.example.com").contains("'https://cvm.example.com'"));
    }
}
