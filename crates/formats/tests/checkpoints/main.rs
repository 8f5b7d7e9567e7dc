//! Tests of the crate through its public interface: golden blocks, encoding, opening, writing, and files that are wrong.
#![expect(clippy::unwrap_used, reason = "tests")]

mod blocks;
mod corrupt_gguf;
mod corrupt_safetensors;
mod encoding;
mod opening;
mod properties;
mod samples;
mod seeds;
mod writing;
