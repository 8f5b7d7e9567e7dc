//! Texts of an ensemble, to a listener or to a file that survives a kill.

use std::ops::ControlFlow;
use std::path::PathBuf;

use lathe_decode::ensemble::{Costs, Counts, Memory};
use serde::{Deserialize, Serialize};

use super::{EnsembleSpec, EnsembleString, Members, Writing, explain_page};
use crate::generate::{DecodingSpec, Heard, PROMPT_STRIDE, Prompts, Turn, encode_prompts, place, prompts_sha256};
use crate::load::fingerprint;
use crate::store::Store;
use crate::{Compute, Context, Error};

/// What an ensemble writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnsembleWriteSpec {
    /// Who writes, and how.
    pub ensemble: EnsembleSpec,
    /// What to go on from.
    pub prompts: Prompts,
    /// Whether a prompt is text to go on from or something to be answered, in each member's own chat template.
    #[serde(default)]
    pub turn: Turn,
    /// How a text is written. Rules that cut or change one model's distribution have no meaning for several.
    pub decoding: DecodingSpec,
    /// The arithmetic of the members.
    #[serde(default)]
    pub compute: Compute,
    /// Texts for each prompt.
    #[serde(default = "one")]
    pub samples: usize,
    /// Symbols whose votes are recorded at every step; 0 records no steps.
    #[serde(default)]
    pub explain: usize,
    /// The file to write; none hands the texts to the listener only.
    #[serde(default)]
    pub out: Option<PathBuf>,
    /// A page that shows who voted for what.
    #[serde(default)]
    pub page: Option<PathBuf>,
}

fn one() -> usize {
    1
}

/// What was written.
#[derive(Clone, Debug, Serialize)]
pub struct EnsembleResult {
    /// Who wrote.
    pub ensemble: String,
    /// The arithmetic of the members.
    pub compute: Compute,
    /// Prompts.
    pub prompts: usize,
    /// Texts.
    pub strings: usize,
    /// Texts that an earlier run had written.
    pub resumed: usize,
    /// Over all texts.
    pub totals: Totals,
    /// Seconds that texts were written by this run.
    pub seconds: f64,
    /// Where they went.
    pub costs: Costs,
    /// Tokens of the first member that this run wrote.
    pub tokens: usize,
    /// Milliseconds for each of them.
    pub ms_per_token: Costs,
    /// The files that were written.
    pub files: Vec<PathBuf>,
}

/// Sums over texts.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Totals {
    /// What happened.
    #[serde(flatten)]
    pub counts: Counts,
    /// Share of the symbols that all members chose together.
    pub ensembled_share: f64,
}

/// First line of a partial file: what texts depend on.
#[derive(Serialize)]
struct Head {
    lathe: &'static str,
    models_sha256: Vec<String>,
    prompts_sha256: Option<String>,
    spec: EnsembleWriteSpec,
}

/// Writes texts.
///
/// # Errors
/// A model, the prompts or an option cannot be used; the file cannot be written, or belongs to another run.
pub fn write_together(
    spec: &EnsembleWriteSpec,
    context: &Context<'_>,
    on: &mut dyn FnMut(Heard<'_, EnsembleString>) -> ControlFlow<()>,
) -> Result<EnsembleResult, Error> {
    let writing = writing(spec)?;
    spec.ensemble.check(&writing)?;
    let mut store: Store<EnsembleString> = Store::open(spec.out.as_deref(), || head(spec, context))?;
    let members = Members::load(&spec.ensemble.members, spec.compute, context)?;
    let encoded = members
        .loaded
        .iter()
        .map(|loaded| encode_prompts(&spec.prompts, &spec.turn, loaded))
        .collect::<Result<Vec<_>, _>>()?;
    let prompts = encoded[0].len();
    let all: Vec<u64> = (0..prompts as u64)
        .flat_map(|prompt| (0..spec.samples as u64).map(move |sample| prompt * PROMPT_STRIDE + sample))
        .collect();
    let missing: Vec<u64> = all.iter().copied().filter(|item| store.get(*item).is_none()).collect();
    let resumed = store.len();
    let plan = spec.ensemble.plan(&writing);
    let mut costs = Costs::default();
    let (written, seconds) = context.timed(|| {
        context.stage("writing", missing.len() as u64, "texts", || {
            members.with_all(context, |ensemble| {
                let mut memory = Memory::default();
                for &item in &missing {
                    let (prompt, sample) = place(item);
                    let prompts: Vec<Vec<u32>> = encoded.iter().map(|of| of[prompt].clone()).collect();
                    let text = ensemble.write(&plan, item, &prompts, &mut memory, &mut |_, bytes| {
                        on(Heard::Text { prompt, sample, bytes })
                    })?;
                    let text = text.ok_or(Error::Interrupted)?;
                    costs.forward += text.costs.forward;
                    costs.combine += text.costs.combine;
                    costs.spell += text.costs.spell;
                    let string = EnsembleString::of(prompt, sample, &text);
                    context.progress.advance(1);
                    let flow = on(Heard::String(&string));
                    store.put(item, string)?;
                    if flow.is_break() {
                        return Err(Error::Interrupted);
                    }
                }
                Ok(())
            })
        })
    });
    written??;
    let tokens = store.new_items().map(|string| string.tokens).sum();
    let strings: Vec<EnsembleString> =
        all.iter().map(|item| store.get(*item).cloned().ok_or(Error::Interrupted)).collect::<Result<_, _>>()?;
    let mut files: Vec<PathBuf> = spec.out.iter().cloned().collect();
    if let Some(page) = &spec.page {
        let names = Members::names(&spec.ensemble.members);
        let mut file = lathe_formats::NewFile::create(page)?;
        file.append(explain_page(&spec.ensemble.to_string(), &names, &strings).as_bytes())?;
        file.finish()?;
        files.push(page.clone());
    }
    let result = EnsembleResult {
        ensemble: spec.ensemble.to_string(),
        compute: spec.compute,
        prompts,
        strings: strings.len(),
        resumed,
        totals: Totals::of(strings.iter().map(|string| string.counts)),
        seconds,
        costs,
        tokens,
        ms_per_token: Costs {
            forward: 1000.0 * costs.forward / tokens.max(1) as f64,
            combine: 1000.0 * costs.combine / tokens.max(1) as f64,
            spell: 1000.0 * costs.spell / tokens.max(1) as f64,
        },
        files,
    };
    store.finish(&strings)?;
    Ok(result)
}

impl Totals {
    /// The sums.
    pub(crate) fn of(all: impl Iterator<Item = Counts>) -> Self {
        let mut counts = Counts::default();
        for of in all {
            counts.ensembled += of.ensembled;
            counts.alone += of.alone;
            counts.respelt += of.respelt;
            counts.silent += of.silent;
        }
        let symbols = counts.ensembled + counts.alone;
        Self { counts, ensembled_share: counts.ensembled as f64 / symbols.max(1) as f64 }
    }
}

fn head(spec: &EnsembleWriteSpec, context: &Context<'_>) -> Result<Head, Error> {
    let prompts_sha256 = prompts_sha256(&spec.prompts)?;
    let models_sha256 =
        spec.ensemble.members.iter().map(|model| fingerprint(model, context)).collect::<Result<_, _>>()?;
    // Names of files change no text.
    let spec = EnsembleWriteSpec { out: None, page: None, ..spec.clone() };
    Ok(Head { lathe: env!("CARGO_PKG_VERSION"), models_sha256, prompts_sha256, spec })
}

/// How texts are written.
fn writing(spec: &EnsembleWriteSpec) -> Result<Writing, Error> {
    let bad = |field, problem: &str, hint: &str| {
        Err(Error::Spec { field, problem: problem.to_owned(), hint: Some(hint.to_owned()) })
    };
    if spec.samples == 0 {
        return bad("--samples", "0 strings are nothing", "at least 1");
    }
    if spec.samples > 1 && spec.decoding.sampling.temperature == 0.0 {
        return bad("--samples", "greedy texts of one prompt are all the same", "add --temperature 1");
    }
    if matches!(spec.prompts, Prompts::Ids(_)) {
        return bad("--prompt-ids", "the members have different tokens", "give text: --prompt");
    }
    Writing::of(&spec.decoding, if spec.page.is_some() { spec.explain.max(VOTES_OF_PAGE) } else { spec.explain })
}

/// Votes that a page shows of every step at least.
const VOTES_OF_PAGE: usize = 8;
