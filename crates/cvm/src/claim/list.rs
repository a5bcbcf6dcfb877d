use clap::Args;
use cvm_provisioning::{Claim, ClaimStore, Timestamp};

use super::ClaimError;
use super::name::ClaimName;
use super::view::{ClaimView, standing, used};
use crate::error::CommandError;
use crate::output::Output;
use crate::registry::now;
use crate::table::{Table, day};

/// List claims, the oldest first
///
/// In text an id is shortened to what the other commands take for it. With `--output json` each claim is one line of
/// JSON (NDJSON).
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct ListArguments {}

const EXAMPLES: &str = "\
Examples:
  cvm claim list
  cvm claim list --output json | jq -r 'select(.madeOutTo == null)'";

pub(super) async fn run(registry: &impl ClaimStore, output: &Output) -> Result<(), CommandError> {
    let mut claims = registry.claims().await.map_err(ClaimError::from)?;
    if claims.is_empty() {
        output.note("there is no claim; `cvm claim create` makes one, `cvm claim add` registers one that there is")?;
        return Ok(());
    }
    claims.sort_unstable_by_key(|claim| (claim.created_at, claim.certificate));
    let now = now();
    let rows: Vec<_> = claims.iter().map(|claim| row(claim, now)).collect();
    let mut table = Table::new(["CLAIM", "STATUS", "USED", "EXPIRES", "CREATED", "MADE OUT"], output.width());
    table.fit(&rows);
    output.headline(&table.header())?;
    for (claim, row) in claims.iter().zip(&rows) {
        output.json_line(&ClaimView::from(claim))?;
        output.say(table.line(row))?;
    }
    Ok(())
}

fn row(claim: &Claim, now: Timestamp) -> [String; 6] {
    let made_out = claim.made_out.as_ref().map(|made_out| format!("for {} by {}", made_out.device, made_out.user));
    [
        claim.certificate.to_string()[..ClaimName::LISTED].to_owned(),
        standing(claim, now).to_owned(),
        used(claim),
        claim.expires_at.map_or_else(|| "never".to_owned(), |end| end.to_string()),
        day(&claim.created_at),
        made_out.unwrap_or_else(|| "-".to_owned()),
    ]
}
