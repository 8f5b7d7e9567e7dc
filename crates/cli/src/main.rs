//! `lathe`: a workbench for open-weight language models.
//!
//! This crate is the only one that talks to a person: flags become specs of tasks ([`args`]), results become text
//! ([`show`]), progress and errors go to standard error. Standard output holds data only.

mod args;
mod failure;
mod fetch;
mod machine;
mod progress;
mod run;
mod show;
mod stream;
mod table;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match run::run(args::Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}
