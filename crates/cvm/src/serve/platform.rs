//! Which platform devices become part of, where their registry is, and what the platform has to be told.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::ValueEnum;
use cvm_http::{Endpoint, RootCa};
use cvm_provisioning::{ProvisioningTemplate, TemplateName, Templates};
use cvm_sql::{OpenError, SqlRegistry};

use super::claims::Claims;
use super::settings::{Origin, Settings};
use crate::database::{DYNAMODB, Database};
use crate::error::with_causes;
use crate::file;

/// The longest file with a template or a certificate, in bytes.
const MAX_FILE: usize = 64 * 1024;

/// Who makes certificates and lets devices in.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum PlatformName {
    /// AWS IoT, by the region, the credentials and the endpoint of the AWS environment (AWS_REGION, AWS_PROFILE, ...)
    Aws,
    /// The server's own CA, and any broker that trusts it
    Own,
}

/// A platform with its registry: `D` is a database that is named, and then a registry that is open.
#[derive(Debug)]
pub(super) enum Platform<D> {
    Aws {
        aws: Box<Aws>,
        place: Place<D>,
    },
    Own {
        registry: D,
        /// What devices verify their broker by, where that is not the server's own CA.
        broker_ca: Option<RootCa>,
    },
}

/// Where the registry of a platform is that is not ours.
#[derive(Debug)]
pub(super) enum Place<D> {
    DynamoDb(Stack),
    Sql(D),
}

/// What is to be known of a stack whose registry this is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Stack {
    /// The table of the registry.
    pub(super) devices: String,
    /// The table of what happened.
    pub(super) audit: String,
    /// The claims that are made out, if any are.
    pub(super) claims: Option<Claims>,
}

/// What is to be known beforehand about AWS IoT.
#[derive(Debug)]
pub(super) struct Aws {
    /// The endpoint that devices are told to connect to; `None` is the account's own.
    pub(super) broker: Option<Endpoint>,
    pub(super) root_ca: RootCa,
    pub(super) templates: Templates,
}

impl Platform<Database> {
    /// What `settings` say about it; everything that is wrong with that is told.
    pub(super) fn of(
        settings: &Settings,
        database: Option<Database>,
        tell: &mut impl FnMut(&str, String),
    ) -> Option<Self> {
        let arguments = &settings.arguments;
        let is_given = |key: &str| settings.table.get(key).is_some_and(|setting| setting.from != Origin::Default);
        let table = arguments.database.strip_prefix(DYNAMODB);
        // The variable may well be there for other commands, which know it, too.
        let audit = settings.table.get("audit-table").map_or(Origin::Default, |setting| setting.from);
        if table.is_none() && matches!(audit, Origin::File | Origin::Option) {
            tell(
                "audit-table",
                "it goes with the database dynamodb:TABLE; others keep what happened themselves".to_owned(),
            );
        }
        let claims = Claims::of(arguments, table.is_some(), tell);
        match arguments.platform {
            PlatformName::Own => {
                if table.is_some() {
                    let text = "DynamoDB goes with the platform aws: give `sqlite`, or mysql://USER@HOST:PORT/DATABASE";
                    tell("database", text.to_owned());
                }
                if is_given("template") {
                    let text = "it goes with the platform aws; what a device may do is for the broker to say";
                    tell("template", text.to_owned());
                }
                let broker_ca = match arguments.broker_ca.as_deref() {
                    None => None,
                    Some(path) => Some(root_ca(Some(path), tell)?),
                };
                Some(Self::Own { registry: database?, broker_ca })
            }
            PlatformName::Aws => {
                if is_given("validity") {
                    tell("validity", "AWS IoT says how long its certificates are valid: leave it away".to_owned());
                }
                for key in ["revocation-address", "revocation-listen"].into_iter().filter(|key| is_given(key)) {
                    tell(key, "AWS IoT says which of its certificates are revoked: leave it away".to_owned());
                }
                if is_given("ca-passphrase-file") && is_given("tls-certificate") {
                    let text = "with tls-certificate and AWS IoT there is no CA of the server's: leave it away";
                    tell("ca-passphrase-file", text.to_owned());
                }
                if table.is_some() && is_given("audit-retention") {
                    let text = "the trail is the stack's, which has AuditRetentionDays: leave it away";
                    tell("audit-retention", text.to_owned());
                }
                let broker = is_given("broker").then(|| arguments.broker.clone());
                let root_ca = root_ca(arguments.broker_ca.as_deref(), tell);
                let templates = templates(&arguments.templates, tell);
                let place = match table {
                    Some(table) => stack(table, arguments.audit_table.as_deref(), claims, tell).map(Place::DynamoDb),
                    None => database.map(Place::Sql),
                };
                let aws = Aws { broker, root_ca: root_ca?, templates: templates? };
                Some(Self::Aws { aws: Box::new(aws), place: place? })
            }
        }
    }

    /// Opens the registry, as far as that is ours to do.
    pub(super) fn open(self, folder: &Path) -> Result<Platform<SqlRegistry>, OpenError> {
        Ok(match self {
            Self::Aws { aws, place: Place::DynamoDb(stack) } => Platform::Aws { aws, place: Place::DynamoDb(stack) },
            Self::Aws { aws, place: Place::Sql(database) } => {
                Platform::Aws { aws, place: Place::Sql(database.open(folder)?) }
            }
            Self::Own { registry, broker_ca } => Platform::Own { registry: registry.open(folder)?, broker_ca },
        })
    }
}

impl<D> Platform<D> {
    /// The database, where it is not somebody else's.
    pub(super) const fn database(&self) -> Option<&D> {
        match self {
            Self::Aws { place: Place::DynamoDb(_), .. } => None,
            Self::Aws { place: Place::Sql(database), .. } | Self::Own { registry: database, .. } => Some(database),
        }
    }
}

fn stack(
    devices: &str,
    audit: Option<&str>,
    claims: Option<Claims>,
    tell: &mut impl FnMut(&str, String),
) -> Option<Stack> {
    let audit = audit.filter(|name| !name.is_empty());
    let mut is_name = |key, name: &str| {
        // DynamoDB developer guide, "Naming rules".
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        let is_name = (3..=255).contains(&name.len()) && name.bytes().all(allowed);
        if !is_name {
            tell(key, "a table of DynamoDB has a name of 3 to 255 letters, digits and _.-".to_owned());
        }
        is_name
    };
    let are_names = [is_name("database", devices), audit.is_none_or(|audit| is_name("audit-table", audit))];
    let Some(audit) = audit else {
        tell("audit-table", "it is missing: give the stack's output AuditTableName".to_owned());
        return None;
    };
    are_names.iter().all(|is| *is).then(|| Stack { devices: devices.to_owned(), audit: audit.to_owned(), claims })
}

fn root_ca(path: Option<&Path>, tell: &mut impl FnMut(&str, String)) -> Option<RootCa> {
    let root_ca = match path {
        None => RootCa::amazon(),
        Some(path) => match file::read_text(path, MAX_FILE) {
            Ok(pem) => pem.parse(),
            Err(error) => {
                tell("broker-ca", format!("{}; {}", with_causes(&error), error.advice()));
                return None;
            }
        },
    };
    root_ca.inspect_err(|error| tell("broker-ca", with_causes(error))).ok()
}

/// The file of a template, and the name by which registry items ask for it; the one without a name is for those that ask
/// for none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct TemplateFile {
    name: Option<TemplateName>,
    path: PathBuf,
}

impl FromStr for TemplateFile {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let named = text.split_once('=').and_then(|(name, path)| Some((name.parse().ok()?, path)));
        Ok(match named {
            Some((name, path)) => Self { name: Some(name), path: path.into() },
            None => Self { name: None, path: text.into() },
        })
    }
}

fn templates(files: &[TemplateFile], tell: &mut impl FnMut(&str, String)) -> Option<Templates> {
    let (mut default, mut named, mut are_good) = (None, BTreeMap::new(), true);
    for TemplateFile { name, path } in files {
        let Some(template) = template(path, tell) else {
            are_good = false;
            continue;
        };
        let replaced = match name {
            Some(name) => named.insert(name.clone(), template).is_some(),
            None => default.replace(template).is_some(),
        };
        if replaced {
            let what = name.as_ref().map_or("without a name", TemplateName::as_str);
            tell("template", format!("there are two {what}: give each once, the others as NAME=FILE"));
            are_good = false;
        }
    }
    let Some(default) = default else {
        if are_good {
            let text = "it is missing: give the file of a provisioning template, which says what a device becomes and \
                        which policy it gets";
            tell("template", text.to_owned());
        }
        return None;
    };
    let templates = Templates::new(default, named).inspect_err(|error| tell("template", with_causes(error)));
    templates.ok().filter(|_| are_good)
}

fn template(path: &Path, tell: &mut impl FnMut(&str, String)) -> Option<ProvisioningTemplate> {
    let body = file::read_text(path, MAX_FILE).inspect_err(|error| {
        tell("template", format!("{}; {}", with_causes(error), error.advice()));
    });
    let template = ProvisioningTemplate::parse(&body.ok()?);
    template
        .inspect_err(|error| tell("template", format!("{} is no template: {}", path.display(), with_causes(error))))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::super::check::Checked;
    use super::super::settings::tests::settings;
    use super::super::settings::{SettingsError, Wrong};
    use super::*;

    const TEMPLATE: &str = r#"{"Resources": {
        "t": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": "x"}},
        "c": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}}}
    }}"#;

    /// What is made of these options, or the keys that are wrong.
    fn checked(flags: &[&str]) -> Result<Platform<Database>, Vec<String>> {
        match Checked::of(&settings(flags, "").unwrap()) {
            Ok(checked) => Ok(checked.platform),
            Err(SettingsError::Wrong { wrong, .. }) => Err(wrong.into_iter().map(|Wrong { key, .. }| key).collect()),
            Err(other) => panic!("{other:?}"),
        }
    }

    /// The option with the path of a template.
    fn template_in(folder: &tempfile::TempDir, name: &str, body: &str) -> String {
        let path = folder.path().join(name);
        std::fs::write(&path, body).unwrap();
        format!("--template={}", path.display())
    }

    #[test]
    fn aws_needs_a_template_and_takes_its_own_endpoint_and_root_ca() {
        let folder = tempfile::tempdir().unwrap();
        let template = template_in(&folder, "t.json", TEMPLATE);
        assert_eq!(checked(&["--platform=aws"]).unwrap_err(), ["template"]);
        let Platform::Aws { aws, place: Place::Sql(Database::Sqlite) } =
            checked(&["--platform=aws", &template]).unwrap()
        else {
            panic!("another platform");
        };
        assert_eq!((aws.broker.as_ref(), aws.root_ca), (None, RootCa::amazon().unwrap()));
        let given = checked(&["--platform=aws", &template, "--broker=b.example"]).unwrap();
        assert!(matches!(given, Platform::Aws { aws, .. } if aws.broker.as_ref().unwrap().as_str() == "b.example"));
    }

    #[test]
    fn what_makes_no_sense_with_a_platform_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let template = template_in(&folder, "t.json", TEMPLATE);
        let nonsense: [(&[&str], &[&str]); 11] = [
            (&[&template], &["template"]),
            (&["--broker-ca=/ca.pem"], &["broker-ca"]),
            (&["--database=dynamodb:devices"], &["database"]),
            (&["--audit-table=audit"], &["audit-table"]),
            (&["--claim-template=fleet"], &["claim-template"]),
            (&["--platform=aws", &template, "--claim-template=fleet"], &["claim-template"]),
            (&["--platform=aws", &template, "--validity=1d"], &["validity"]),
            (&["--platform=aws", &template, "--revocation-listen=127.0.0.1:0"], &["revocation-listen"]),
            (&["--platform=aws", &template, "--database=dynamodb:d"], &["database", "audit-table"]),
            (
                &[
                    "--platform=aws",
                    &template,
                    "--database=dynamodb:devices",
                    "--audit-table=audit",
                    "--audit-retention=90d",
                ],
                &["audit-retention"],
            ),
            (
                &["--platform=aws", &template, "--database=dynamodb:devices", "--database-password-file=/p"],
                &["database-password-file", "audit-table"],
            ),
        ];
        for (flags, keys) in nonsense {
            assert_eq!(checked(flags).unwrap_err(), keys, "{flags:?}");
        }
    }

    #[test]
    fn a_table_has_the_table_of_what_happened_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let template = template_in(&folder, "t.json", TEMPLATE);
        let flags = ["--platform=aws", &template, "--database=dynamodb:devices", "--audit-table=audit"];
        let stack = |flags: &[&str]| match checked(flags).unwrap() {
            Platform::Aws { place: Place::DynamoDb(stack), .. } => stack,
            other => panic!("another place: {other:?}"),
        };
        let without = Stack { devices: "devices".to_owned(), audit: "audit".to_owned(), claims: None };
        assert_eq!(stack(&flags), without);
        let claims = Claims { template: "fleet".parse().unwrap(), per_user_per_day: 100 };
        let flags = [&flags[..], &["--claim-template=fleet"]].concat();
        assert_eq!(stack(&flags), Stack { claims: Some(claims), ..without });
    }

    #[test]
    fn a_template_with_a_name_is_for_those_that_ask_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let template = template_in(&folder, "t.json", TEMPLATE);
        let named = template.replace("--template=", "--template=gateway=");
        let Platform::Aws { aws, .. } = checked(&["--platform=aws", &template, &named]).unwrap() else {
            panic!("another platform");
        };
        assert!(aws.templates.has(&"gateway".parse().unwrap()) && !aws.templates.has(&"other".parse().unwrap()));
        for bad in [&named, &template] {
            let twice = checked(&["--platform=aws", &template, &named, bad]);
            assert_eq!(twice.unwrap_err(), ["template"], "{bad}");
        }
        assert_eq!(checked(&["--platform=aws", &named]).unwrap_err(), ["template"]);
        let broken = template_in(&folder, "b.json", "{");
        assert_eq!(checked(&["--platform=aws", &broken]).unwrap_err(), ["template"]);
    }
}
