//! `cvm token`: who may operate a server of one's own.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use cvm_provisioning::Timestamp;
use serde_json::json;

use crate::arguments::TimeToLive;
use crate::error::CommandError;
use crate::output::{Output, printable};
use crate::serve::{OperatorTokens, OwnerName, Role, TokenRecord};
use crate::table::{Table, day};

/// Make, list and revoke the tokens of those who operate `cvm serve`
///
/// They are in the server's folder, which may run meanwhile: a token is good as soon as it is made, and ends at once when
/// it is revoked.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TokenArguments {
    #[command(subcommand)]
    verb: TokenVerb,
    /// The server's folder
    #[arg(long, global = true, env = "CVM_DATA", value_name = "DIR", default_value = "cvm-data")]
    data: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  cvm token create --name anna --role operator --ttl 30d
  cvm token list
  cvm token revoke 0123456789abcdef";

#[derive(Debug, Subcommand)]
enum TokenVerb {
    Create(CreateArguments),
    List(ListArguments),
    Revoke(RevokeArguments),
}

/// Make a token, and show it once
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cvm token create --name anna --role viewer --ttl 8h")]
struct CreateArguments {
    /// Whose it is: the audit trail has it beside each change
    #[arg(long)]
    name: OwnerName,
    /// What it lets its owner do
    #[arg(long, value_enum)]
    role: Role,
    /// When it ends, such as 12h or 30d; without it, never
    #[arg(long, value_name = "TIME")]
    ttl: Option<TimeToLive>,
}

/// List the tokens there are, without what opens anything
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cvm token list --output json | jq -r .id")]
struct ListArguments {}

/// Revoke a token, at once
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cvm token revoke 0123456789abcdef")]
struct RevokeArguments {
    /// The id, as `cvm token list` has it
    id: String,
}

pub(crate) fn run(arguments: &TokenArguments, output: &Output) -> Result<(), CommandError> {
    let tokens = OperatorTokens::of_server(&arguments.data)?;
    match &arguments.verb {
        TokenVerb::Create(CreateArguments { name, role, ttl }) => {
            let now = Timestamp::from(SystemTime::now());
            let (record, token) = tokens.create(name.as_str(), *role, ttl.map(|ttl| now.after(ttl.duration())), now)?;
            let mut shown = view(&record);
            shown["token"] = token.as_str().into();
            output.json(&shown)?;
            output.note("it is not shown again")?;
            output.say(token)?;
        }
        TokenVerb::List(ListArguments {}) => {
            let all = tokens.list()?;
            let mut table = Table::new(["ID", "NAME", "ROLE", "CREATED", "ENDS"], output.width());
            let rows: Vec<_> = all.iter().map(row).collect();
            table.fit(&rows);
            if !rows.is_empty() {
                output.headline(&table.header())?;
            }
            for (record, row) in all.iter().zip(&rows) {
                output.json_line(&view(record))?;
                output.say(table.line(row))?;
            }
        }
        TokenVerb::Revoke(RevokeArguments { id }) => {
            tokens.revoke(id)?;
            output.json(&json!({ "id": id }))?;
            output.done(format_args!("{id} opens nothing any more"))?;
        }
    }
    Ok(())
}

fn view(record: &TokenRecord) -> serde_json::Value {
    json!({
        "id": record.id, "name": record.name, "role": record.role.name(),
        "createdAt": record.created_at.to_string(), "expiresAt": record.expires_at.map(|end| end.to_string()),
    })
}

fn row(record: &TokenRecord) -> [String; 5] {
    let end = record.expires_at.map_or_else(|| "never".to_owned(), |end| end.to_string());
    [record.id.clone(), printable(&record.name), record.role.name().to_owned(), day(&record.created_at), end]
}
