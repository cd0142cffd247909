//! What the source sent that this version does not know, counted by path: nothing of it is lost.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Counted surprises of a run. A path names where in a summary, such as `layoutNodeMap.*.newField`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// Fields that no column holds and this version has never heard of, by path; kept in `extra`.
    pub unknown_fields: BTreeMap<String, Sighting>,
    /// Statuses that this version cannot classify, by spelling; kept as spelled.
    pub unknown_statuses: BTreeMap<String, Sighting>,
    /// Values of an unexpected type or range, by path; kept in `extra`, null in their column.
    pub odd_values: BTreeMap<String, Sighting>,
}

/// How often something was seen, with one example.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// Times seen.
    pub count: u64,
    /// The first value seen, cut to 80 characters.
    pub example: String,
}

/// The most paths that are told apart in each map: a hostile source cannot fill memory with names.
const PATHS: usize = 1_000;

/// The most characters of an example.
const EXAMPLE: usize = 80;

impl Drift {
    /// Counts a field that nobody knows.
    pub fn unknown_field(&mut self, path: &str, value: &str) {
        count(&mut self.unknown_fields, path, value);
    }

    /// Counts a status that nobody knows.
    pub fn unknown_status(&mut self, status: &str) {
        count(&mut self.unknown_statuses, status, status);
    }

    /// Counts a value that is not what its field promises.
    pub fn odd_value(&mut self, path: &str, value: &str) {
        count(&mut self.odd_values, path, value);
    }

    /// Adds all counts of `other`.
    pub fn add(&mut self, other: Self) {
        for (map, more) in [
            (&mut self.unknown_fields, other.unknown_fields),
            (&mut self.unknown_statuses, other.unknown_statuses),
            (&mut self.odd_values, other.odd_values),
        ] {
            for (path, seen) in more {
                entry(map, &path, &seen.example).count += seen.count;
            }
        }
    }

    /// Whether there was no surprise.
    pub fn is_empty(&self) -> bool {
        self.unknown_fields.is_empty()
            && self.unknown_statuses.is_empty()
            && self.odd_values.is_empty()
    }
}

fn count(map: &mut BTreeMap<String, Sighting>, path: &str, value: &str) {
    entry(map, path, value).count += 1;
}

fn entry<'a>(map: &'a mut BTreeMap<String, Sighting>, path: &str, value: &str) -> &'a mut Sighting {
    // Not `entry()`: it would copy the path of every repetition.
    if !map.contains_key(path) {
        let path = if map.len() < PATHS { path } else { "(more)" };
        let example = value.chars().take(EXAMPLE).collect();
        return map
            .entry(path.to_owned())
            .or_insert(Sighting { count: 0, example });
    }
    map.get_mut(path).expect("the key was found just now")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_counted_and_the_first_example_stays() {
        let mut drift = Drift::default();
        drift.odd_value("endTs", "-1");
        drift.odd_value("endTs", "-2");
        let mut more = Drift::default();
        more.odd_value("endTs", "-3");
        drift.add(more);
        assert_eq!(
            drift.odd_values["endTs"],
            Sighting {
                count: 3,
                example: "-1".to_owned()
            }
        );
    }

    #[test]
    fn names_are_bounded_and_still_counted() {
        let mut drift = Drift::default();
        for n in 0..PATHS + 50 {
            drift.unknown_field(&format!("field{n}"), "x");
        }
        assert_eq!(drift.unknown_fields.len(), PATHS + 1);
        assert_eq!(drift.unknown_fields["(more)"].count, 50);
    }
}
