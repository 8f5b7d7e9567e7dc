//! `lathe generate`: strings from a model, locally or globally normalised, with the record of every draw.
//!
//! Finished strings are on disk before the next begin: they are appended to `OUT.partial`, whose first line is the spec.
//! A run that was killed goes on from there, and the same spec gives the same file however often it was interrupted; another
//! spec is refused. At the end the strings are put in order and the file gets its name.

mod global;
mod prompts;

use std::ops::ControlFlow;
use std::path::PathBuf;

use lathe_decode::global::{Diagnostics, Keep, Supply};
use lathe_decode::{DecodeError, Decoding, Ended, Event, Generation, Request, Sampling, Step, Stops, Writer};
use lathe_model::KvCache;
use lathe_model::reference::ModelReference;
use lathe_tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::load::fingerprint;
use crate::store;
use crate::{Compute, Context, Error, Loaded, load};
pub use global::{SelectResult, SelectSpec, select_from};
pub use prompts::{Prompts, Turn};
pub(crate) use prompts::{beginning, conversation, encode_prompt, encode_prompts, prompts_sha256, rendered};

/// What to write.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerateSpec {
    /// The model.
    pub model: ModelReference,
    /// What to go on from.
    pub prompts: Prompts,
    /// Whether a prompt is text to go on from or something to be answered.
    #[serde(default)]
    pub turn: Turn,
    /// How strings are written.
    pub decoding: DecodingSpec,
    /// The arithmetic that probabilities are computed in.
    #[serde(default)]
    pub compute: Compute,
    /// Where truncation is made up for.
    #[serde(default)]
    pub normalise: Normalise,
    /// Strings for each prompt.
    #[serde(default = "one")]
    pub samples: usize,
    /// Strings at once; none chooses by memory. No string depends on it.
    #[serde(default)]
    pub batch: Option<usize>,
    /// Whether records have every step.
    #[serde(default)]
    pub steps: StepRecords,
    /// The file to write; none hands the strings to the listener only.
    #[serde(default)]
    pub out: Option<PathBuf>,
}

fn one() -> usize {
    1
}

/// How strings are written: [`Decoding`] in the words of a user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DecodingSpec {
    /// How a token is drawn.
    pub sampling: Sampling,
    /// Texts that end a string.
    pub stop: Vec<String>,
    /// Ids that end a string.
    pub stop_ids: Vec<u32>,
    /// Whether the model's end tokens end a string.
    pub end_tokens: EndTokens,
    /// Tokens before which no string ends.
    pub min_tokens: usize,
    /// Tokens after which every string ends.
    pub max_tokens: usize,
    /// Most probable tokens to record for each step.
    pub alternatives: usize,
    /// Seed of all draws.
    pub seed: u64,
}

impl Default for DecodingSpec {
    fn default() -> Self {
        Self {
            sampling: Sampling::default(),
            stop: Vec::new(),
            stop_ids: Vec::new(),
            end_tokens: EndTokens::default(),
            min_tokens: 0,
            max_tokens: 256,
            alternatives: 0,
            seed: 0,
        }
    }
}

/// What the model's end tokens do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndTokens {
    /// They end a string.
    #[default]
    End,
    /// They are tokens like others.
    Ignore,
}

/// What a record says of its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepRecords {
    /// Every step.
    #[default]
    Every,
    /// Sums only.
    Sums,
}

/// Where truncation is made up for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "over", deny_unknown_fields)]
pub enum Normalise {
    /// At every step: ordinary truncated sampling.
    #[default]
    Local,
    /// Once over strings, by independent Metropolis–Hastings; one chain for each string of the result.
    Imh {
        /// N: strings of a chain.
        proposals: usize,
        /// Which states are the result.
        keep: Keep,
        /// Where a chain's strings come from.
        supply: Supply,
        /// Which strings are left out before.
        filter: Filter,
    },
    /// Once over strings, by exact rejection.
    Rejection {
        /// Strings of local decoding to draw at most for each prompt.
        draws: usize,
    },
    /// Once over strings, by importance resampling from a pool.
    Sir {
        /// Strings of the pool.
        proposals: usize,
    },
    /// Once over strings, by sequential Monte Carlo; the strings of the result are its particles.
    Smc {
        /// Share of the particles below which the effective sample size calls for resampling.
        resample_below: f64,
    },
}

/// Which strings are left out before chains are run. Leaving some out changes both distributions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// None.
    #[default]
    Nothing,
    /// Those without a letter or digit, as the paper does for BLEU's sake; more strings are drawn to make up for them.
    Wordless,
}

/// A string of the result: a JSON line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GeneratedString {
    /// Index of its prompt, from 0.
    pub prompt: usize,
    /// Which string of the prompt, from 0; with global normalisation the order of the result.
    pub sample: usize,
    /// Index among the strings of local decoding that it was chosen from; with global normalisation only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposal: Option<usize>,
    /// The bootstrap run that chose it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<usize>,
    /// The text; bytes that are no UTF-8 are replaced. The bytes themselves are in the steps.
    pub text: String,
    /// Tokens drawn, the end token included.
    pub tokens: usize,
    /// Why it ended.
    pub ended: Ended,
    /// Σ log p under the model, nats.
    pub log_p: f64,
    /// Σ log q under the truncated distributions, nats.
    pub log_q: f64,
    /// log w = Σ log m, nats.
    pub log_weight: f64,
    /// Every draw.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
}

/// What was written.
#[derive(Clone, Debug, Serialize)]
pub struct GenerateResult {
    /// The model.
    pub model: String,
    /// The arithmetic of every probability.
    pub compute: Compute,
    /// Prompts.
    pub prompts: usize,
    /// Strings of the result.
    pub strings: usize,
    /// Strings that an earlier run had written.
    pub resumed: usize,
    /// Tokens that were drawn by this run.
    pub tokens: usize,
    /// Share of the result that was cut by its length.
    pub censored: f64,
    /// Seconds that strings were written.
    pub seconds: f64,
    /// Strings at once.
    pub batch: usize,
    /// The file.
    pub out: Option<PathBuf>,
    /// Of global normalisation, for each prompt.
    pub diagnostics: Vec<PromptDiagnostics>,
}

/// How far the strings of one prompt can be trusted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PromptDiagnostics {
    /// The prompt.
    pub prompt: usize,
    /// Strings that a filter left out.
    pub filtered: usize,
    /// SMC: how often the population was resampled.
    pub resampled: usize,
    /// The numbers.
    #[serde(flatten)]
    pub diagnostics: Diagnostics,
}

/// What a listener hears. It may stop the run.
pub type Listener<'a> = dyn FnMut(Heard<'_, GeneratedString>) -> ControlFlow<()> + 'a;

/// What happens while strings are written.
#[derive(Debug)]
pub enum Heard<'a, S> {
    /// Bytes of a string that have become certain; locally normalised strings only.
    Text {
        /// Its prompt.
        prompt: usize,
        /// Which string of the prompt.
        sample: usize,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// A string of the result is complete: locally normalised ones as they end, the others after their selection.
    String(&'a S),
}

/// Strings by item.
pub(crate) type Store = store::Store<GeneratedString>;

/// What strings depend on: the first line of their partial file.
#[derive(Serialize)]
struct Head {
    lathe: &'static str,
    /// Of the model's files.
    model_sha256: String,
    /// Of the file of prompts.
    prompts_sha256: Option<String>,
    spec: GenerateSpec,
}

/// Items of one prompt: strings of local decoding have the numbers from `prompt · 2³²` on.
pub(crate) const PROMPT_STRIDE: u64 = 1 << 32;

/// Writes strings.
///
/// # Errors
/// The model, the prompts or the options cannot be used; the file cannot be written, or belongs to another run.
pub fn generate(spec: &GenerateSpec, context: &Context<'_>, on: &mut Listener<'_>) -> Result<GenerateResult, Error> {
    check(spec)?;
    let within = spec.compute.within(context)?;
    let store = Store::open(spec.out.as_deref(), || head(spec, context))?;
    let loaded = load(&spec.model, &within)?;
    write_strings(spec, &loaded, store, context, on)
}

fn head(spec: &GenerateSpec, context: &Context<'_>) -> Result<Head, Error> {
    let prompts_sha256 = prompts_sha256(&spec.prompts)?;
    let model_sha256 = fingerprint(&spec.model, context)?;
    // Neither batch nor name changes a string.
    let spec = GenerateSpec { batch: None, out: None, ..spec.clone() };
    Ok(Head { lathe: env!("CARGO_PKG_VERSION"), model_sha256, prompts_sha256, spec })
}

/// The same with a model that is loaded already.
pub(crate) fn write_strings(
    spec: &GenerateSpec,
    loaded: &Loaded,
    mut store: Store,
    context: &Context<'_>,
    on: &mut Listener<'_>,
) -> Result<GenerateResult, Error> {
    let tokenizer = loaded.tokenizer()?;
    let prompts = encode_prompts(&spec.prompts, &spec.turn, loaded)?;
    let decoding = decoding(spec, tokenizer);
    let bytes = |id: u32| tokenizer.token_bytes(id).as_slice().to_vec();
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0) + spec.decoding.max_tokens;
    let batch = spec.batch.unwrap_or_else(|| batch_by_memory(loaded, longest));
    let run = Run {
        spec,
        writer: Writer { decoder: &loaded.decoder, bytes: &bytes, batch },
        decoding: &decoding,
        prompts: &prompts,
        context,
    };
    let resumed = store.len();
    let (outcome, seconds) = context.timed(|| match spec.normalise {
        Normalise::Local => run.local(&mut store, on).map(|strings| (strings, Vec::new())),
        _ => global::select(&run, &mut store, on),
    });
    let (strings, diagnostics) = outcome?;
    let censored = strings.iter().filter(|string| string.ended == Ended::Length).count();
    let result = GenerateResult {
        model: spec.model.to_string(),
        compute: spec.compute,
        prompts: prompts.len(),
        strings: strings.len(),
        resumed,
        tokens: store.new_items().map(|string| string.tokens).sum(),
        censored: censored as f64 / strings.len().max(1) as f64,
        seconds,
        batch,
        out: spec.out.clone(),
        diagnostics,
    };
    store.finish(&strings)?;
    Ok(result)
}

/// What does not need the model to be known as wrong.
fn check(spec: &GenerateSpec) -> Result<(), Error> {
    let bad = |field, problem: String, hint: &str| Err(Error::Spec { field, problem, hint: Some(hint.to_owned()) });
    if spec.samples == 0 {
        return bad("--samples", "0 strings are nothing".into(), "at least 1");
    }
    if spec.samples as u64 >= PROMPT_STRIDE {
        return bad("--samples", format!("{} strings are too many", spec.samples), "split them over several seeds");
    }
    if spec.batch == Some(0) {
        return bad("--batch", "0 strings at once never end".into(), "at least 1");
    }
    let sampling = &spec.decoding.sampling;
    if spec.normalise != Normalise::Local && !sampling.truncation.is_some() && sampling.temperature != 0.0 {
        let problem = "without a truncation rule local and global decoding are the same".into();
        return bad("--normalise global", problem, "add --top-k, --top-p, --min-p or --typical");
    }
    // Ids of end tokens come from the tokenizer and need no check.
    Decoding { stops: Stops { strings: spec.decoding.stop.clone(), ..Stops::default() }, ..of(spec) }.check()?;
    global::check(spec)?;
    Ok(())
}

/// The options without the model's end tokens.
fn of(spec: &GenerateSpec) -> Decoding {
    let decoding = &spec.decoding;
    Decoding {
        sampling: decoding.sampling,
        stops: Stops { end_tokens: Vec::new(), ids: decoding.stop_ids.clone(), strings: decoding.stop.clone() },
        min_tokens: decoding.min_tokens,
        max_tokens: decoding.max_tokens,
        alternatives: decoding.alternatives,
        seed: decoding.seed,
    }
}

fn decoding(spec: &GenerateSpec, tokenizer: &Tokenizer) -> Decoding {
    let mut decoding = of(spec);
    if spec.decoding.end_tokens == EndTokens::End {
        decoding.stops.end_tokens.clone_from(&tokenizer.special().eos);
    }
    decoding
}

/// As many strings at once as their keys and values have room in a gigabyte, at most 64.
pub(crate) fn batch_by_memory(loaded: &Loaded, positions: usize) -> usize {
    const BYTES: usize = 1 << 30;
    const MOST: usize = 64;
    let spec = loaded.decoder.spec();
    let positions = positions.min(spec.context_length).max(1);
    (BYTES / (positions * KvCache::bytes_per_position(spec)).max(1)).clamp(1, MOST)
}

/// One run of the task.
struct Run<'a> {
    spec: &'a GenerateSpec,
    writer: Writer<'a>,
    decoding: &'a Decoding,
    /// Tokens of every prompt.
    prompts: &'a [Vec<u32>],
    context: &'a Context<'a>,
}

impl Run<'_> {
    /// The strings of local decoding, in order.
    fn local(&self, store: &mut Store, on: &mut Listener<'_>) -> Result<Vec<GeneratedString>, Error> {
        let all: Vec<u64> = (0..self.prompts.len() as u64)
            .flat_map(|prompt| (0..self.spec.samples as u64).map(move |sample| prompt * PROMPT_STRIDE + sample))
            .collect();
        self.propose(&all, store, on)?;
        all.iter().map(|item| store.get(*item).cloned().ok_or(Error::Interrupted)).collect()
    }

    /// Writes those of the items that the store lacks.
    fn propose(&self, items: &[u64], store: &mut Store, on: &mut Listener<'_>) -> Result<(), Error> {
        let missing: Vec<u64> = items.iter().copied().filter(|item| store.get(*item).is_none()).collect();
        let request = |item: u64| Request { item, prompt: self.prompts[(item / PROMPT_STRIDE) as usize].clone() };
        let mut failed = None;
        let is_local = self.spec.normalise == Normalise::Local;
        let write = || {
            let requests = missing.iter().copied().map(request);
            lathe_decode::generate(&self.writer, self.decoding, requests, &mut |event| {
                let flow = match event {
                    Event::Step { item, text, .. } if is_local => {
                        let (prompt, sample) = place(item);
                        on(Heard::Text { prompt, sample, bytes: text })
                    }
                    Event::Step { .. } => ControlFlow::Continue(()),
                    Event::Finished(generation) => {
                        self.context.progress.advance(1);
                        let string = self.string(&generation);
                        let flow = if is_local { on(Heard::String(&string)) } else { ControlFlow::Continue(()) };
                        match store.put(generation.item, string) {
                            Ok(()) => flow,
                            Err(error) => {
                                failed = Some(error);
                                ControlFlow::Break(())
                            }
                        }
                    }
                };
                if flow.is_break() && failed.is_none() {
                    failed = Some(Error::Interrupted);
                }
                flow
            })
        };
        self.context.stage("writing", missing.len() as u64, "texts", write)?;
        failed.map_or(Ok(()), Err)
    }

    fn string(&self, generation: &Generation) -> GeneratedString {
        let (prompt, sample) = place(generation.item);
        GeneratedString {
            prompt,
            sample,
            proposal: None,
            run: None,
            text: String::from_utf8_lossy(&generation.text).into_owned(),
            tokens: generation.steps.len(),
            ended: generation.ended.clone(),
            log_p: generation.log_p(),
            log_q: generation.log_q(),
            log_weight: generation.log_weight(),
            steps: if self.spec.steps == StepRecords::Every { generation.steps.clone() } else { Vec::new() },
        }
    }
}

/// Prompt and number of an item.
pub(crate) fn place(item: u64) -> (usize, usize) {
    ((item / PROMPT_STRIDE) as usize, (item % PROMPT_STRIDE) as usize)
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        match error {
            // One way to say what is wrong with an option, whoever noticed it.
            DecodeError::Option { field, problem, hint } => {
                Self::Spec { field, problem, hint: hint.map(str::to_owned) }
            }
            other => Self::Decode(other),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn specs_read_back_and_unknown_fields_are_refused() {
        let read = |text: &str| serde_json::from_str::<GenerateSpec>(text);
        let least = read(r#"{"model": "smollm2", "prompts": {"text": "a"}, "decoding": {"sampling": {"top_k": 5}}}"#);
        let spec = least.unwrap();
        assert_eq!((spec.samples, spec.normalise), (1, Normalise::Local));
        assert_eq!(spec.decoding.sampling.truncation.top_k, Some(5));
        assert_eq!(read(&serde_json::to_string(&spec).unwrap()).unwrap(), spec);
        for normalise in [
            Normalise::Imh {
                proposals: 3,
                keep: Keep::After(1),
                supply: Supply::Bootstrap(10),
                filter: Filter::Wordless,
            },
            Normalise::Smc { resample_below: 0.5 },
        ] {
            let spec = GenerateSpec { normalise, ..spec.clone() };
            assert_eq!(read(&serde_json::to_string(&spec).unwrap()).unwrap(), spec);
        }
        assert!(read(r#"{"model": "smollm2", "prompts": {"text": "a"}, "decoding": {"tempo": 1}}"#).is_err());
        let misspelt = r#"{"model": "smollm2", "prompts": {"text": "a"}, "decoding": {"sampling": {"topk": 5}}}"#;
        assert!(read(misspelt).is_err());
    }
}
