//! `lathe diff`.

use anyhow::Result;
use lathe_lab::{Context, DiffSpec, Ranks, diff};

use super::{print, print_json};
use crate::args::DiffArgs;
use crate::show;

pub(super) fn run_diff(args: DiffArgs, context: &Context<'_>) -> Result<()> {
    let ranks = if args.full { Ranks::All } else { Ranks::Small };
    let spec = DiffSpec { a: args.a, b: args.b, base: args.base, ranks, out: args.out };
    let result = diff(&spec, context)?;
    if args.json { print_json(&result) } else { print(&show::diff(&result)) }
}
