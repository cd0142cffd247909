//! `backfill`: history.

use super::sync::conclude;
use super::{BackfillArgs, Context};
use crate::error::Error;
use crate::job::backfill::backfill;
use crate::progress::Progress;

pub(super) async fn run(args: &BackfillArgs, context: &Context) -> Result<(), Error> {
    let files = args.run.files("backfill", context)?;
    let config = files.needs(args.config())?;
    let range = files.needs(args.range.range())?;
    let progress = Progress::new(context.is_terminal);
    let stop = context.stop.clone();
    let (report, ended) = backfill(&config, range, context.clock, &progress, stop).await;
    conclude(&files, &report, ended, config.store.shown(), context)
}
