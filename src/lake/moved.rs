//! Newest rows that moved to another scope. The raw partitions have the scope of each execution.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;

use super::layout::date_of;
use super::replay::{Dates, RawPartition};
use super::rows::{RawObject, starts_by_scope};
use super::{Lake, LakeError, blocking};
use crate::checkpoint::MovedRow;
use crate::ids::Scope;

/// A scope whose newest row is looked for.
struct Search {
    scope: Scope,
    expected: Timestamp,
    /// Set once the row was found in another scope.
    has_moved: bool,
}

impl Lake {
    /// Returns the scopes whose newest known row moved to another scope. `newest` has the `start_ts` of
    /// this row for each scope in question.
    ///
    /// Reads the partitions of these rows, and for a moved one the earlier partitions until it finds a
    /// row of the scope.
    ///
    /// # Errors
    ///
    /// [`LakeError`] if a raw partition cannot be read.
    pub async fn moved_rows(
        &self,
        newest: BTreeMap<Scope, Timestamp>,
    ) -> Result<BTreeMap<Scope, MovedRow>, LakeError> {
        let mut moved = BTreeMap::new();
        let mut searches: Vec<Search> = newest
            .into_iter()
            .map(|(scope, expected)| Search {
                scope,
                expected,
                has_moved: false,
            })
            .collect();
        if searches.is_empty() {
            return Ok(moved);
        }
        let partitions = self.raw_partitions(Dates::default()).await?;
        for same_date in partitions
            .chunk_by(|one, other| one.partition.date == other.partition.date)
            .rev()
        {
            let Some(date) = same_date.first().map(|raw| raw.partition.date) else {
                continue;
            };
            if !searches.iter().any(|search| search.reads(date)) {
                continue;
            }
            let starts = self.starts_of_date(same_date).await?;
            searches.retain_mut(|search| {
                if !search.reads(date) {
                    return true;
                }
                let of_scope = starts.get(&search.scope);
                let contains = |starts: &Vec<Timestamp>| starts.contains(&search.expected);
                if !search.has_moved {
                    search.has_moved =
                        !of_scope.is_some_and(contains) && starts.values().any(contains);
                    if !search.has_moved {
                        return false;
                    }
                }
                let remaining = of_scope.and_then(|starts| starts.iter().max().copied());
                if remaining.is_some() {
                    moved.insert(search.scope.clone(), search.found(remaining));
                }
                remaining.is_none()
            });
        }
        for search in searches.iter().filter(|search| search.has_moved) {
            moved.insert(search.scope.clone(), search.found(None));
        }
        Ok(moved)
    }

    async fn starts_of_date(
        &self,
        partitions: &[RawPartition],
    ) -> Result<BTreeMap<Scope, Vec<Timestamp>>, LakeError> {
        let mut all: BTreeMap<Scope, Vec<Timestamp>> = BTreeMap::new();
        for raw in partitions {
            let path = raw.partition.raw();
            let Some((bytes, _)) = self.store.get(&path).await? else {
                continue;
            };
            let starts =
                blocking(move || Ok(starts_by_scope(&path, &RawObject::new(&path, bytes)?)?))
                    .await?;
            for (scope, mut starts) in starts {
                all.entry(scope).or_default().append(&mut starts);
            }
        }
        Ok(all)
    }
}

impl Search {
    fn reads(&self, date: Date) -> bool {
        self.has_moved || date_of(self.expected) == date
    }

    fn found(&self, remaining: Option<Timestamp>) -> MovedRow {
        MovedRow {
            start: self.expected,
            remaining,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::commit::tests::{new_lake, observation};
    use crate::lake::spool::Spool;
    use crate::window::from_ms;

    const DAY: i64 = 86_400_000;

    #[tokio::test]
    async fn moved_row_is_replaced_by_the_newest_remaining_one() {
        let scratch = tempfile::tempdir().unwrap();
        let lake = new_lake(scratch.path()).await;
        let start = |day| from_ms(1_763_971_200_000 + day * DAY);
        let scope = |name: &str| Scope::new("org", name);
        let mut spool = Spool::new(scratch.path());
        for (id, name, day) in [
            (0, "partly", 0),
            (1, "other", 3),
            (2, "present", 3),
            (3, "other", 2),
        ] {
            let mut row = observation(0, id, start(day));
            row.scope = scope(name);
            let partition = lake.identity().partition(&row.id, row.start);
            spool.push(partition, row).unwrap();
        }
        lake.merge_spool("run", 0, &mut spool, || true)
            .await
            .unwrap();
        let newest = [
            ("partly", start(3)),
            ("emptied", start(2)),
            ("present", start(3)),
            ("unknown", start(1)),
        ];
        let newest = newest.map(|(name, at)| (scope(name), at)).into();
        let moved = |day, remaining| MovedRow {
            start: start(day),
            remaining,
        };
        let expected = [
            (scope("partly"), moved(3, Some(start(0)))),
            (scope("emptied"), moved(2, None)),
        ];
        assert_eq!(lake.moved_rows(newest).await.unwrap(), expected.into());
    }
}
