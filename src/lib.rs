#![doc = include_str!("../README.md")]

pub mod drift;
pub mod ids;
#[cfg(feature = "sim")]
pub mod sim;
pub mod status;
pub mod window;
