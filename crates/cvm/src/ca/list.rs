use clap::Args;
use cvm_aws::CertificateAuthorities;

use super::CaError;
use super::view::CaView;
use crate::error::CommandError;
use crate::output::{Output, printable};
use crate::table::{Table, day};

/// List the CAs that are registered with AWS IoT
///
/// With `--output json` each CA is one line of JSON (NDJSON).
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct ListArguments {}

const EXAMPLES: &str = "\
Examples:
  cvm ca list
  cvm ca list --output json | jq -r 'select(.status == \"active\") | .caId'";

pub(super) async fn run(authorities: &CertificateAuthorities, output: &Output) -> Result<(), CommandError> {
    let mut table = Table::new(["CA", "NAME", "STATUS", "REGISTERS", "TEMPLATE", "NOT AFTER"], output.width());
    let mut is_first = true;
    let mut after = None;
    loop {
        let page = authorities.list(after).await.map_err(CaError::from)?;
        let views: Vec<CaView> = page.authorities.iter().map(CaView::from).collect();
        let rows: Vec<_> = views.iter().map(row).collect();
        table.fit(&rows);
        if is_first && !rows.is_empty() {
            output.headline(&table.header())?;
            is_first = false;
        }
        for (view, row) in views.iter().zip(&rows) {
            output.json_line(view)?;
            output.say(table.line(row))?;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if is_first {
        output.note("no CA is registered; `cvm ca create --name NAME --out DIR` makes one")?;
    }
    Ok(())
}

fn row(view: &CaView) -> [String; 6] {
    let or_dash = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), one_line);
    [
        view.ca_id.to_string(),
        or_dash(&view.name),
        view.status.to_owned(),
        if view.auto_registration { "automatically" } else { "no" }.to_owned(),
        or_dash(&view.template),
        view.not_after.as_ref().map_or_else(|| "-".to_owned(), day),
    ]
}

fn one_line(text: &str) -> String {
    printable(text).replace('\n', " ")
}
