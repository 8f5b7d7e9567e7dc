//! `lathe generate` and `lathe chat`: texts that appear as they are written.

use std::io::{self, BufRead, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use lathe_decode::global::{Keep, Supply};
use lathe_lab::generate::{Filter, GenerateSpec, Normalise, PromptDiagnostics, Prompts, StepRecords, Turn, generate};
use lathe_lab::{Chat, ChatSpec, Context};
use lathe_model::reference::ModelReference;

use super::texts::Listener;
use super::{ensemble, print, print_json};
use crate::args::{AskArgs, ChatArgs, GenerateArgs, Normalisation, Sampler, Voices};
use crate::failure::BadInput;
use crate::show;
use crate::stream::TextStream;

pub(super) fn run_generate(args: GenerateArgs, context: &Context<'_>) -> Result<()> {
    if args.model.0.len() > 1 {
        return ensemble::write(generate_together(args)?, context);
    }
    let json = args.json;
    let spec = generate_spec(args)?;
    let one = spec.samples == 1 && spec.normalise == Normalise::Local && !matches!(spec.prompts, Prompts::File { .. });
    let mut listener = Listener::new(spec.out.as_deref(), json, one);
    let result = generate(&spec, context, &mut |heard| listener.hear(heard));
    let result = listener.finish(result)?;
    warn(&result.diagnostics)?;
    match (&spec.out, json) {
        (Some(_), true) => print_json(&result),
        (Some(_), false) => print(&show::generate(&result)),
        _ if !result.diagnostics.is_empty() => Ok(io::stderr().write_all(show::generate(&result).as_bytes())?),
        _ => Ok(()),
    }
}

/// What the diagnostics mean, on standard error: each sentence once, with the prompts that it holds for.
fn warn(diagnostics: &[PromptDiagnostics]) -> Result<()> {
    for prompt in diagnostics {
        for warning in &prompt.diagnostics.warnings {
            let of = if diagnostics.len() > 1 { format!("prompt {}: ", prompt.prompt) } else { String::new() };
            writeln!(io::stderr(), "warning: {of}{warning}")?;
        }
    }
    Ok(())
}

fn generate_spec(args: GenerateArgs) -> Result<GenerateSpec> {
    let global = args.global;
    let normalise = match (global.normalise, global.sampler) {
        (Normalisation::Local, _) => Normalise::Local,
        (_, Sampler::Imh) => Normalise::Imh {
            proposals: global.proposals,
            keep: global.burn_in.map_or(Keep::Last, Keep::After),
            supply: global.bootstrap.map_or(Supply::Fresh, Supply::Bootstrap),
            filter: if global.prune { Filter::Wordless } else { Filter::Nothing },
        },
        (_, Sampler::Rejection) => Normalise::Rejection { draws: global.max_draws },
        (_, Sampler::Sir) => Normalise::Sir { proposals: global.proposals },
        (_, Sampler::Smc) => Normalise::Smc { resample_below: global.resample_below },
    };
    let samples = args.ask.samples;
    let (prompts, turn) = asked(args.ask)?;
    let model = one(args.model)?;
    Ok(GenerateSpec {
        model,
        prompts,
        turn,
        decoding: args.sampling.spec(args.alternatives, 1.0),
        compute: args.compute.into(),
        normalise,
        samples,
        batch: args.batch,
        steps: if args.no_steps { StepRecords::Sums } else { StepRecords::Every },
        out: args.out,
    })
}

/// What to go on from, and what it is to the model.
pub(super) fn asked(args: AskArgs) -> Result<(Prompts, Turn)> {
    let prompts = match (args.prompt.prompt, args.prompt.prompt_ids, args.prompt.prompts) {
        (_, Some(ids), _) => Prompts::Ids(ids),
        (_, _, Some(file)) => Prompts::File { file, field: args.field },
        (text, ..) => Prompts::Text(text.unwrap_or_default()),
    };
    if args.chat && !matches!(&prompts, Prompts::File { .. } | Prompts::Text(_)) {
        let message = "--prompt-ids: ids are taken as they are, without a template".into();
        return Err(BadInput { message, hint: Some("leave out --chat, or give text".into()) }.into());
    }
    let turn = if args.chat { Turn::User { system: args.system } } else { Turn::Beginning };
    Ok((prompts, turn))
}

/// The same for several models.
fn generate_together(args: GenerateArgs) -> Result<ensemble::Write> {
    let refused = [
        (args.alternatives > 0, "--alternatives", "use --explain"),
        (args.batch.is_some(), "--batch", "an ensemble writes one text at a time"),
        (args.no_steps, "--no-steps", "steps are recorded with --explain only"),
        (args.global.normalise != Normalisation::Local, "--normalise", "ensembles are normalised at every step"),
    ];
    if let Some((_, field, hint)) = refused.into_iter().find(|(given, ..)| *given) {
        let message = format!("{field}: not for an ensemble");
        return Err(BadInput { message, hint: Some(hint.into()) }.into());
    }
    let decoding = args.sampling.spec(0, 0.0);
    ensemble::Write::of(args.model.0, args.ask, decoding, &args.how, args.compute.into(), args.out, args.json)
}

pub(super) fn run_chat(args: ChatArgs, context: &Context<'_>) -> Result<()> {
    let temperature = if args.model.0.len() > 1 { 0.0 } else { 1.0 };
    let (compute, decoding) = (args.compute.into(), args.sampling.spec(0, temperature));
    let spec = ChatSpec { who: args.how.spec(args.model.0), system: args.system, decoding, compute };
    let mut chat = Chat::begin(spec, context)?;
    let interrupt = Interrupt::install()?;
    let is_terminal = io::stdin().is_terminal();
    if is_terminal {
        tell("/reset begins anew, /save FILE writes the conversation, /quit or Ctrl-D leaves; Ctrl-C stops a reply\n")?;
    }
    let mut line = String::new();
    loop {
        if is_terminal {
            tell("> ")?;
        }
        line.clear();
        if io::stdin().lock().read_line(&mut line).context("cannot read standard input")? == 0 {
            return if is_terminal { tell("\n") } else { Ok(()) };
        }
        let said = line.trim();
        match said.split_once(' ').map_or((said, ""), |(command, rest)| (command, rest.trim())) {
            ("", _) => {}
            ("/quit" | "/exit", _) => return Ok(()),
            ("/reset", _) => chat.reset(),
            ("/save", file) => save(&chat, file)?,
            (command, _) if command.starts_with('/') => {
                tell(&format!("{command} is no command: /reset, /save FILE, /quit\n"))?;
            }
            _ => answer(&mut chat, said, context, &interrupt)?,
        }
    }
}

/// The one model.
fn one(voices: Voices) -> Result<ModelReference> {
    voices.0.into_iter().next().context("no model is named")
}

/// Writes a reply. A turn that cannot be answered is said so, and the conversation goes on.
fn answer(chat: &mut Chat, said: &str, context: &Context<'_>, interrupt: &Interrupt) -> Result<()> {
    let mut stream = TextStream::new(io::stdout());
    let mut failed = None;
    interrupt.begin();
    let answered = chat.say(said, context, &mut |bytes| {
        if let Err(error) = stream.write(bytes) {
            failed = Some(error);
            return ControlFlow::Break(());
        }
        if interrupt.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    if let Some(error) = failed {
        return Err(error.into());
    }
    match answered {
        Ok(_) => {
            stream.finish()?;
            print("\n")
        }
        Err(error) if error.is_bad_input() => {
            let hint = error.hint().map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
            tell(&format!("error: {error}\n{hint}"))
        }
        Err(error) => Err(error.into()),
    }
}

/// Writes the conversation as JSON lines of role and content. What is wrong with the file is no reason to leave.
fn save(chat: &Chat, file: &str) -> Result<()> {
    if file.is_empty() {
        return tell("/save needs a file: /save talk.jsonl\n");
    }
    match chat.save(Path::new(file)) {
        Ok(turns) => tell(&format!("{turns} turns in {file}\n")),
        Err(error) => tell(&format!("error: {error}\n")),
    }
}

fn tell(text: &str) -> Result<()> {
    let mut out = io::stderr().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Ctrl-C: it stops a reply that is being written, and otherwise nothing.
struct Interrupt {
    pressed: Arc<AtomicBool>,
}

impl Interrupt {
    fn install() -> Result<Self> {
        let pressed = Arc::default();
        signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&pressed))
            .context("cannot listen for Ctrl-C")?;
        Ok(Self { pressed })
    }

    /// What was pressed before counts for nothing.
    fn begin(&self) {
        self.pressed.store(false, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.pressed.load(Ordering::Relaxed)
    }
}
