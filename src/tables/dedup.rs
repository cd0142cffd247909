//! Removal of repeated keys from lists.

use std::borrow::Cow;
use std::collections::HashSet;

/// Up to this many entries, sorting their fingerprints is faster than hashing.
const FEW: usize = 32;

/// Keeps the first item of each key.
pub(super) fn keep_first<T>(items: &mut Vec<T>, key: impl Fn(&T) -> &str) {
    if !has_repeats(items, &key) {
        return;
    }
    if items.len() > FEW {
        let mut seen = HashSet::new();
        items.retain(|item| seen.insert(key(item).to_owned()));
        return;
    }
    let mut kept = 0;
    for at in 0..items.len() {
        let is_known = |item: &T| key(item) == key(&items[at]);
        if !items[..kept].iter().any(is_known) {
            items.swap(kept, at);
            kept += 1;
        }
    }
    items.truncate(kept);
}

/// Keeps the last entry of each key and passes the others to `dropped`.
pub(super) fn keep_last<'a, V>(
    entries: &mut Vec<(Cow<'a, str>, V)>,
    mut dropped: impl FnMut(Cow<'a, str>, V),
) {
    if !has_repeats(entries, |(key, _)| key) {
        return;
    }
    let mut seen = HashSet::new();
    let mut kept = Vec::with_capacity(entries.len());
    for (key, value) in entries.drain(..).rev() {
        if seen.insert(key.clone()) {
            kept.push((key, value));
        } else {
            dropped(key, value);
        }
    }
    kept.reverse();
    *entries = kept;
}

fn has_repeats<T>(items: &[T], key: impl Fn(&T) -> &str) -> bool {
    if items.len() <= FEW {
        let mut prints = [0; FEW];
        let prints = &mut prints[..items.len()];
        for (print, item) in prints.iter_mut().zip(items) {
            *print = fingerprint(key(item));
        }
        prints.sort_unstable();
        if !prints.windows(2).any(|two| two[0] == two[1]) {
            return false;
        }
    }
    let mut seen = HashSet::with_capacity(items.len());
    !items.iter().all(|item| seen.insert(key(item)))
}

/// Returns a hash of the first and last eight bytes and the length of a text.
fn fingerprint(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let (first, last) = (
        prefix(bytes),
        bytes
            .last_chunk()
            .map_or(0, |last| u64::from_le_bytes(*last)),
    );
    first ^ last.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (bytes.len() as u64).rotate_right(8)
}

/// Returns the first eight bytes as a number with the same order.
pub(super) fn prefix(bytes: &[u8]) -> u64 {
    if let Some(first) = bytes.first_chunk() {
        return u64::from_be_bytes(*first);
    }
    let mut first = [0; 8];
    first[..bytes.len()].copy_from_slice(bytes);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_dropped_in_short_and_long_lists() {
        for n in [3, FEW * 2] {
            let entry = |at: usize| (Cow::Owned(format!("k{}", at % (n - 1))), at);
            let mut entries: Vec<_> = (0..n).map(entry).collect();
            let mut dropped = Vec::new();
            keep_last(&mut entries, |_, at| dropped.push(at));
            assert_eq!((entries.len(), dropped), (n - 1, vec![0]));
        }
    }
}
