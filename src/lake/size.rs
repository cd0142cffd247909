//! Advice about the size of the objects that queries read.

use serde::Serialize;

use super::layout::{self, Period};
use super::{LARGE_OBJECT_BYTES, Lake, LakeError};
use crate::schema::Table;

/// Number of days from which small objects slow queries down.
const MANY_DAYS: usize = 60;

/// Average size of an object below which a month of them fits well in one object. It is the size at
/// about 1,000 executions a day.
const SMALL_OBJECT_BYTES: u64 = 384 << 10;

/// Objects of a lake that are far from a good size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SizeAdvice {
    /// The problem.
    pub problem: String,
    /// The command that creates a lake with better sizes.
    pub repair: &'static str,
}

impl Lake {
    /// Returns advice if the objects of `executions` are far from a good size, small or large.
    ///
    /// # Errors
    ///
    /// [`LakeError::Store`].
    pub async fn size_advice(&self) -> Result<Option<SizeAdvice>, LakeError> {
        let folder = layout::table_folder(Table::Executions);
        let objects = self.store.list(&folder).await?;
        let sizes: Vec<u64> = objects.iter().map(|object| object.size).collect();
        Ok(advice(self.period(), &sizes))
    }
}

fn advice(period: Period, sizes: &[u64]) -> Option<SizeAdvice> {
    let largest = sizes.iter().max()?;
    if *largest >= LARGE_OBJECT_BYTES as u64 {
        let megabytes = largest >> 20;
        return Some(SizeAdvice {
            problem: format!("the largest object of executions has {megabytes} MiB"),
            repair: match period {
                Period::Day => "harness-lake replay --into NEW_LAKE --buckets 4",
                Period::Month => "harness-lake replay --into NEW_LAKE --period day",
            },
        });
    }
    let average = sizes.iter().sum::<u64>() / sizes.len() as u64;
    let are_small = sizes.len() >= MANY_DAYS && average < SMALL_OBJECT_BYTES;
    (period == Period::Day && are_small).then(|| SizeAdvice {
        problem: format!(
            "{} objects of executions have {} KiB on average: one a month makes queries several times faster",
            sizes.len(),
            average >> 10
        ),
        repair: "harness-lake replay --into NEW_LAKE --period month",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_the_command_for_small_and_large_objects() {
        let repair =
            |period, count, bytes| advice(period, &vec![bytes; count]).map(|advice| advice.repair);
        let by_month = "harness-lake replay --into NEW_LAKE --period month";
        let by_day = "harness-lake replay --into NEW_LAKE --period day";
        let buckets = "harness-lake replay --into NEW_LAKE --buckets 4";
        for (period, count, bytes, expected) in [
            (Period::Day, 0, 0, None),
            (Period::Day, 30, 50 << 10, None),
            (Period::Day, 60, 50 << 10, Some(by_month)),
            (Period::Day, 60, 1 << 20, None),
            (Period::Day, 60, 64 << 20, Some(buckets)),
            (Period::Month, 60, 50 << 10, None),
            (Period::Month, 60, 64 << 20, Some(by_day)),
        ] {
            assert_eq!(repair(period, count, bytes), expected, "{count} of {bytes}");
        }
    }
}
