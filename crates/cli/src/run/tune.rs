//! `lathe tune`.

use std::io::{self, Write};

use anyhow::Result;
use lathe_lab::{
    BadRecords, Context, FromScratch, Method, Packing, Recomputed, Resume, TuneAudit, TuneSpec, read_adapter, tune,
    tune_audit,
};
use lathe_model::reference::ModelReference;
use lathe_model::{LoraScaling, LoraSpec};

use super::{print, print_json};
use crate::args::{TuneArgs, TuneCommand, TuneFullArgs, TuneLoraArgs, TuneRunArgs};
use crate::failure::BadInput;
use crate::progress::Show;
use crate::show;

pub(super) fn run_tune(args: TuneArgs, show: Show, context: &Context<'_>) -> Result<()> {
    match args.command {
        TuneCommand::Full(args) => {
            let TuneFullArgs { model, from_scratch, tokenizer, only, learning_rate, run } = *args;
            let method = if only.is_empty() { Method::Full } else { Method::Only(only) };
            let from_scratch = from_scratch.map(|config| FromScratch { config, tokenizer });
            let begin = TuneSpec { model, from_scratch, method, ..TuneSpec::new(learning_rate) };
            run_with(begin, run, show, context)
        }
        TuneCommand::Lora(args) => {
            let TuneLoraArgs { model, rank, alpha, rslora, dropout, targets, learning_rate, run } = *args;
            // An adapter that is trained further keeps what it is.
            let own = match &model {
                ModelReference::Path(folder) if folder.join("adapter_config.json").is_file() => {
                    Some(read_adapter(folder)?.0)
                }
                _ => None,
            };
            let rank = rank.or(own.as_ref().map(|own| own.rank)).unwrap_or(8);
            let usual = LoraSpec {
                rank,
                alpha: rank as f64,
                scaling: LoraScaling::Classic,
                dropout,
                targets: vec!["all-linear".into()],
                seed: run.seed,
            };
            let own = own.unwrap_or_else(|| usual.clone());
            let lora = LoraSpec {
                alpha: alpha.unwrap_or(own.alpha),
                scaling: if rslora { LoraScaling::RankStabilised } else { own.scaling },
                targets: if targets.is_empty() { own.targets } else { targets },
                ..usual
            };
            let begin = TuneSpec { model: Some(model), method: Method::Lora(lora), ..TuneSpec::new(learning_rate) };
            run_with(begin, run, show, context)
        }
        TuneCommand::Tokenizer(args) => super::tokenizer::run_tokenizer(args, context),
    }
}

fn run_with(begin: TuneSpec, args: TuneRunArgs, show: Show, context: &Context<'_>) -> Result<()> {
    let Ok(betas) = <[f64; 2]>::try_from(args.betas) else {
        let hint = Some("two shares below 1, as 0.9,0.999".to_owned());
        return Err(BadInput { message: "--betas takes two numbers".into(), hint }.into());
    };
    let spec = TuneSpec {
        data: args.data,
        loss_on: args.loss_on.into(),
        max_length: args.max_length,
        overlong: args.overlong.into(),
        packing: if args.pack { Packing::BestFit } else { Packing::None },
        bad_records: if args.skip_bad { BadRecords::Skip } else { BadRecords::Refuse },
        parse_markup: args.markup,
        steps: args.steps,
        epochs: args.epochs,
        batch: args.batch,
        accumulate: args.accumulate,
        order: args.order.into(),
        schedule: args.schedule.into(),
        warm_up: args.warm_up,
        betas,
        epsilon: args.eps,
        weight_decay: args.weight_decay,
        decay_embeddings: args.decay_embeddings,
        decay_vectors: args.decay_vectors,
        clip: args.clip,
        compute: args.compute.into(),
        recompute: if args.recompute { Recomputed::Layers } else { Recomputed::Nothing },
        seed: args.seed,
        dtype: args.dtype,
        eval: args.eval,
        eval_every: args.eval_every,
        checkpoint_every: args.checkpoint_every,
        keep: args.keep,
        save_at: args.save_at,
        resume: if args.resume { Resume::Yes } else { Resume::No },
        out: args.out.unwrap_or_default(),
        ..begin
    };
    if args.audit_only {
        let audit = tune_audit(&spec, context)?;
        return if args.json { print_json(&audit) } else { print(&show::audit(&audit)) };
    }
    let is_quiet = args.json || show == Show::Never;
    let mut hear = |audit: &TuneAudit| {
        if !is_quiet {
            // A closed standard error is no reason not to train.
            _ = writeln!(io::stderr(), "{}", show::audit(audit));
        }
    };
    let result = tune(&spec, context, &mut hear)?;
    if args.json { print_json(&result) } else { print(&show::tuned(&result)) }
}
