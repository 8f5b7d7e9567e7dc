//! placeholder

pub mod figure;
pub mod report;
