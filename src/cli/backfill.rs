//! The `backfill` command.

use super::sync::finish_run;
use super::{BackfillArgs, Context, panics};
use crate::error::Error;
use crate::job::backfill::{BackfillRange, backfill};

pub(super) async fn run(args: &BackfillArgs, context: &Context) -> Result<(), Error> {
    let output = args.run.output.start("backfill", context).await?;
    let config = output.end_on_error(args.config()).await?;
    let range = BackfillRange {
        accept_gaps: args.accept_gaps,
        ..output.end_on_error(args.range.range()).await?
    };
    let progress = context.progress();
    let run = backfill(
        &config,
        range,
        context.run_id.clone(),
        context.clock,
        &progress,
        context.stop.clone(),
    );
    let (report, result) = output.end_on_error(panics::catch(run).await).await?;
    finish_run(&output, &report, result, config.store.location()).await
}
