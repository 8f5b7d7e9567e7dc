//! Global normalisation of whole prompts: proposals from the store, a selection, the strings of the result.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lathe_decode::global::importance::Importance;
use lathe_decode::global::{Chosen, Imh, Population, Proposal, Rejection, Selection, smc};
use lathe_decode::{Ended, Request};
use serde::{Deserialize, Serialize};

use super::{
    Filter, GenerateSpec, GeneratedString, Heard, Listener, Normalise, PROMPT_STRIDE, PromptDiagnostics, Run, Store,
};
use crate::Error;
use crate::store::write_lines;

/// Strings and diagnostics of every prompt.
pub(super) fn select(
    run: &Run<'_>,
    store: &mut Store,
    on: &mut Listener<'_>,
) -> Result<(Vec<GeneratedString>, Vec<PromptDiagnostics>), Error> {
    let (mut strings, mut diagnostics) = (Vec::new(), Vec::new());
    for prompt in 0..run.prompts.len() {
        let selected = match run.spec.normalise {
            Normalise::Local => return Ok((strings, diagnostics)),
            Normalise::Rejection { draws } => rejection(run, prompt, draws, store, on)?,
            Normalise::Smc { resample_below } => population(run, prompt, resample_below, store)?,
            Normalise::Imh { .. } | Normalise::Sir { .. } => from_pool(run, prompt, store, on)?,
        };
        for string in &selected.strings {
            if on(Heard::String(string)).is_break() {
                return Err(Error::Interrupted);
            }
        }
        strings.extend(selected.strings);
        diagnostics.push(PromptDiagnostics {
            prompt,
            filtered: selected.filtered,
            resampled: selected.resampled,
            diagnostics: selected.selection.diagnostics,
        });
    }
    Ok((strings, diagnostics))
}

/// What to choose from strings that are written already.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelectSpec {
    /// Locally decoded strings, as [`generate`](super::generate) wrote them.
    pub pool: PathBuf,
    /// How: imh, sir or rejection.
    pub normalise: Normalise,
    /// Strings of the result for each prompt.
    pub samples: usize,
    /// Seed of the choice.
    #[serde(default)]
    pub seed: u64,
    /// The file to write.
    #[serde(default)]
    pub out: Option<PathBuf>,
}

/// What was chosen.
#[derive(Clone, Debug, Serialize)]
pub struct SelectResult {
    /// Strings of the result.
    pub strings: usize,
    /// For each prompt.
    pub diagnostics: Vec<PromptDiagnostics>,
}

/// Chooses globally normalised strings from locally decoded ones, by the weights on their record.
///
/// # Errors
/// The pool cannot be read or is too small; the file cannot be written.
pub fn select_from(spec: &SelectSpec) -> Result<SelectResult, Error> {
    let text = std::fs::read_to_string(&spec.pool).map_err(|source| Error::Read { file: spec.pool.clone(), source })?;
    let mut prompts: BTreeMap<usize, Vec<GeneratedString>> = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let string: GeneratedString = serde_json::from_str(line).map_err(|error| Error::Record {
            file: spec.pool.clone(),
            line: index + 1,
            problem: error.to_string(),
            expected: "each line is a string as `lathe generate --out` writes it",
        })?;
        prompts.entry(string.prompt).or_default().push(string);
    }
    let (mut strings, mut diagnostics) = (Vec::new(), Vec::new());
    for (prompt, pool) in &prompts {
        let selected = choose(&pool.iter().collect::<Vec<_>>(), spec.normalise, spec.samples, spec.seed)?;
        strings.extend(selected.strings);
        diagnostics.push(PromptDiagnostics {
            prompt: *prompt,
            filtered: selected.filtered,
            resampled: 0,
            diagnostics: selected.selection.diagnostics,
        });
    }
    if let Some(out) = &spec.out {
        write_lines(out, &strings)?;
    }
    Ok(SelectResult { strings: strings.len(), diagnostics })
}

/// Checks the sampler's numbers.
pub(super) fn check(spec: &GenerateSpec) -> Result<(), Error> {
    let bad = |field, problem: &str| Err(Error::Spec { field, problem: problem.into(), hint: None });
    match spec.normalise {
        Normalise::Local => {}
        Normalise::Imh { proposals, keep, supply, .. } => {
            Imh { chains: spec.samples, proposals, keep, supply }.check()?;
        }
        Normalise::Rejection { draws: 0 } => return bad("--max-draws", "0 draws accept nothing"),
        Normalise::Rejection { .. } => {}
        Normalise::Sir { proposals: 0 } => return bad("--proposals", "a pool of 0 strings is empty"),
        Normalise::Sir { .. } => {}
        Normalise::Smc { resample_below } => {
            Population { particles: spec.samples, resample_below }.check()?;
        }
    }
    Ok(())
}

struct Selected {
    selection: Selection,
    strings: Vec<GeneratedString>,
    filtered: usize,
    resampled: usize,
}

/// Chains and importance resampling: a pool of known size.
fn from_pool(run: &Run<'_>, prompt: usize, store: &mut Store, on: &mut Listener<'_>) -> Result<Selected, Error> {
    let spec = run.spec;
    let needed = match spec.normalise {
        Normalise::Imh { proposals, .. } => spec.samples * proposals,
        Normalise::Sir { proposals } => proposals,
        _ => 0,
    };
    // As many more as were left out, until there are enough; a model that writes no words gets an end.
    let mut drawn = 0;
    let mut missing = needed;
    while missing > 0 && drawn < 2 * needed {
        run.propose(&items(prompt, drawn..drawn + missing), store, on)?;
        drawn += missing;
        let kept = items(prompt, 0..drawn)
            .iter()
            .filter_map(|item| store.get(*item))
            .filter(|s| is_kept(s, spec.normalise))
            .count();
        missing = needed - kept;
    }
    let pool = items(prompt, 0..drawn);
    let pool: Vec<&GeneratedString> = pool.iter().filter_map(|item| store.get(*item)).collect();
    choose(&pool, spec.normalise, spec.samples, spec.decoding.seed)
}

/// Globally normalised strings from strings of local decoding of one prompt.
fn choose(pool: &[&GeneratedString], normalise: Normalise, samples: usize, seed: u64) -> Result<Selected, Error> {
    let prompt = pool.first().map_or(0, |string| string.prompt);
    let seed = seed.wrapping_add(prompt as u64);
    let kept: Vec<&GeneratedString> = pool.iter().copied().filter(|string| is_kept(string, normalise)).collect();
    let filtered = pool.len() - kept.len();
    let proposals: Vec<Proposal> = kept.iter().map(|string| proposal(string)).collect();
    let mut selection = match normalise {
        Normalise::Imh { proposals: each, keep, supply, .. } => {
            Imh { chains: samples, proposals: each, keep, supply }.select(&proposals, seed)?
        }
        Normalise::Sir { proposals: size } => Importance { proposals: size, samples }.select(&proposals, seed)?,
        Normalise::Rejection { draws } => {
            let mut rejection = Rejection::new(samples, seed);
            proposals.iter().take(draws).for_each(|proposal| {
                rejection.offer(*proposal);
            });
            rejection.finish()?
        }
        Normalise::Local | Normalise::Smc { .. } => {
            return Err(Error::Spec {
                field: "normalise",
                problem: "strings that are written already can be chosen from by imh, sir and rejection only".into(),
                hint: None,
            });
        }
    };
    if filtered > 0 {
        selection.diagnostics.warnings.push(format!(
            "{filtered} of {} strings had no letter or digit and were left out: both distributions are those of the others",
            pool.len()
        ));
    }
    let strings = chosen(&selection.chosen, prompt, |index| (kept[index].sample, kept[index].clone()));
    Ok(Selected { selection, strings, filtered, resampled: 0 })
}

/// Whether a string is left in.
fn is_kept(string: &GeneratedString, normalise: Normalise) -> bool {
    match normalise {
        Normalise::Imh { filter: Filter::Wordless, .. } => string.text.chars().any(char::is_alphanumeric),
        _ => true,
    }
}

/// Rejection: rounds of proposals until enough were accepted. The size of a round changes no string.
fn rejection(
    run: &Run<'_>,
    prompt: usize,
    draws: usize,
    store: &mut Store,
    on: &mut Listener<'_>,
) -> Result<Selected, Error> {
    let wanted = run.spec.samples;
    let seed = run.spec.decoding.seed.wrapping_add(prompt as u64);
    let mut rejection = Rejection::new(wanted, seed);
    let mut drawn = 0;
    while !rejection.is_complete() && drawn < draws {
        let round = wanted.max(run.writer.batch).min(draws - drawn);
        let items = items(prompt, drawn..drawn + round);
        run.propose(&items, store, on)?;
        items.iter().filter_map(|item| store.get(*item)).for_each(|string| {
            rejection.offer(proposal(string));
        });
        drawn += round;
    }
    let selection = rejection.finish()?;
    let pool = items(prompt, 0..drawn);
    let pool: Vec<&GeneratedString> = pool.iter().filter_map(|item| store.get(*item)).collect();
    let strings = chosen(&selection.chosen, prompt, |index| (index, pool[index].clone()));
    Ok(Selected { selection, strings, filtered: 0, resampled: 0 })
}

/// A population is one piece of work: what an interrupted run had of it is written again.
fn population(run: &Run<'_>, prompt: usize, resample_below: f64, store: &mut Store) -> Result<Selected, Error> {
    let population = Population { particles: run.spec.samples, resample_below };
    let request = Request { item: prompt as u64 * PROMPT_STRIDE, prompt: run.prompts[prompt].clone() };
    let progress = run.context.progress;
    let what = format!("writing {} texts together", population.particles);
    let outcome = run.context.stage(&what, run.decoding.max_tokens as u64, "steps", || {
        smc(&run.writer, run.decoding, &request, &population, &mut |_| progress.advance(1))
    })?;
    for particle in &outcome.particles {
        store.put(particle.item, run.string(particle))?;
    }
    let strings =
        chosen(&outcome.selection.chosen, prompt, |particle| (particle, run.string(&outcome.particles[particle])));
    Ok(Selected { selection: outcome.selection, strings, filtered: 0, resampled: outcome.resampled.len() })
}

fn items(prompt: usize, range: std::ops::Range<usize>) -> Vec<u64> {
    range.map(|sample| prompt as u64 * PROMPT_STRIDE + sample as u64).collect()
}

fn proposal(string: &GeneratedString) -> Proposal {
    Proposal { log_weight: string.log_weight, censored: string.ended == Ended::Length }
}

/// The strings of a selection; `find` gives the number of a proposal among those of its prompt, and its string.
fn chosen(chosen: &[Chosen], prompt: usize, find: impl Fn(usize) -> (usize, GeneratedString)) -> Vec<GeneratedString> {
    let is_repeated = chosen.iter().any(|chosen| chosen.run > 0);
    let strings = chosen.iter().enumerate().map(|(sample, chosen)| {
        let (proposal, string) = find(chosen.proposal);
        let run = is_repeated.then_some(chosen.run);
        GeneratedString { prompt, sample, proposal: Some(proposal), run, ..string }
    });
    strings.collect()
}
