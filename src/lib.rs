#![doc = include_str!("../README.md")]

pub mod drift;
pub mod ids;
pub mod lake;
pub mod schema;
#[cfg(feature = "sim")]
pub mod sim;
pub mod source;
pub mod status;
pub mod tables;
pub mod window;
