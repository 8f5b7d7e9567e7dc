//! `lathe merge explore`.

use std::path::Path;

use anyhow::Result;
use lathe_lab::merge::{Axis, ExploreSpec, Measure, MergeSpec, Method, Nonfinite, Recipe, explore};
use lathe_lab::{Context, DataReference, ExportFormat, Part, Texts};
use lathe_merge::config::METHODS;

use super::merge::read_config;
use super::{print, print_json};
use crate::args::ExploreArgs;
use crate::failure::BadInput;
use crate::show;

pub(super) fn run_explore(args: ExploreArgs, context: &Context<'_>) -> Result<()> {
    let mut config = read_config(&args.config)?;
    config.seed = args.seed;
    let folder = args.config.parent().map(Path::to_owned);
    let merge = MergeSpec {
        config,
        recipe: Recipe::default(),
        folder,
        to: ExportFormat::Safetensors,
        dtype: None,
        shard_bytes: 5_000_000_000,
        nonfinite: Nonfinite::Refuse,
    };
    let texts = args.text.iter().map(|text| text_measure(text, args.tokens));
    let tasks = args.task.into_iter().map(|task| Ok(Measure::Task { task, limit: args.limit }));
    let spec = ExploreSpec {
        merge,
        methods: args.methods.iter().map(|name| method(name)).collect::<Result<_>>()?,
        axes: args.vary.iter().map(|text| axis(text)).collect::<Result<_>>()?,
        draws: args.draws,
        measures: texts.chain(tasks).collect::<Result<_>>()?,
        beside: args.beside.into_iter().map(|model| (model.to_string(), model)).collect(),
        write: args.write,
        seed: args.seed,
        out: args.out,
    };
    let result = explore(&spec, context)?;
    if args.json { print_json(&result) } else { print(&show::explored(&result)) }
}

fn axis(text: &str) -> Result<Axis> {
    text.parse().map_err(|problem| {
        let message = format!("--vary {text}: {problem}");
        BadInput { message, hint: Some("for example --vary density=0.2,0.5 or --vary t=0..1 --draws 20".into()) }.into()
    })
}

fn method(name: &str) -> Result<Method> {
    Method::named(name).ok_or_else(|| {
        let message = format!("--methods: `{name}` is no method of merging");
        BadInput {
            message,
            hint: Some(format!("there are {}", METHODS.iter().map(|row| row.name).collect::<Vec<_>>().join(", "))),
        }
        .into()
    })
}

fn text_measure(text: &str, tokens: usize) -> Result<Measure> {
    let Some((name, file)) = text.split_once('=').filter(|(name, file)| !name.is_empty() && !file.is_empty()) else {
        let message = format!("--text {text}: neither a name nor a file can be read from it");
        return Err(BadInput { message, hint: Some("write it as NAME=FILE: --text code=code.txt".into()) }.into());
    };
    let texts = Texts {
        package: None,
        data: vec![DataReference::from(file.to_owned())],
        field: "text".into(),
        part: Part::All,
        at_most: None,
    };
    Ok(Measure::Text { name: name.to_owned(), texts, tokens })
}
