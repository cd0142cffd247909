//! `verify`: an audit of a lake.

use super::output::{self, number, table};
use super::{Context, VerifyArgs};
use crate::error::Error;
use crate::lake::Lake;
use crate::lake::verify::{Audit, FindingKind};

pub(super) async fn run(args: &VerifyArgs, context: &Context) -> Result<(), Error> {
    let lake = Lake::open_existing(args.lake.store()?, &args.lake.scratch()).await?;
    let audit = lake.verify().await?;
    let shown = lake.store().shown();
    output::result(context.output, &audit, || text(&audit, shown))?;
    match audit.bad() {
        0 => Ok(()),
        findings => Err(Error::Unsound {
            findings,
            lake: shown.to_owned(),
        }),
    }
}

fn text(audit: &Audit, lake: &str) -> String {
    let head = format!(
        "{lake}: {} executions in {} partitions, {} findings\n",
        number(audit.executions),
        number(audit.partitions as u64),
        audit.findings.len(),
    );
    if audit.findings.is_empty() {
        return head
            + "every execution stands once, and every table is what its raw partition gives";
    }
    let mut rows = vec![["", "object", "what", "repair"].map(str::to_owned).to_vec()];
    rows.extend(audit.findings.iter().map(|finding| {
        let kind = match finding.kind {
            FindingKind::Ahead => "ahead",
            FindingKind::Foreign => "foreign",
            FindingKind::Damage => "damage",
        };
        let cells = [kind, &finding.path, &finding.what, finding.repair];
        cells.map(str::to_owned).to_vec()
    }));
    head + &table(&rows)
}
