//! 1. The Harness API: what is asked of it, and what its answers mean.

mod canonical;

pub use canonical::content_hash;
