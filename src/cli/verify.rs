//! `verify`: an audit of a lake.

use clap::Args;
use serde::Serialize;

use super::args::{LakeArgs, ScopeArgs, SourceArgs};
use super::output::{self, count, number, table};
use super::{Context, RATE};
use crate::config::{self, ConfigError};
use crate::error::{Code, Error};
use crate::job::compare::{Compared, Scrutiny, compare_with_source};
use crate::lake::Lake;
use crate::lake::finding::{Audit, FindingKind};
use crate::report::Failure;

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    lake: LakeArgs,
    /// Compare with the API, too: executions per project and day of what the lake covers; a request each
    #[arg(long, help_heading = "Comparison")]
    source: bool,
    /// The first instant compared (YYYY-MM-DD or RFC 3339) [default: 30 days ago]
    #[arg(
        long,
        value_name = "D",
        requires = "source",
        help_heading = "Comparison"
    )]
    from: Option<String>,
    /// The first instant after [default: the watermark of each project]
    #[arg(
        long,
        value_name = "D",
        requires = "source",
        help_heading = "Comparison"
    )]
    to: Option<String>,
    #[command(flatten)]
    api: SourceArgs,
    #[command(flatten)]
    scopes: ScopeArgs,
}

#[derive(Debug, Serialize)]
struct Verified {
    #[serde(flatten)]
    audit: Audit,
    /// What the source says; none unless asked for.
    source: Option<Compared>,
}

pub(super) async fn run(args: &VerifyArgs, context: &Context) -> Result<(), Error> {
    let scrutiny = args.scrutiny()?;
    // Settings that make no sense are told before the audit, which may take minutes.
    let api = scrutiny
        .is_some()
        .then(|| args.api.config(RATE))
        .transpose()?;
    let lake = Lake::open_existing(args.lake.store()?, &args.lake.scratch()?).await?;
    let mut audit = lake.verify().await?;
    let source = match scrutiny.zip(api) {
        Some((scrutiny, api)) => {
            let compared =
                compare_with_source(&lake, &api, &scrutiny, context.clock, &mut audit).await?;
            audit.findings.sort();
            Some(compared)
        }
        None => None,
    };
    let shown = lake.store().shown();
    let verified = Verified { audit, source };
    output::result(context.output, &verified, || text(&verified, shown))?;
    verdict(&verified, shown)
}

fn verdict(verified: &Verified, lake: &str) -> Result<(), Error> {
    let findings = verified.audit.bad();
    if 0 < findings {
        return Err(Error::Unsound {
            findings,
            lake: lake.to_owned(),
        });
    }
    match &verified.source {
        Some(compared) if !compared.not_compared.is_empty() => Err(Error::NotCompared {
            failed: compared.not_compared.len(),
            code: code(compared),
        }),
        _ => Ok(()),
    }
}

/// Why some projects could not be compared, if no other answered.
fn code(compared: &Compared) -> Code {
    let codes = compared.not_compared.iter().map(|failure| failure.code);
    let one = Code::of_all(&codes.collect::<Vec<_>>());
    one.filter(|_| compared.scopes == 0)
        .unwrap_or(Code::Partial)
}

impl VerifyArgs {
    /// What is to be compared with the source, if anything.
    fn scrutiny(&self) -> Result<Option<Scrutiny>, ConfigError> {
        if !self.source {
            let is_everything = self.scopes.is_everything();
            let idle = "--org, --project and --exclude go with --source";
            return if is_everything {
                Ok(None)
            } else {
                Err(ConfigError::Range(idle.to_owned()))
            };
        }
        let instant = |text: &Option<String>| text.as_deref().map(config::instant).transpose();
        Ok(Some(Scrutiny {
            filter: self.scopes.filter()?,
            from: instant(&self.from)?,
            to: instant(&self.to)?,
        }))
    }
}

fn text(verified: &Verified, lake: &str) -> String {
    let Verified { audit, source } = verified;
    let mut text = format!(
        "{lake}: {} in {}, {}\n",
        count(audit.executions, "execution"),
        count(audit.partitions as u64, "partition"),
        count(audit.findings.len() as u64, "finding"),
    );
    if let Some(compared) = source {
        text.push_str(&text_of_source(compared));
    }
    if audit.findings.is_empty() {
        return text
            + "every execution stands once, and every table is what its raw partition gives";
    }
    let mut rows = vec![["", "object", "what", "repair"].map(str::to_owned).to_vec()];
    rows.extend(audit.findings.iter().map(|finding| {
        let kind = match finding.kind {
            FindingKind::Ahead => "ahead",
            FindingKind::Foreign => "foreign",
            FindingKind::Damage => "damage",
        };
        let cells = [kind, &finding.path, &finding.what, &finding.repair];
        cells.map(str::to_owned).to_vec()
    }));
    text + &table(&rows)
}

fn text_of_source(compared: &Compared) -> String {
    let missing: usize = compared
        .differences
        .iter()
        .map(|day| day.missing.len())
        .sum();
    let more: u64 = compared
        .differences
        .iter()
        .map(|day| day.in_lake.saturating_sub(day.at_source))
        .sum();
    let mut text = format!(
        "source: {} projects on {} days, {} executions there and {} here, {} missing here, {} here only \
         (deleted or moved there)\n",
        compared.scopes,
        number(compared.days as u64),
        number(compared.at_source),
        number(compared.in_lake),
        number(missing as u64),
        number(more),
    );
    for failure in &compared.not_compared {
        let Failure {
            org,
            project,
            code,
            message,
        } = failure;
        let told = format!("not compared: {org}/{project}: {code}: {message}\n");
        text.push_str(&told);
    }
    text
}
