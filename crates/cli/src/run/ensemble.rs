//! `lathe ensemble`, and `lathe generate` with several models.

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::Result;
use lathe_lab::ensemble::{Criteria, DetermineSpec, EnsembleWriteSpec, determine, write_together};
use lathe_lab::generate::{DecodingSpec, Prompts, Turn};
use lathe_lab::{Compute, Context};
use lathe_model::reference::ModelReference;

use super::decode::asked;
use super::texts::Listener;
use super::{print, print_json};
use crate::args::{AskArgs, DetermineArgs, EnsembleArgs, EnsembleCommand, TogetherArgs};
use crate::show;

/// What to write, and how to show it.
pub(super) struct Write {
    spec: EnsembleWriteSpec,
    json: bool,
}

impl Write {
    pub(super) fn of(
        models: Vec<ModelReference>,
        ask: AskArgs,
        decoding: DecodingSpec,
        how: &TogetherArgs,
        compute: Compute,
        out: Option<PathBuf>,
        json: bool,
    ) -> Result<Self> {
        let samples = ask.samples;
        let (prompts, turn) = asked(ask)?;
        let (ensemble, explain, page) = (how.spec(models), how.explain.unwrap_or(0), how.page.clone());
        let spec = EnsembleWriteSpec { ensemble, prompts, turn, decoding, compute, samples, explain, out, page };
        Ok(Self { spec, json })
    }
}

pub(super) fn run_ensemble(args: EnsembleArgs, context: &Context<'_>) -> Result<()> {
    if let Some(EnsembleCommand::Determine(args)) = args.command {
        return run_determine(*args, context);
    }
    let decoding = args.draw.spec(0.0);
    write(Write::of(args.models, args.ask, decoding, &args.how, args.compute.into(), args.out, args.json)?, context)
}

fn run_determine(args: DetermineArgs, context: &Context<'_>) -> Result<()> {
    let json = args.json;
    let spec = DetermineSpec {
        candidates: args.how.spec(args.models),
        task: args.task,
        data: args.data,
        limit: Some(args.limit),
        shuffle: args.shuffle,
        turn: if args.chat { Turn::User { system: None } } else { Turn::Beginning },
        compute: args.compute.into(),
        criteria: Criteria {
            max_gap_points: args.max_gap,
            max_length_ratio: args.max_length_ratio,
            min_gain_points: args.min_gain,
        },
        out: args.out,
    };
    let result = determine(&spec, context)?;
    if json { print_json(&result) } else { print(&show::determined(&result)) }
}

/// Writes texts: one as it comes, several when each is complete, records as lines.
pub(super) fn write(what: Write, context: &Context<'_>) -> Result<()> {
    let Write { spec, json } = what;
    let one = spec.samples == 1 && !matches!(spec.prompts, Prompts::File { .. });
    let mut listener = Listener::new(spec.out.as_deref(), json, one);
    let result = write_together(&spec, context, &mut |heard| listener.hear(heard));
    let result = listener.finish(result)?;
    match (&spec.out, json) {
        (Some(_), true) => print_json(&result),
        (Some(_), false) => print(&show::together(&result)),
        (None, _) => Ok(io::stderr().write_all(show::together(&result).as_bytes())?),
    }
}
