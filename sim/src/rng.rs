//! Seeded random numbers: equal seed, stream and id give equal numbers on every machine.

use std::fmt;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The purpose of the numbers. Each has a stream of its own, so a change of one part does not alter
/// another.
#[derive(Clone, Copy)]
pub(super) enum Stream {
    /// Orgs, projects, pipelines, people.
    Plan,
    /// Executions, their start times and outcomes.
    History,
    /// Stages of an execution and their times.
    Graph,
    /// Trigger, tags, notes.
    Facts,
    /// The build of an execution.
    Commits,
    /// Cosmetic fields of a response.
    Finish,
}

/// A random number generator.
pub(super) struct Rng(ChaCha8Rng);

impl Rng {
    /// Creates the generator of one stream of one entity.
    pub(super) fn new(seed: u64, stream: Stream, of: Id) -> Self {
        let mut bytes = [0_u8; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8] = stream as u8;
        bytes[16..].copy_from_slice(&of.0.to_le_bytes());
        Self(ChaCha8Rng::from_seed(bytes))
    }

    /// Returns a number in `0..n`, or 0 if `n` is 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n.max(1))
    }

    /// Returns a number in `from..=to`, or `from` if the range is empty.
    pub(super) fn between(&mut self, from: i64, to: i64) -> i64 {
        self.0.random_range(from..=to.max(from))
    }

    /// Returns a number in `from..=to`, mostly near `from`: a long-tailed distribution.
    pub(super) fn long_tail(&mut self, from: i64, to: i64) -> i64 {
        let near = self.between(from, to);
        let nearer = self.between(from, near);
        self.between(from, nearer)
    }

    /// Returns true with a probability in thousandths.
    pub(super) fn chance(&mut self, per_mille: u32) -> bool {
        self.0.random_range(0..1000) < per_mille
    }

    /// Returns one of the values.
    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Returns one of the values, by weight.
    pub(super) fn weighted<T: Copy>(&mut self, of: &[(u32, T)]) -> T {
        let total: u32 = of.iter().map(|(weight, _)| weight).sum();
        let mut left = self.0.random_range(0..total);
        for (weight, value) in of {
            if left < *weight {
                return *value;
            }
            left -= weight;
        }
        of[0].1
    }

    /// Returns a new id.
    pub(super) fn id(&mut self) -> Id {
        Id(self.0.random())
    }

    /// Returns a commit hash of 40 hexadecimal digits.
    pub(super) fn sha(&mut self) -> String {
        let (high, low): (u128, u32) = (self.0.random(), self.0.random());
        format!("{high:032x}{low:08x}")
    }
}

/// 16 bytes, written as 22 characters of base64url as Harness writes a `planExecutionId`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Id(pub(super) u128);

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Id {
    /// Parses the 22 characters; `None` for anything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.len() != 22 {
            return None;
        }
        let digits = text.bytes().map(|byte| {
            let at = ALPHABET.iter().position(|letter| *letter == byte)?;
            u128::try_from(at).ok()
        });
        // 22 digits of 6 bits are 132 bits, so the last digit has only 2.
        let mut value = 0_u128;
        for (at, digit) in digits.enumerate() {
            let digit = digit?;
            value = if at < 21 {
                (value << 6) | digit
            } else {
                (value << 2) | (digit >> 4)
            };
        }
        Some(Self(value))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0_u8; 22];
        for (at, letter) in text.iter_mut().enumerate() {
            let digit = if at < 21 {
                (self.0 >> (122 - 6 * at)) & 63
            } else {
                (self.0 & 3) << 4
            };
            *letter = ALPHABET[usize::try_from(digit).unwrap_or(0)];
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_round_trips() {
        let mut rng = Rng::new(7, Stream::Plan, Id(0));
        for _ in 0..100 {
            let id = rng.id();
            assert_eq!(id.to_string().len(), 22);
            assert_eq!(Id::parse(&id.to_string()), Some(id));
        }
        assert_eq!(Id::parse("short"), None);
    }

    #[test]
    fn streams_are_independent() {
        let number = |stream| Rng::new(1, stream, Id(2)).below(1_000_000);
        assert_eq!(number(Stream::Graph), number(Stream::Graph));
        assert_ne!(number(Stream::Graph), number(Stream::Facts));
    }
}
