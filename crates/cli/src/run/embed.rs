//! `lathe embed` and what goes with it.

use std::io::{self, Write};

use anyhow::Result;
use lathe_lab::Context;
use lathe_lab::embed::{
    AnalyseSpec, AnalysedTexts, Cleaning, EmbedSpec, EmbedTexts, FeatureSpec, HiddenLayers, HiddenSpec, Length, Prompt,
    Queries, RouterLayers, RouterSpec, SearchSpec, Standardise, VectorSpec, analyse, embed, search,
};

use super::{print, print_json};
use crate::args::{AnalyseArgs, EmbedArgs, EmbedCommand, FeatureArgs, ReadingArgs, SearchArgs, StandardiseArg};
use crate::failure::BadInput;
use crate::show;

pub(super) fn run_embed(args: EmbedArgs, context: &Context<'_>) -> Result<()> {
    match args.command {
        Some(EmbedCommand::Search(args)) => return run_search(args, context),
        Some(EmbedCommand::Analyse(args)) => return run_analyse(*args, context),
        None => {}
    }
    let Some(model) = args.model else {
        return Err(BadInput { message: "no model is named".into(), hint: None }.into());
    };
    let spec = EmbedSpec {
        model,
        texts: match args.input {
            Some(file) => EmbedTexts::File { file, field: args.field },
            None => EmbedTexts::Given(args.text),
        },
        features: features(args.features),
        vectors: VectorSpec {
            kind: args.kind.into(),
            standardise: match (args.standardise, args.statistics) {
                (StandardiseArg::Corpus, statistics) => Standardise::Corpus { statistics },
                (StandardiseArg::No, Some(statistics)) => Standardise::Stored { statistics },
                (StandardiseArg::No, None) => Standardise::No,
                (StandardiseArg::Batch(size), None) => Standardise::Batch { size },
                (StandardiseArg::Batch(_), Some(_)) => {
                    let message = "--statistics: batches are scaled by their own".into();
                    return Err(BadInput { message, hint: Some("leave out one of the two".into()) }.into());
                }
            },
            alpha: args.alpha,
            length: if args.normalise { Length::One } else { Length::Usual },
        },
        stored: args.dtype.into(),
        out: args.out,
    };
    let result = embed(&spec, context)?;
    if result.manifest.truncated > 0 {
        warn(&show::cut(result.manifest.truncated, result.manifest.most_tokens))?;
    }
    if args.json { print_json(&result) } else { print(&show::embedded(&result)) }
}

pub(super) fn features(args: FeatureArgs) -> FeatureSpec {
    let cleaning = if args.clean { Cleaning::Moee } else { Cleaning::AsItIs };
    let mut spec = reading(args.reading);
    spec.prompt = match (args.prompt, args.template) {
        (Some(prompt), _) => prompt,
        (None, Some(template)) => Prompt::Template { template, cleaning },
        (None, None) => Prompt::Usual,
    };
    spec.router.layers = args.router_layers.map_or(RouterLayers::All, RouterLayers::These);
    spec.router.pooling = args.router_pooling.into();
    spec
}

/// What is read, under the model's usual prompt.
pub(super) fn reading(args: ReadingArgs) -> FeatureSpec {
    FeatureSpec {
        prompt: Prompt::Usual,
        instruction: args.instruction,
        hidden: HiddenSpec {
            layers: args.layer.map_or(HiddenLayers::Last, HiddenLayers::Mean),
            pooling: args.pooling.map(Into::into).unwrap_or_default(),
            filter: args.filter,
        },
        router: RouterSpec { source: args.router_source.into(), ..RouterSpec::default() },
        max_tokens: args.max_tokens,
        compute: args.compute.into(),
    }
}

fn run_search(args: SearchArgs, context: &Context<'_>) -> Result<()> {
    let given = args.queries;
    let queries = match (given.queries, given.vectors) {
        (Some(file), _) => Queries::Texts(EmbedTexts::File { file, field: args.field }),
        (_, Some(file)) => Queries::Vectors(file),
        (None, None) if given.row.is_empty() => Queries::Texts(EmbedTexts::Given(given.query)),
        (None, None) => Queries::Rows(given.row),
    };
    let spec = SearchSpec { embedded: args.embedded, queries, instruction: args.instruction, top: args.top };
    let result = search(&spec, context)?;
    if args.json { print_json(&result) } else { print(&show::found(&result)) }
}

fn run_analyse(args: AnalyseArgs, context: &Context<'_>) -> Result<()> {
    let (file, score) = (args.input, args.score.unwrap_or_default());
    let input = match args.pairs.map(<[String; 2]>::try_from) {
        None => AnalysedTexts::Texts { file, field: args.field, label: args.label },
        Some(Ok(fields)) => AnalysedTexts::Pairs { file, fields, score },
        Some(Err(_)) => {
            let hint = Some("for example --pairs sentence1,sentence2 --score score".into());
            return Err(BadInput { message: "--pairs: expected two fields".into(), hint }.into());
        }
    };
    let spec = AnalyseSpec {
        model: args.model,
        input,
        features: features(args.features),
        clusters: args.clusters,
        seeds: args.seeds,
        out: args.out,
    };
    let result = analyse(&spec, context)?;
    if args.json { print_json(&result) } else { print(&show::analysed(&result)) }
}

/// Says something that is no result.
fn warn(text: &str) -> Result<()> {
    Ok(io::stderr().write_all(format!("note: {text}\n").as_bytes())?)
}
