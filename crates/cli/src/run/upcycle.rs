//! `lathe upcycle`.

use anyhow::Result;
use lathe_lab::{Context, DataReference, UpcycleSpec, upcycle};

use super::{print, print_json};
use crate::args::UpcycleArgs;
use crate::show;

pub(super) fn run_upcycle(args: UpcycleArgs, context: &Context<'_>) -> Result<()> {
    let spec = UpcycleSpec {
        model: args.model,
        experts: args.experts,
        top_k: args.top_k,
        layout: args.layout.layout(),
        noise: args.noise,
        router_scale: args.router_scale,
        data: args.data.into_iter().map(DataReference::from).collect(),
        field: args.field,
        tokens: args.tokens,
        dtype: args.dtype,
        seed: args.seed,
        out: args.out,
    };
    let result = upcycle(&spec, context)?;
    if args.json { print_json(&result) } else { print(&show::upcycled(&result)) }
}
