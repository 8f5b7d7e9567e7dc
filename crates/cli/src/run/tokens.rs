//! `lathe measure tokens`.

use std::path::Path;

use anyhow::Result;
use lathe_lab::measure::{
    FairnessSpec, RunCheckpoint, TokensSpec, measure_fairness, measure_tokens, tuned_checkpoints,
};
use lathe_lab::{Context, DataReference, Error, Part, Texts};

use super::{print, print_json};
use crate::args::TokensArgs;
use crate::show;

pub(super) fn run_tokens(args: TokensArgs, context: &Context<'_>) -> Result<()> {
    let named = |names: Vec<String>| if names.is_empty() { None } else { Some(texts(names, &args.field)) };
    let counts = named(args.counts);
    if let Some(model) = args.model {
        let TokensArgs { window, seed, .. } = args;
        let spec = TokensSpec { model, texts: texts(args.data, &args.field), counts, window, seed };
        let result = measure_tokens(&spec, context)?;
        return if args.json { print_json(&result) } else { print(&show::tokens(&result)) };
    }
    let mut checkpoints = args.checkpoint;
    for folder in &args.tuned {
        checkpoints.extend(tuned_checkpoints(folder)?);
    }
    if let Some(file) = &args.runs {
        checkpoints.extend(read_runs(file)?);
    }
    let spec = FairnessSpec {
        checkpoints,
        training: texts(args.training, &args.field),
        counts,
        held_out: named(args.held_out),
        window: args.window,
        tokens: args.tokens,
        seed: args.seed,
        out: args.out,
        page: args.page,
    };
    let result = measure_fairness(&spec, context)?;
    if args.json {
        return print_json(&result);
    }
    let mut text = show::fairness(&result);
    if let Some(page) = &spec.page {
        text += &format!("The page is {}\n", page.display());
    }
    print(&text)
}

/// All texts of some files.
pub(super) fn texts(names: Vec<String>, field: &str) -> Texts {
    let data = names.into_iter().map(DataReference::from).collect();
    Texts { package: None, data, field: field.to_owned(), part: Part::All, at_most: None }
}

fn read_runs(file: &Path) -> Result<Vec<RunCheckpoint>> {
    const EXPECTED: &str =
        "each line is one JSON object: {\"model\": \"out/a\", \"weight_decay\": 0.1, \"seed\": 1, \"step\": 400}";
    let text = std::fs::read_to_string(file).map_err(|source| Error::Read { file: file.into(), source })?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = |(index, line): (usize, &str)| {
        let bad = |problem: String| Error::Record { file: file.into(), line: index + 1, problem, expected: EXPECTED };
        // Positions in a line of one object say nothing that the message does not.
        let said =
            |error: serde_json::Error| error.to_string().split(" at line ").next().unwrap_or_default().to_owned();
        let run: RunCheckpoint = serde_json::from_str(line).map_err(|error| bad(said(error)))?;
        Ok(run)
    };
    lines.map(read).collect()
}
