//! From flags to a task, and from its result to standard output.

mod data;
mod decode;
mod diff;
mod embed;
mod ensemble;
mod eval;
mod eval_embed;
mod explore;
mod merge;
mod texts;
mod tokenizer;
mod tokens;
mod tune;
mod upcycle;

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::CommandFactory;
use lathe_lab::measure::{
    AttentionSpec, SamplesSpec, SpanSource, SpectrumSpec, Untrained, measure_attention, measure_samples,
    measure_spectrum,
};
use lathe_lab::report::{self, Environment, Extent, ReportSpec};
use lathe_lab::{
    BenchSpec, Compute, Context, DataReference, Depth, Detail, ExperimentSpec, ExportSpec, InspectSpec, Methods, Rows,
    TokenInput, TraceSite, TraceSpec, Training, VocabularySpec, bench, data_sets, export, inspect, models, models_page,
    trace, vocabulary,
};
use lathe_measure::run::Layers;
use lathe_measure::spectrum::KeptColumns;
use lathe_model::Weights;
use lathe_model::catalog::DEFAULT_ALIAS;
use lathe_model::reference::{Home, ModelReference};
use serde::Serialize;

use crate::args::{
    Args, AttentionArgs, BenchArgs, Command, ExportArgs, FetchArgs, InspectArgs, Measure, ModelsArgs, ReportArgs,
    RunArgs, SamplesArgs, SpectrumArgs, Take, TraceArgs, TrainingArg,
};
use crate::failure::BadInput;
use crate::fetch::{Check, Consent, Origin, Wanted, fetch};
use crate::progress::{Show, TerminalProgress};
use crate::{machine, show};

/// Runs one command.
pub(crate) fn run(args: Args) -> Result<()> {
    if let Command::Completions { shell } = args.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Args::command(), "lathe", &mut script);
        return print(&String::from_utf8_lossy(&script));
    }
    // The command itself runs on a thread of the pool: work that it hands to the others is not worth a change of threads.
    pool(args.threads)?.install(|| run_on_pool(args))
}

fn run_on_pool(args: Args) -> Result<()> {
    let threads = rayon::current_num_threads() as u64;
    let home = Home::from_environment()?;
    let show = if args.quiet { Show::Never } else { Show::OnTerminal };
    let progress = TerminalProgress::new(show);
    let clock = machine::clock();
    let weights = if args.low_memory { Weights::Streamed } else { Weights::Frozen };
    let context =
        Context { home: &home, progress: &progress, seconds: &clock, peak_memory: &machine::peak_memory, weights };
    match args.command {
        Command::Fetch(args) => run_fetch(&args, &context),
        Command::Models(args) => run_models(&args, &context),
        Command::Inspect(args) => run_inspect(args, &context),
        Command::Trace(args) => run_trace(args, &context),
        Command::Generate(args) => decode::run_generate(*args, &context),
        Command::Ensemble(args) => ensemble::run_ensemble(*args, &context),
        Command::Chat(args) => decode::run_chat(args, &context),
        Command::Eval(args) => eval::run_eval(*args, &context),
        Command::Embed(args) => embed::run_embed(*args, &context),
        Command::EvalEmbed(args) => eval_embed::run_eval_embed(*args, &context),
        Command::Data(command) => data::run_data(command, &context),
        Command::Diff(args) => diff::run_diff(args, &context),
        Command::Export(args) => run_export(args, &context),
        Command::Merge(args) => merge::run_merge(*args, &context),
        Command::Tune(args) => tune::run_tune(args, show, &context),
        Command::Upcycle(args) => upcycle::run_upcycle(args, &context),
        Command::Bench(args) => run_bench(args, &context),
        Command::Run(args) => run_experiment(args, &context),
        Command::Measure(Measure::Spectrum(args)) => run_spectrum(args, &context),
        Command::Measure(Measure::Tokens(args)) => tokens::run_tokens(args, &context),
        Command::Measure(Measure::Attention(args)) => run_attention(args, &context),
        Command::Measure(Measure::Samples(args)) => run_samples(args, &context),
        Command::Measure(Measure::Context(args)) => data::run_context(args, &context),
        Command::Report(args) => run_report(args, threads, &context),
        Command::Completions { .. } => Ok(()),
    }
}

/// Starts the one thread pool.
fn pool(wanted: Option<usize>) -> Result<rayon::ThreadPool> {
    /// As much as a main thread usually has.
    const STACK: usize = 8 << 20;
    if wanted == Some(0) {
        return Err(BadInput { message: "--threads: 0 threads compute nothing".into(), hint: None }.into());
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(wanted.unwrap_or(0)).stack_size(STACK);
    pool.build().context("cannot start threads")
}

fn run_fetch(args: &FetchArgs, context: &Context<'_>) -> Result<()> {
    let Some(wanted) = &args.wanted else {
        return print(&show::fetchable(&models(context).built_in, &data_sets(context)));
    };
    let consent = if args.accept_licence { Consent::Given } else { Consent::Ask };
    let check = if args.verify { Check::Hashes } else { Check::Sizes };
    let (path, origin) = fetch(wanted, context.home, consent, check, context.progress)?;
    let how = match origin {
        Origin::Present => "is here already; no network was used",
        Origin::Verified => "is here and every byte is as it was fetched; no network was used",
        Origin::Downloaded => "was fetched and verified",
    };
    print(&format!("{wanted} {how}: {}\n", path.display()))
}

fn run_models(args: &ModelsArgs, context: &Context<'_>) -> Result<()> {
    let list = models(context);
    match (args.json, args.markdown) {
        (true, _) => print_json(&list),
        (_, true) => print(&models_page(&list)),
        (false, false) => print(&show::models(&list)),
    }
}

fn run_inspect(args: InspectArgs, context: &Context<'_>) -> Result<()> {
    if args.vocab {
        let result = vocabulary(&VocabularySpec { models: args.models }, context)?;
        return if args.json { print_json(&result) } else { print(&show::vocabulary(&result)) };
    }
    let depth = if args.load { Depth::Run } else { Depth::Headers };
    let Ok([model]) = <[ModelReference; 1]>::try_from(args.models) else {
        let hint = Some("add --vocab to compare their vocabularies, or inspect them one by one".into());
        return Err(BadInput { message: "several models are inspected only with --vocab".into(), hint }.into());
    };
    let inspection = inspect(&InspectSpec { model, depth }, context)?;
    match (args.json, args.tensors) {
        (true, _) => print_json(&inspection),
        (false, true) => print(&show::tensors(&inspection)),
        (false, false) => print(&show::inspection(&inspection)),
    }
}

fn run_trace(args: TraceArgs, context: &Context<'_>) -> Result<()> {
    let input = match (args.input.ids, args.input.ids_file, args.input.text) {
        (Some(ids), ..) => TokenInput::Ids(ids),
        (_, Some(file), _) => TokenInput::Ids(read_ids(&file)?),
        (_, _, text) => TokenInput::Text(text.unwrap_or_default()),
    };
    let site = |take: &Take| match take {
        Take::Logits => TraceSite::Logits,
        Take::HiddenStates => TraceSite::HiddenStates,
        Take::Attentions => TraceSite::Attentions,
        Take::RouterLogits => TraceSite::RouterLogits,
        Take::RouterProbabilities => TraceSite::RouterProbabilities,
        Take::RouterWeights => TraceSite::RouterWeights,
    };
    let spec = TraceSpec {
        model: args.model,
        input,
        take: args.take.iter().map(site).collect(),
        layers: args.layers,
        rows: if args.last_token { Rows::Last } else { Rows::All },
        out: args.out,
    };
    let result = trace(&spec, context)?;
    if args.json { print_json(&result) } else { print(&show::trace(&result)) }
}

fn run_export(args: ExportArgs, context: &Context<'_>) -> Result<()> {
    let to = args.to.into();
    let result = export(&ExportSpec { model: args.model, to, dtype: args.dtype, out: args.out }, context)?;
    if args.json { print_json(&result) } else { print(&show::export(&result)) }
}

fn run_bench(args: BenchArgs, context: &Context<'_>) -> Result<()> {
    let BenchArgs { models, prompt, decode, batch, runs, compute, profile, methods, training, json } = args;
    let compute = compute.into_iter().map(Compute::from).collect();
    let detail = if profile { Detail::Phases } else { Detail::Passes };
    let methods = match training {
        Some(TrainingArg::Full) => Methods::Training(Training::Full),
        Some(TrainingArg::Lora) => Methods::Training(Training::Lora),
        Some(TrainingArg::LoraAll) => Methods::Training(Training::LoraAll),
        None if methods => Methods::Time,
        None => Methods::Skip,
    };
    let spec = BenchSpec { models, prompt, decode, batches: batch, runs, compute, detail, methods };
    let result = bench(&spec, context)?;
    if json { print_json(&result) } else { print(&show::bench(&result)) }
}

fn run_experiment(args: RunArgs, context: &Context<'_>) -> Result<()> {
    let result = lathe_lab::run(&ExperimentSpec { file: args.file }, context)?;
    if args.json { print_json(&result) } else { print(&show::experiment(&result)) }
}

fn read_ids(file: &Path) -> Result<Vec<u32>> {
    let text = std::fs::read_to_string(file).map_err(|source| lathe_lab::Error::Read { file: file.into(), source })?;
    let ids = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|part| !part.is_empty());
    ids.enumerate()
        .map(|(index, part)| {
            part.parse().map_err(|_| {
                let message = format!("{}: entry {} is `{part}`, expected a token id", file.display(), index + 1);
                BadInput { message, hint: Some("ids are whole numbers between commas or white space".into()) }.into()
            })
        })
        .collect()
}

fn run_spectrum(args: SpectrumArgs, context: &Context<'_>) -> Result<()> {
    let spec = SpectrumSpec {
        data: args.data.references(),
        field: args.data.field,
        model: args.model,
        window: args.window,
        windows: args.windows.map(NonZeroUsize::get),
        layers: if args.every_layer { Layers::All } else { Layers::Last },
        metrics: args.metrics.into_iter().map(Into::into).collect(),
        kept_columns: args.columns.map_or(KeptColumns::SmallerSide, KeptColumns::Top),
        untrained: args.untrained.map_or(Untrained::Skip, Untrained::Seed),
        seed: args.seed,
    };
    let result = measure_spectrum(&spec, context)?;
    if args.json { print_json(&result) } else { print(&show::spectrum(&result)) }
}

fn run_attention(args: AttentionArgs, context: &Context<'_>) -> Result<()> {
    let spans = match (args.spans, args.text, args.span) {
        (Some(file), ..) => SpanSource::File(file),
        (None, text, span) => SpanSource::Quote { text: text.unwrap_or_default(), span: span.unwrap_or_default() },
    };
    let spec = AttentionSpec { model: args.model, against: args.against, spans, seed: args.seed };
    let result = measure_attention(&spec, context)?;
    if args.json { print_json(&result) } else { print(&show::attention(&result)) }
}

fn run_samples(args: SamplesArgs, context: &Context<'_>) -> Result<()> {
    let spec = SamplesSpec {
        sets: args.sets,
        field: args.field,
        reference: args.reference.map(DataReference::from),
        model: args.model,
        max_tokens: args.max_tokens,
        seed: args.seed,
    };
    let result = measure_samples(&spec, context)?;
    if args.json { print_json(&result) } else { print(&show::samples(&result)) }
}

fn run_report(args: ReportArgs, threads: u64, context: &Context<'_>) -> Result<()> {
    check_out(&args.out)?;
    let mut models = args.models;
    if models.is_empty() {
        let default: ModelReference = DEFAULT_ALIAS.parse()?;
        fetch(&Wanted::Model(default.clone()), context.home, Consent::Ask, Check::Sizes, context.progress)?;
        models.push(default);
    }
    let spec = ReportSpec {
        extent: if args.full { Extent::Full } else { Extent::Default },
        seed: args.seed,
        models,
        ..ReportSpec::default()
    };
    let environment = Environment {
        created: machine::now(),
        lathe_version: env!("CARGO_PKG_VERSION").to_owned(),
        machine: machine::machine(),
        threads,
    };
    let report = report::collect(&spec, &environment, context)?;
    let [page, _] = report::write_report(&report, &args.out)?;
    if args.json {
        return print(&report::to_json(&report)?);
    }
    let mut lines = report::summary(&report);
    lines.push(String::new());
    lines.push(format!("The page is {}", page.display()));
    print(&(lines.join("\n") + "\n"))
}

/// Whether a folder can be made or written: known before a report takes its minutes. Leaves nothing behind.
fn check_out(folder: &Path) -> Result<()> {
    let existing = folder.ancestors().find(|above| above.exists()).unwrap_or(Path::new("."));
    match tempfile::tempfile_in(existing) {
        Ok(_) => Ok(()),
        Err(source) => Err(BadInput {
            message: format!("--out {}: cannot write here: {source}", folder.display()),
            hint: Some("name a folder that is yours, or that does not exist yet".into()),
        }
        .into()),
    }
}

fn print_json(value: &impl Serialize) -> Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}

fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
