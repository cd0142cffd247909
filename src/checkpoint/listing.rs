//! The organizations and projects of an account, and since when each is not visible. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::UnknownFields;
use crate::ids::Scope;
use crate::tables::{OrgRow, ProjectRow};

/// Every organization and project ever listed, as last listed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Listing {
    /// Time of the newest complete listing; `None` before the first.
    pub listed_at: Option<Timestamp>,
    /// Fingerprint of its key. Another key may see other scopes, so their absence means nothing.
    pub key: String,
    /// Organizations by identifier.
    pub orgs: BTreeMap<String, Listed<OrgRow>>,
    /// Projects.
    pub projects: BTreeMap<Scope, Listed<ProjectRow>>,
    /// Whether a list was shorter than its reported total: then absence means nothing either.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_short: bool,
    /// Members of later versions.
    #[serde(flatten)]
    pub unknown: UnknownFields,
}

/// An organization or project, with the later listings that did not contain it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listed<T> {
    /// As it was last listed; `not_visible_since_ts` follows from `missed`.
    pub row: T,
    /// Later complete listings by the same key that did not contain it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub missed: BTreeSet<Timestamp>,
    /// Members of later versions.
    #[serde(flatten)]
    pub unknown: UnknownFields,
}

/// Consecutive listings without an entry before it counts as not visible.
const HIDE_MISSES: usize = 2;

/// The same if more than [`MANY_PERCENT`] vanish at once: probably the key has lost a permission.
const HIDE_MISSES_OF_MANY: usize = 3;

/// Percentage of the visible entries that counts as many.
const MANY_PERCENT: usize = 20;

impl Listing {
    /// Returns a complete listing by one key at one time.
    pub fn new(
        listed_at: Timestamp,
        key: String,
        orgs: impl IntoIterator<Item = OrgRow>,
        projects: impl IntoIterator<Item = ProjectRow>,
    ) -> Self {
        let orgs = orgs
            .into_iter()
            .map(|row| (row.org_id.clone(), Listed::new(row)))
            .collect();
        let projects = projects
            .into_iter()
            .map(|row| (Scope::new(&*row.org_id, &*row.project_id), Listed::new(row)))
            .collect();
        Self {
            listed_at: Some(listed_at),
            key,
            orgs,
            projects,
            is_short: false,
            unknown: UnknownFields::new(),
        }
    }

    /// Merges a newer listing into this one. An older one is ignored.
    pub fn merge(&mut self, newer: &Self) {
        let Some(at) = newer.listed_at.filter(|at| Some(*at) > self.listed_at) else {
            return;
        };
        let counts_misses = self.key == newer.key && !newer.is_short;
        merge_rows(&mut self.orgs, &newer.orgs, at, counts_misses, |row, at| {
            row.not_visible_since_ts = at;
        });
        merge_rows(
            &mut self.projects,
            &newer.projects,
            at,
            counts_misses,
            |row, at| {
                row.not_visible_since_ts = at;
            },
        );
        self.listed_at = Some(at);
        self.key.clone_from(&newer.key);
        self.is_short = newer.is_short;
    }

    /// Returns the visible projects that a newer listing by the same key does not contain, and whether they are
    /// so many that the key has probably lost a permission.
    pub fn vanished(&self, newer: &Self) -> (Vec<Scope>, bool) {
        if self.key != newer.key || newer.is_short {
            return (Vec::new(), false);
        }
        let visible: Vec<_> = visible(&self.projects).collect();
        let is_missing = |scope: &&&Scope| !newer.projects.contains_key(**scope);
        let vanished: Vec<Scope> = visible
            .iter()
            .filter(is_missing)
            .map(|scope| (**scope).clone())
            .collect();
        let are_many = is_many(vanished.len(), visible.len());
        (vanished, are_many)
    }

    /// Returns whether the tables `orgs` and `projects` of both listings are equal.
    pub fn has_same_rows(&self, other: &Self) -> bool {
        same_rows(&self.orgs, &other.orgs) && same_rows(&self.projects, &other.projects)
    }
}

fn same_rows<K: Ord, T: PartialEq>(
    one: &BTreeMap<K, Listed<T>>,
    other: &BTreeMap<K, Listed<T>>,
) -> bool {
    one.values()
        .map(|listed| &listed.row)
        .eq(other.values().map(|listed| &listed.row))
}

impl<T> Listed<T> {
    fn new(row: T) -> Self {
        Self {
            row,
            missed: BTreeSet::new(),
            unknown: UnknownFields::new(),
        }
    }
}

/// Returns the keys of entries that are not finally hidden.
fn visible<K, T>(known: &BTreeMap<K, Listed<T>>) -> impl Iterator<Item = &K> {
    let known = known.iter();
    let visible = known.filter(|(_, listed)| listed.missed.len() < HIDE_MISSES_OF_MANY);
    visible.map(|(key, _)| key)
}

fn is_many(vanished: usize, visible: usize) -> bool {
    vanished * 100 > visible * MANY_PERCENT
}

fn merge_rows<K: Ord + Clone, T: Clone>(
    known: &mut BTreeMap<K, Listed<T>>,
    newer: &BTreeMap<K, Listed<T>>,
    at: Timestamp,
    counts_misses: bool,
    hide: impl Fn(&mut T, Option<Timestamp>),
) {
    let vanished = visible(known)
        .filter(|key| !newer.contains_key(key))
        .count();
    let many = is_many(vanished, visible(known).count());
    let missing = known
        .iter_mut()
        .filter(|(key, _)| counts_misses && !newer.contains_key(key));
    for (_, listed) in missing {
        if listed.missed.len() < HIDE_MISSES_OF_MANY {
            listed.missed.insert(at);
        }
        let needed = if many {
            HIDE_MISSES_OF_MANY
        } else {
            HIDE_MISSES
        };
        if listed.missed.len() >= needed {
            hide(&mut listed.row, listed.missed.first().copied());
        }
    }
    for (key, listed) in newer {
        let unknown = known
            .get_mut(key)
            .map(|known| std::mem::take(&mut known.unknown));
        let listed = Listed {
            unknown: unknown.unwrap_or_default(),
            ..listed.clone()
        };
        known.insert(key.clone(), listed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::from_ms;

    fn listing(at: i64, key: &str, orgs: &[&str]) -> Listing {
        let row = |id: &&str| OrgRow {
            org_id: (*id).to_owned(),
            ..OrgRow::default()
        };
        Listing::new(from_ms(at), key.to_owned(), orgs.iter().map(row), [])
    }

    fn hidden(listing: &Listing, org: &str) -> Option<Timestamp> {
        listing.orgs[org].row.not_visible_since_ts
    }

    const TEN: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

    #[test]
    fn entry_is_hidden_after_two_misses_until_it_returns() {
        let mut known = listing(1, "k", &TEN);
        known.merge(&listing(2, "k", &TEN[1..]));
        assert_eq!(hidden(&known, "a"), None);
        known.merge(&listing(3, "k", &TEN[1..]));
        assert_eq!(hidden(&known, "a"), Some(from_ms(2)));
        known.merge(&listing(4, "k", &TEN));
        assert_eq!(hidden(&known, "a"), None);
    }

    #[test]
    fn short_list_adds_but_hides_nothing() {
        let mut known = listing(1, "k", &TEN[..5]);
        for at in 2..9 {
            let short = Listing {
                is_short: true,
                ..listing(at, "k", &TEN[5..])
            };
            known.merge(&short);
        }
        assert_eq!(known.orgs.len(), 10);
        assert_eq!(hidden(&known, "a"), None);
    }

    #[test]
    fn vanished_projects_are_returned_until_hidden() {
        let of = |at, key: &str, ids: &[&str]| {
            let row = |id: &&str| ProjectRow {
                org_id: "o".to_owned(),
                project_id: (*id).to_owned(),
                ..ProjectRow::default()
            };
            Listing::new(from_ms(at), key.to_owned(), [], ids.iter().map(row))
        };
        let mut known = of(1, "k", &TEN);
        assert_eq!(
            known.vanished(&of(2, "k", &TEN[1..])),
            (vec![Scope::new("o", "a")], false)
        );
        assert_eq!(known.vanished(&of(2, "other", &TEN[1..])), (vec![], false));
        let (vanished, are_many) = known.vanished(&of(2, "k", &TEN[5..]));
        assert_eq!((vanished.len(), are_many), (5, true));
        for at in 2..5 {
            known.merge(&of(at, "k", &TEN[5..]));
        }
        assert_eq!(known.vanished(&of(5, "k", &TEN[5..])), (vec![], false));
    }

    #[test]
    fn many_at_once_are_hidden_after_three_misses() {
        let mut known = listing(1, "k", &TEN);
        for at in 2..4 {
            known.merge(&listing(at, "k", &TEN[5..]));
            assert_eq!(hidden(&known, "a"), None);
        }
        known.merge(&listing(4, "k", &TEN[5..]));
        assert_eq!(hidden(&known, "a"), Some(from_ms(2)));
    }

    #[test]
    fn another_key_or_an_older_listing_hides_nothing() {
        let mut known = listing(5, "k", &TEN);
        for at in [1, 2, 3] {
            known.merge(&listing(at, "k", &TEN[1..]));
        }
        known.merge(&listing(6, "other", &TEN[1..]));
        known.merge(&listing(7, "k", &TEN[1..]));
        assert_eq!(hidden(&known, "a"), None);
    }
}
