//! `backfill`: history.

use super::metrics::Measured;
use super::sync::conclude;
use super::{BackfillArgs, Context};
use crate::error::Error;
use crate::job::backfill::backfill;
use crate::progress::Progress;

pub(super) async fn run(args: &BackfillArgs, context: &Context) -> Result<(), Error> {
    let measured = Measured::begin("backfill", args.run.metrics_file.as_deref(), context);
    let config = measured.needs(args.config())?;
    let range = measured.needs(args.range.range())?;
    let progress = Progress::new(context.is_terminal);
    let stop = context.stop.clone();
    let (report, ended) = backfill(&config, range, context.clock, &progress, stop).await;
    measured.write(Some(&report), &ended)?;
    conclude(
        &report,
        args.run.report.as_deref(),
        config.store.shown(),
        context,
    )?;
    ended
}
