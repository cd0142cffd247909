//! The organizations and projects of an account, and since when one has not been visible. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::Scope;
use crate::tables::{OrgRow, ProjectRow};

/// Every organization and project ever listed, as last listed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Listing {
    /// When the newest whole listing was made; `None` where none was.
    pub listed_at: Option<Timestamp>,
    /// Fingerprint of the key that made it: another key sees other scopes, which says nothing.
    pub key: String,
    /// Organizations by identifier.
    pub orgs: BTreeMap<String, Listed<OrgRow>>,
    /// Projects.
    pub projects: BTreeMap<Scope, Listed<ProjectRow>>,
    /// Whether some list was shorter than announced: what is not in it may be there all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_short: bool,
}

/// A listed thing, with the whole listings since then that missed it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listed<T> {
    /// As it was last listed; `not_visible_since_ts` follows from `missed`.
    pub row: T,
    /// Listings by the same key that did not show it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub missed: BTreeSet<Timestamp>,
}

/// Listings in a row that must miss a thing before it is said to be not visible.
const MISSES: usize = 2;

/// The same where more than [`MANY`] percent vanish at once: more likely a lost right.
const MISSES_OF_MANY: usize = 3;

/// Percent of the listed things.
const MANY: usize = 20;

impl Listing {
    /// A whole listing: what one key saw at one time.
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
        }
    }

    /// Takes in a newer listing, or that of another lake; an older one says nothing new.
    pub fn absorb(&mut self, newer: &Self) {
        let Some(at) = newer.listed_at.filter(|at| self.listed_at < Some(*at)) else {
            return;
        };
        let tells_misses = self.key == newer.key && !newer.is_short;
        merge(&mut self.orgs, &newer.orgs, at, tells_misses, |row, at| {
            row.not_visible_since_ts = at;
        });
        merge(
            &mut self.projects,
            &newer.projects,
            at,
            tells_misses,
            |row, at| {
                row.not_visible_since_ts = at;
            },
        );
        self.listed_at = Some(at);
        self.key.clone_from(&newer.key);
        self.is_short = newer.is_short;
    }

    /// Projects that were visible up to now and are not in a newer listing by the same key; and whether they are
    /// so many that a lost right is likely.
    pub fn vanished(&self, newer: &Self) -> (Vec<Scope>, bool) {
        if self.key != newer.key || newer.is_short {
            return (Vec::new(), false);
        }
        let visible: Vec<_> = visible(&self.projects).collect();
        let is_gone = |scope: &&&Scope| !newer.projects.contains_key(**scope);
        let vanished: Vec<Scope> = visible
            .iter()
            .filter(is_gone)
            .map(|gone| (*gone).clone())
            .collect();
        let are_many = is_many(vanished.len(), visible.len());
        (vanished, are_many)
    }

    /// Whether the tables `orgs` and `projects` made from both are the same.
    pub fn shows_the_same(&self, other: &Self) -> bool {
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
        }
    }
}

/// What may yet come back as if nothing had been.
fn visible<K, T>(known: &BTreeMap<K, Listed<T>>) -> impl Iterator<Item = &K> {
    let known = known.iter();
    let visible = known.filter(|(_, listed)| listed.missed.len() < MISSES_OF_MANY);
    visible.map(|(key, _)| key)
}

fn is_many(vanished: usize, visible: usize) -> bool {
    visible * MANY < vanished * 100
}

fn merge<K: Ord + Clone, T: Clone>(
    known: &mut BTreeMap<K, Listed<T>>,
    seen: &BTreeMap<K, Listed<T>>,
    at: Timestamp,
    tells_misses: bool,
    hide: impl Fn(&mut T, Option<Timestamp>),
) {
    let vanished = visible(known).filter(|key| !seen.contains_key(key)).count();
    let many = is_many(vanished, visible(known).count());
    let missing = known
        .iter_mut()
        .filter(|(key, _)| tells_misses && !seen.contains_key(key));
    for (_, listed) in missing {
        if listed.missed.len() < MISSES_OF_MANY {
            listed.missed.insert(at);
        }
        let needed = if many { MISSES_OF_MANY } else { MISSES };
        if needed <= listed.missed.len() {
            hide(&mut listed.row, listed.missed.first().copied());
        }
    }
    for (key, listed) in seen {
        known.insert(key.clone(), listed.clone());
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
    fn a_thing_is_hidden_after_two_misses_and_shown_when_it_returns() {
        let mut known = listing(1, "k", &TEN);
        known.absorb(&listing(2, "k", &TEN[1..]));
        assert_eq!(hidden(&known, "a"), None);
        known.absorb(&listing(3, "k", &TEN[1..]));
        assert_eq!(hidden(&known, "a"), Some(from_ms(2)));
        known.absorb(&listing(4, "k", &TEN));
        assert_eq!(hidden(&known, "a"), None);
    }

    #[test]
    fn a_short_list_adds_and_hides_nothing() {
        let mut known = listing(1, "k", &TEN[..5]);
        for at in 2..9 {
            let short = Listing {
                is_short: true,
                ..listing(at, "k", &TEN[5..])
            };
            known.absorb(&short);
        }
        assert_eq!(known.orgs.len(), 10);
        assert_eq!(hidden(&known, "a"), None);
    }

    #[test]
    fn projects_that_vanish_are_told_until_they_are_hidden() {
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
            known.absorb(&of(at, "k", &TEN[5..]));
        }
        assert_eq!(known.vanished(&of(5, "k", &TEN[5..])), (vec![], false));
    }

    #[test]
    fn many_at_once_are_believed_at_the_third_miss() {
        let mut known = listing(1, "k", &TEN);
        for at in 2..4 {
            known.absorb(&listing(at, "k", &TEN[5..]));
            assert_eq!(hidden(&known, "a"), None);
        }
        known.absorb(&listing(4, "k", &TEN[5..]));
        assert_eq!(hidden(&known, "a"), Some(from_ms(2)));
    }

    #[test]
    fn another_key_and_an_older_listing_hide_nothing() {
        let mut known = listing(5, "k", &TEN);
        for at in [1, 2, 3] {
            known.absorb(&listing(at, "k", &TEN[1..]));
        }
        known.absorb(&listing(6, "other", &TEN[1..]));
        known.absorb(&listing(7, "k", &TEN[1..]));
        assert_eq!(hidden(&known, "a"), None);
    }
}
