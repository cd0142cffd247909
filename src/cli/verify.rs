//! The `verify` command.

use clap::Args;
use indicatif::HumanCount;
use serde::Serialize;

use super::args::{LakeArgs, ScopeArgs, SourceArgs};
use super::output::{self, count, table};
use super::{Context, DEFAULT_RATE};
use crate::config::{self, ConfigError};
use crate::error::{Code, Error};
use crate::job::compare::{CompareOptions, SourceComparison, compare_with_source};
use crate::lake::Lake;
use crate::lake::finding::{Audit, FindingKind};
use crate::lake::size::SizeAdvice;
use crate::report::Failure;

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    lake: LakeArgs,
    /// Also compare counts per project and day with the API, one request each
    #[arg(long, help_heading = "Comparison with the API")]
    source: bool,
    /// Start of the range to compare, inclusive (YYYY-MM-DD or RFC 3339) [default: 30 days ago]
    #[arg(
        long,
        value_name = "DATE",
        requires = "source",
        help_heading = "Comparison with the API"
    )]
    from: Option<String>,
    /// End of the range to compare, exclusive [default: the watermark of each project]
    #[arg(
        long,
        value_name = "DATE",
        requires = "source",
        help_heading = "Comparison with the API"
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
    /// Advice about the sizes of objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<SizeAdvice>,
    /// The comparison with the API; `None` without `--source`.
    source: Option<SourceComparison>,
}

pub(super) async fn run(args: &VerifyArgs, context: &Context) -> Result<(), Error> {
    let options = args.compare_options()?;
    // The audit may take minutes, so invalid settings are reported before it.
    let api = options
        .is_some()
        .then(|| args.api.config(DEFAULT_RATE))
        .transpose()?;
    let lake = Lake::open_existing(args.lake.store()?, &args.lake.scratch()?).await?;
    let mut audit = lake.verify((context.clock)()).await?;
    let source = match options.zip(api) {
        Some((options, api)) => {
            let compared =
                compare_with_source(&lake, &api, &options, context.clock, &mut audit).await?;
            audit.findings.sort();
            Some(compared)
        }
        None => None,
    };
    let shown = lake.store().location();
    let verified = Verified {
        audit,
        advice: lake.size_advice().await?,
        source,
    };
    output::print_result(context.output, &verified, || text(&verified, shown))?;
    verdict(&verified, shown)
}

fn verdict(verified: &Verified, lake: &str) -> Result<(), Error> {
    let findings = verified.audit.failures();
    if findings > 0 {
        return Err(Error::Damaged {
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

/// Returns the common code of the projects that could not be compared if all failed, else `Partial`.
fn code(compared: &SourceComparison) -> Code {
    let codes = compared.not_compared.iter().map(|failure| failure.code);
    let common = Code::common(&codes.collect::<Vec<_>>());
    common
        .filter(|_| compared.scopes == 0)
        .unwrap_or(Code::Partial)
}

impl VerifyArgs {
    /// Returns what to compare with the API; `None` without `--source`.
    fn compare_options(&self) -> Result<Option<CompareOptions>, ConfigError> {
        if !self.source {
            let is_everything = self.scopes.is_everything();
            let message = "--org, --project and --exclude require --source";
            return if is_everything {
                Ok(None)
            } else {
                Err(ConfigError::Range(message.to_owned()))
            };
        }
        let instant = |text: &Option<String>| text.as_deref().map(config::instant).transpose();
        Ok(Some(CompareOptions {
            filter: self.scopes.filter()?,
            from: instant(&self.from)?,
            to: instant(&self.to)?,
        }))
    }
}

fn text(verified: &Verified, lake: &str) -> String {
    let Verified {
        audit,
        advice,
        source,
    } = verified;
    let mut text = format!(
        "{lake}: {} in {}, {}\n",
        count(audit.executions, "execution"),
        count(audit.partitions as u64, "raw partition"),
        count(audit.findings.len() as u64, "finding"),
    );
    if let Some(advice) = advice {
        text.push_str(&output::advice(advice));
    }
    if let Some(compared) = source {
        text.push_str(&text_of_source(compared));
    }
    if audit.findings.is_empty() {
        return text + "each execution is stored once, and every table matches its raw partitions";
    }
    let mut rows = vec![
        ["kind", "object", "problem", "repair"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(audit.findings.iter().map(|finding| {
        let kind = match finding.kind {
            FindingKind::Stale => "stale",
            FindingKind::Foreign => "foreign",
            FindingKind::Damage => "damage",
        };
        let cells = [kind, &finding.path, &finding.problem, &finding.repair];
        cells.map(str::to_owned).to_vec()
    }));
    text + &table(&rows)
}

fn text_of_source(compared: &SourceComparison) -> String {
    let missing: usize = compared
        .differences
        .iter()
        .map(|day| day.missing.len())
        .sum();
    let lake_only: u64 = compared
        .differences
        .iter()
        .map(|day| day.in_lake.saturating_sub(day.at_source))
        .sum();
    let mut text = format!(
        "Compared {} on {}: {} in the API, {} in the lake; {} missing in the lake, {} only in the lake (deleted \
         or moved in Harness)\n",
        count(compared.scopes as u64, "project"),
        count(compared.days as u64, "day"),
        count(compared.at_source, "execution"),
        HumanCount(compared.in_lake),
        HumanCount(missing as u64),
        HumanCount(lake_only),
    );
    for scope in &compared.not_visible {
        let line = format!("not visible any more: {scope}; its executions stay in the lake\n");
        text.push_str(&line);
    }
    for failure in &compared.not_compared {
        let Failure {
            org,
            project,
            code,
            message,
        } = failure;
        let line = format!("not compared: {org}/{project}: {code}: {message}\n");
        text.push_str(&line);
    }
    text
}
