//! `lathe eval` and `lathe eval compare`.

use anyhow::Result;
use lathe_lab::Context;
use lathe_lab::eval::subject::Overlong;
use lathe_lab::eval::{CompareSpec, EvalSpec, built_in_tasks, compare, eval};
use lathe_lab::generate::Turn;

use super::{print, print_json};
use crate::args::{CompareArgs, EvalArgs, EvalCommand};
use crate::failure::BadInput;
use crate::show;

pub(super) fn run_eval(args: EvalArgs, context: &Context<'_>) -> Result<()> {
    if let Some(EvalCommand::Compare(args)) = args.command {
        return run_compare(args);
    }
    if args.list {
        let tasks = built_in_tasks()?;
        return if args.json { print_json(&tasks) } else { print(&show::tasks(&tasks)) };
    }
    let json = args.json;
    if args.how.explain.is_some() || args.how.page.is_some() {
        let message = "--explain, --page: not for lathe eval".into();
        return Err(BadInput { message, hint: Some("`lathe ensemble` shows who voted for what".into()) }.into());
    }
    let (ensembles, models): (Vec<Vec<_>>, Vec<Vec<_>>) =
        args.models.into_iter().map(|voices| voices.0).partition(|voices| voices.len() > 1);
    let spec = EvalSpec {
        models: models.into_iter().flatten().collect(),
        ensembles: ensembles.into_iter().map(|members| args.how.spec(members)).collect(),
        tasks: args.task,
        data: args.data,
        limit: args.limit,
        shuffle: args.shuffle,
        turn: if args.chat { Turn::User { system: args.system } } else { Turn::Beginning },
        overlong: if args.truncate_left { Overlong::TruncateLeft } else { Overlong::Refuse },
        compute: args.compute.into(),
        batch: args.batch,
        out: args.out,
    };
    let result = eval(&spec, context)?;
    if json { print_json(&result) } else { print(&show::eval(&result)) }
}

fn run_compare(args: CompareArgs) -> Result<()> {
    let result = compare(&CompareSpec { answers: [args.first, args.second], seed: args.seed })?;
    if args.json { print_json(&result) } else { print(&show::compare(&result)) }
}
