//! The `backfill` command.

use super::sync::finish_run;
use super::{BackfillArgs, Context, panics};
use crate::error::Error;
use crate::job::backfill::{BackfillRange, backfill};
use crate::progress::Progress;

pub(super) async fn run(args: &BackfillArgs, context: &Context) -> Result<(), Error> {
    let files = args.run.output_files.start("backfill", context)?;
    let config = files.metrics_on_error(args.config())?;
    let range = BackfillRange {
        accept_gaps: args.accept_gaps,
        ..files.metrics_on_error(args.range.range())?
    };
    let progress = Progress::new(context.is_terminal);
    let stop = context.stop.clone();
    let run = backfill(&config, range, context.clock, &progress, stop);
    let (report, result) = files.metrics_on_error(panics::catch(run).await)?;
    finish_run(&files, &report, result, config.store.location(), context)
}
