//! `lathe merge`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use lathe_lab::Context;
use lathe_lab::merge::{
    MergeResult, MergeSpec, MergeSummary, Nonfinite, Recipe, ResidualLayer, Resume, merge, plan_merge, residual_layers,
};
use lathe_merge::config::{MergeConfig, Method, ModelEntry, ModelRef, Parameter, Parameters};
use lathe_merge::vocabulary::Missing;
use serde::Serialize;

use super::explore::run_explore;
use super::{print, print_json};
use crate::args::{
    ExtractArgs, LinearArgs, LoraArgs, MergeArgs, MergeCommand, MergeWriteArgs, ProtectArgs, ResidualArgs, SlerpArgs,
};
use crate::failure::BadInput;
use crate::show;

pub(super) fn run_merge(args: MergeArgs, context: &Context<'_>) -> Result<()> {
    match args.command {
        Some(MergeCommand::Linear(args)) => linear(args, context),
        Some(MergeCommand::Slerp(args)) => slerp(args, context),
        Some(MergeCommand::Residual(args)) => residual(args, context),
        Some(MergeCommand::Protect(args)) => protect(args, context),
        Some(MergeCommand::Lora(args)) => lora(args, context),
        Some(MergeCommand::Extract(args)) => extract(args, context),
        Some(MergeCommand::Explore(args)) => run_explore(*args, context),
        None => {
            let file = args.config.unwrap_or_default();
            let config = read_config(&file)?;
            // Paths in the file count from where it lies.
            let folder = file.parent().map(Path::to_owned);
            write(config, Recipe::default(), folder, args.write, context)
        }
    }
}

/// Reads a configuration file.
///
/// # Errors
/// It cannot be read, or is no configuration.
pub(super) fn read_config(file: &Path) -> Result<MergeConfig> {
    let text = std::fs::read_to_string(file).map_err(|source| lathe_lab::Error::Read { file: file.into(), source })?;
    Ok(MergeConfig::parse(&text, file).map_err(lathe_lab::Error::from)?)
}

fn linear(args: LinearArgs, context: &Context<'_>) -> Result<()> {
    let LinearArgs { models, weights, write: how } = args;
    if !weights.is_empty() && weights.len() != models.len() {
        let message = format!("--weights has {} numbers for {} models", weights.len(), models.len());
        return Err(BadInput { message, hint: Some("give one weight for each model, as 0.7,0.3".into()) }.into());
    }
    let entry = |(i, model): (usize, &String)| Ok(weighted(model_ref(model)?, weights.get(i).copied().unwrap_or(1.0)));
    let entries = models.iter().enumerate().map(entry).collect::<Result<_>>()?;
    write(MergeConfig::of_models(Method::Linear, entries), Recipe::default(), None, how, context)
}

fn slerp(args: SlerpArgs, context: &Context<'_>) -> Result<()> {
    let (base, model) = (model_ref(&args.base)?, model_ref(&args.model)?);
    let entries = vec![ModelEntry::plain(base.clone()), ModelEntry::plain(model)];
    let mut config = MergeConfig::of_models(Method::Slerp, entries);
    config.base_model = Some(base);
    config.parameters = Parameters::none().with(Parameter::T, args.t);
    write(config, Recipe::default(), None, args.write, context)
}

/// `updated + scale · (instruct − base)`: task arithmetic on the base with the weight of the residual.
fn residual(args: ResidualArgs, context: &Context<'_>) -> Result<()> {
    let (base, updated, instruct) = (model_ref(&args.base)?, model_ref(&args.updated)?, model_ref(&args.instruct)?);
    let entries = vec![weighted(updated.clone(), 1.0), weighted(instruct.clone(), args.scale)];
    let mut config = MergeConfig::of_models(Method::TaskArithmetic, entries);
    config.base_model = Some(base.clone());
    // Rows that the base lacks are zero before they are subtracted.
    let recipe = Recipe { config: Some(0), template: Some(1), missing: Missing::Zero };
    let json = args.write.json;
    match carry_out(config, recipe, None, args.write, context)? {
        // A dry run reads headers only.
        Outcome::Planned(summary) => say(Outcome::Planned(summary), json),
        Outcome::Written(merge) => {
            let layers = residual_layers([&base, &instruct, &updated], None, context)?;
            if json {
                print_json(&ResidualResult { merge, residual: layers })
            } else {
                print(&(show::merged(&merge) + &show::residual(&layers)))
            }
        }
    }
}

/// What `lathe merge residual --json` prints.
#[derive(Serialize)]
struct ResidualResult {
    #[serde(flatten)]
    merge: Box<MergeResult>,
    /// By layer, and last over all weights.
    residual: Vec<ResidualLayer>,
}

fn protect(args: ProtectArgs, context: &Context<'_>) -> Result<()> {
    let [keep, other] = args.weights[..] else {
        let message = format!("--weights has {} numbers for 2 models", args.weights.len());
        return Err(BadInput { message, hint: None }.into());
    };
    let entries = vec![weighted(model_ref(&args.keep)?, keep), weighted(model_ref(&args.other)?, other)];
    let mut config = MergeConfig::of_models(Method::Protect, entries);
    config.base_model = Some(model_ref(&args.base)?);
    config.parameters = Parameters::none()
        .with(Parameter::Density, args.density)
        .with(Parameter::Slack, args.slack)
        .with(Parameter::Lambda, args.lambda);
    write(config, Recipe::default(), None, args.write, context)
}

fn lora(args: LoraArgs, context: &Context<'_>) -> Result<()> {
    let model = model_ref(&format!("{}+{}", args.model, args.adapter))?;
    let config = MergeConfig::of_models(Method::Passthrough, vec![ModelEntry::plain(model)]);
    write(config, Recipe::default(), None, args.write, context)
}

fn extract(args: ExtractArgs, context: &Context<'_>) -> Result<()> {
    let spec = lathe_lab::merge::ExtractSpec { base: args.base, tuned: args.tuned, rank: args.rank, out: args.out };
    let result = lathe_lab::merge::extract(&spec, context)?;
    if args.json { print_json(&result) } else { print(&show::extracted(&result)) }
}

fn write(
    config: MergeConfig,
    recipe: Recipe,
    folder: Option<PathBuf>,
    args: MergeWriteArgs,
    context: &Context<'_>,
) -> Result<()> {
    let json = args.json;
    say(carry_out(config, recipe, folder, args, context)?, json)
}

fn say(outcome: Outcome, json: bool) -> Result<()> {
    match outcome {
        Outcome::Planned(summary) if json => print_json(&summary),
        Outcome::Planned(summary) => print(&show::merge_plan(&summary)),
        Outcome::Written(result) if json => print_json(&result),
        Outcome::Written(result) => print(&show::merged(&result)),
    }
}

/// What became of a merge.
enum Outcome {
    Planned(Box<MergeSummary>),
    Written(Box<MergeResult>),
}

/// Merges, or says what would be merged where there is no target or none is wanted.
fn carry_out(
    mut config: MergeConfig,
    recipe: Recipe,
    folder: Option<PathBuf>,
    args: MergeWriteArgs,
    context: &Context<'_>,
) -> Result<Outcome> {
    let MergeWriteArgs { out, dry_run, resume, to, dtype, shard_size, seed, allow_nonfinite, json: _ } = args;
    config.seed = seed.unwrap_or(config.seed);
    let to = to.into();
    let nonfinite = if allow_nonfinite { Nonfinite::Allow } else { Nonfinite::Refuse };
    let spec = MergeSpec { config, recipe, folder, to, dtype, shard_bytes: shard_size, nonfinite };
    let Some(out) = out.filter(|_| !dry_run) else {
        return Ok(Outcome::Planned(Box::new(plan_merge(&spec, context)?)));
    };
    let resume = if resume { Resume::Continue } else { Resume::Refuse };
    Ok(Outcome::Written(Box::new(merge(&spec, &out, resume, context)?)))
}

fn weighted(model: ModelRef, weight: f64) -> ModelEntry {
    ModelEntry { model, parameters: Parameters::none().with(Parameter::Weight, weight) }
}

fn model_ref(text: &str) -> Result<ModelRef> {
    text.parse().map_err(|problem| {
        let message = format!("model reference `{text}`: {problem}");
        BadInput { message, hint: Some("write path[@revision][+adapter[@revision]]".into()) }.into()
    })
}
