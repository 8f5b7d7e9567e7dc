//! `lathe data` and `lathe measure context`.

use anyhow::Result;
use lathe_lab::Context;
use lathe_lab::data::{ConflictsSpec, CriticalSpec, InstructionsSpec, conflicts, context_critical, instructions};
use lathe_lab::measure::{AttentionDetail, ContextSpec, measure_context};

use super::{print, print_json};
use crate::args::{ConflictsArgs, ContextArgs, CriticalArgs, DataCommand, InstructionsArgs};
use crate::show;

pub(super) fn run_data(command: DataCommand, context: &Context<'_>) -> Result<()> {
    match command {
        DataCommand::Conflicts(args) => run_conflicts(args),
        DataCommand::Instructions(args) => run_instructions(args),
        DataCommand::ContextCritical(args) => run_critical(args, context),
    }
}

fn run_conflicts(args: ConflictsArgs) -> Result<()> {
    let spec = ConflictsSpec {
        facts: args.facts,
        split: args.split.into(),
        relations: args.relation,
        variants: args.variants,
        limit: args.limit,
        seed: args.seed,
        out: args.out,
    };
    let result = conflicts(&spec)?;
    if args.json { print_json(&result) } else { print(&show::conflicts(&result)) }
}

fn run_instructions(args: InstructionsArgs) -> Result<()> {
    let spec = InstructionsSpec {
        facts: args.facts,
        split: args.split.into(),
        records: args.records,
        counterfactual: args.counterfactual,
        seed: args.seed,
        out: args.out,
    };
    let result = instructions(&spec)?;
    if args.json { print_json(&result) } else { print(&show::instructions(&result)) }
}

fn run_critical(args: CriticalArgs, context: &Context<'_>) -> Result<()> {
    let spec = CriticalSpec {
        model: args.model,
        data: args.data,
        drop: args.drop,
        by: args.by.into(),
        template: args.template.into(),
        batch: args.batch,
        out: args.out,
        scores: args.scores,
    };
    let result = context_critical(&spec, context)?;
    if args.json { print_json(&result) } else { print(&show::critical(&result)) }
}

pub(super) fn run_context(args: ContextArgs, context: &Context<'_>) -> Result<()> {
    let spec = ContextSpec {
        models: args.models,
        data: args.data,
        matching: args.matching.into(),
        template: args.template.into(),
        instruction: args.instruction,
        max_tokens: args.max_tokens,
        known_by: args.known_by.into(),
        attention: if args.no_attention { AttentionDetail::Skip } else { AttentionDetail::Layers },
        limit: args.limit,
        batch: args.batch,
        seed: args.seed,
        out: args.out,
    };
    let result = measure_context(&spec, context)?;
    if args.json { print_json(&result) } else { print(&show::context(&result)) }
}
