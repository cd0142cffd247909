//! Values from the source that this version does not know, counted by path. All of them are kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Unknown and invalid values of a run. A path is a place in a summary, such as `layoutNodeMap.*.newField`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// Unknown fields by path; kept in `extra`.
    pub unknown_fields: BTreeMap<String, Sighting>,
    /// Unknown statuses by spelling; kept as received.
    pub unknown_statuses: BTreeMap<String, Sighting>,
    /// Values of an unexpected type or range by path; kept in `extra`, null in their column.
    pub odd_values: BTreeMap<String, Sighting>,
}

/// A count of occurrences, with one example.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// Number of occurrences.
    pub count: u64,
    /// The first value, truncated to 80 characters.
    pub example: String,
}

/// Maximum paths per map: a hostile source cannot fill memory with names.
const MAX_PATHS: usize = 1_000;

/// Maximum characters of an example.
const MAX_EXAMPLE: usize = 80;

impl Drift {
    /// Counts an unknown field.
    pub fn unknown_field(&mut self, path: &str, value: &str) {
        count(&mut self.unknown_fields, path, value);
    }

    /// Counts an unknown status.
    pub fn unknown_status(&mut self, status: &str) {
        count(&mut self.unknown_statuses, status, status);
    }

    /// Counts a value of an unexpected type or range.
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

    /// Returns whether nothing was counted.
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
        let path = if map.len() < MAX_PATHS {
            path
        } else {
            "(more)"
        };
        let example = value.chars().take(MAX_EXAMPLE).collect();
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
    fn repeated_values_are_counted_with_the_first_example() {
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
    fn paths_are_bounded_and_still_counted() {
        let mut drift = Drift::default();
        for n in 0..MAX_PATHS + 50 {
            drift.unknown_field(&format!("field{n}"), "x");
        }
        assert_eq!(drift.unknown_fields.len(), MAX_PATHS + 1);
        assert_eq!(drift.unknown_fields["(more)"].count, 50);
    }
}
