//! `lathe eval-embed`.

use anyhow::Result;
use lathe_lab::Context;
use lathe_lab::embed::Prompt;
use lathe_lab::embed_eval::{EmbedEvalSpec, Training, built_in_embed_tasks, embed_eval};

use super::embed::reading;
use super::{print, print_json};
use crate::args::EvalEmbedArgs;
use crate::show;

pub(super) fn run_eval_embed(args: EvalEmbedArgs, context: &Context<'_>) -> Result<()> {
    if args.list {
        let tasks = built_in_embed_tasks()?;
        return if args.json { print_json(&tasks) } else { print(&show::embed_tasks(&tasks)) };
    }
    let json = args.json;
    let spec = EmbedEvalSpec {
        models: args.models,
        tasks: args.task,
        prompts: if args.prompt.is_empty() { vec![Prompt::Usual] } else { args.prompt },
        features: reading(args.reading),
        alpha: args.alpha,
        data: args.data,
        limit: args.limit,
        clusterings: args.clusterings,
        training: if args.to_convergence { Training::AlsoToConvergence } else { Training::Limited },
        seed: args.seed,
        out: args.out,
    };
    let result = embed_eval(&spec, context)?;
    if json { print_json(&result) } else { print(&show::embed_eval(&result)) }
}
