//! Index of the executions of a lake, without their summaries.

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;

use super::layout::Partition;
use super::parquet::{FileError, read_raw};
use super::replay::{Dates, RawPartition};
use super::rows::{KEY_COLUMNS, RawColumns, RawObject, micros};
use super::{Lake, LakeError, blocking};
use crate::ids::{PlanExecutionId, Scope};
use crate::window::Window;

/// The executions of a lake, with a few bytes per execution.
#[derive(Debug, Default)]
pub struct Inventory {
    /// XXH3-128 of each id.
    ids: HashSet<u128>,
    /// `start_ts` of the executions of each scope, in order.
    starts: BTreeMap<Scope, Vec<Timestamp>>,
}

impl Lake {
    /// Indexes the raw partitions of some dates. Damaged partitions count as empty:
    /// [`Lake::verify`] reports them.
    ///
    /// # Errors
    ///
    /// [`LakeError::Store`], [`LakeError::File`] for a partition of a newer version.
    pub async fn inventory(&self, dates: Dates) -> Result<Inventory, LakeError> {
        let mut inventory = Inventory::default();
        for RawPartition { partition, .. } in self.raw_partitions(dates).await? {
            let path = partition.raw();
            if let Some((bytes, _)) = self.store.get(&path).await?
                && let Some(raw) = readable(RawObject::new(&path, bytes))?
            {
                let rows =
                    blocking(move || Ok(rows_of(partition, &raw).unwrap_or_default())).await?;
                for (scope, start, id) in rows {
                    inventory.ids.insert(id);
                    inventory.starts.entry(scope).or_default().push(start);
                }
            }
        }
        inventory
            .starts
            .values_mut()
            .for_each(|starts| starts.sort_unstable());
        Ok(inventory)
    }
}

/// Returns the object unless it is damaged.
fn readable(raw: Result<RawObject, FileError>) -> Result<Option<RawObject>, FileError> {
    match raw {
        Err(newer @ FileError::Newer(_)) => Err(newer),
        other => Ok(other.ok()),
    }
}

impl Inventory {
    /// Returns the number of executions of a scope that started within a window.
    pub fn count(&self, scope: &Scope, window: Window) -> u64 {
        let starts = self.starts.get(scope).map_or(&[][..], Vec::as_slice);
        let before = |end: Timestamp| starts.partition_point(|start| *start < end);
        (before(window.to()) - before(window.from())) as u64
    }

    /// Returns true if the lake has the execution, in any scope.
    pub fn contains(&self, id: &PlanExecutionId) -> bool {
        self.ids.contains(&hash(id.as_str()))
    }
}

fn rows_of(
    partition: Partition,
    raw: &RawObject,
) -> Result<Vec<(Scope, Timestamp, u128)>, FileError> {
    let path = partition.raw();
    let mut found = Vec::new();
    for batch in read_raw(&path, raw.bytes.clone(), &KEY_COLUMNS)? {
        let batch = batch?;
        let rows = RawColumns::of(&path, &batch)?;
        found.extend((0..batch.num_rows()).map(|at| {
            let scope = Scope::new(rows.org.value(at), rows.project.value(at));
            (scope, micros(rows.start.value(at)), hash(rows.id.value(at)))
        }));
    }
    Ok(found)
}

/// Returns the hash that stands for an execution id in memory.
pub(super) fn hash(id: &str) -> u128 {
    xxhash_rust::xxh3::xxh3_128(id.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::from_ms;

    #[test]
    fn count_includes_starts_within_the_window() {
        let scope = Scope::new("org", "project");
        let starts = [0, 10, 10, 20].map(from_ms).to_vec();
        let inventory = Inventory {
            starts: [(scope.clone(), starts)].into(),
            ..Inventory::default()
        };
        let count = |from, to| {
            let window = Window::new(from_ms(from), from_ms(to)).unwrap();
            inventory.count(&scope, window)
        };
        assert_eq!(
            [count(0, 20), count(10, 11), count(11, 20), count(20, 21)],
            [3, 2, 0, 1]
        );
        assert_eq!(
            inventory.count(
                &Scope::new("org", "other"),
                Window::new(from_ms(0), from_ms(9)).unwrap()
            ),
            0
        );
    }
}
