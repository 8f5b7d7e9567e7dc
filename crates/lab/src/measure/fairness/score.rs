//! Checkpoints on texts.

use std::collections::BTreeMap;

use lathe_measure::run::Document;
use lathe_measure::tokens::{
    Frequencies, TokenReport, TypeMean, frequency_levels, speed_by_frequency, token_losses, type_means,
};
use lathe_tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{CurvePoint, FairnessSpec, Run, RunFairness, RunSplit, Scored};
use crate::documents::{TextDocument, read_texts, tokenise};
use crate::load::{fingerprint, sha256_of_bytes};
use crate::measure::tokens::{Predicted, predicted, target_counts};
use crate::store::Store;
use crate::{Context, Error, Texts, load, open_model};

/// What came of scoring.
pub(super) struct ScoredRuns {
    /// Counts of training targets.
    pub(super) table: BTreeMap<u32, u64>,
    pub(super) training: Scored,
    pub(super) held_out: Option<Scored>,
    pub(super) runs: Vec<RunFairness>,
    pub(super) notes: Vec<String>,
    pub(super) seconds: f64,
}

/// A checkpoint that was scored.
#[derive(Clone, Serialize, Deserialize)]
struct Checkpoint {
    training: Split,
    held_out: Option<Split>,
    seconds: f64,
}

/// A checkpoint on one set of texts.
#[derive(Clone, Serialize, Deserialize)]
struct Split {
    /// Id, tokens, mean loss and share of hits of each type.
    types: Vec<(u32, u64, f64, Option<f64>)>,
    /// Averages with intervals, of the last checkpoint of a run.
    report: Option<TokenReport>,
}

/// A line of the file that is kept: what the checkpoint is, and what the tables say of it.
#[derive(Serialize)]
struct Line<'a> {
    name: String,
    #[serde(flatten)]
    checkpoint: &'a super::RunCheckpoint,
    training: &'a CurvePoint,
    held_out: Option<&'a CurvePoint>,
}

/// What finished checkpoints depend on.
#[derive(Serialize)]
struct Head {
    lathe: &'static str,
    models_sha256: Vec<String>,
    texts_sha256: String,
    spec: FairnessSpec,
}

/// Texts with the ids that one tokenizer gives them.
struct Reading {
    texts: Vec<TextDocument>,
    documents: Vec<Document>,
}

impl Reading {
    fn new(texts: Vec<TextDocument>, tokenizer: &Tokenizer) -> Result<Self, Error> {
        let documents = texts.iter().map(|text| tokenise(tokenizer, &text.text)).collect::<Result<_, _>>()?;
        Ok(Self { texts, documents })
    }

    fn tokens(&self) -> usize {
        self.documents.iter().map(|document| document.ids.len()).sum()
    }

    /// Whole texts with about `tokens` tokens in all, in the order of their SHA-256.
    fn part(self, tokens: Option<usize>) -> Self {
        let Some(tokens) = tokens else { return self };
        let mut pairs: Vec<_> = self.texts.into_iter().zip(self.documents).collect();
        pairs.sort_by_cached_key(|(text, _)| Sha256::digest(&text.text));
        let mut taken = 0;
        pairs.retain(|(_, document)| {
            let wanted = taken < tokens;
            taken += if wanted { document.ids.len() } else { 0 };
            wanted
        });
        let (texts, documents) = pairs.into_iter().unzip();
        Self { texts, documents }
    }

    fn scored(&self) -> Scored {
        Scored { texts: self.texts.len(), tokens: self.tokens() }
    }
}

pub(super) fn score(spec: &FairnessSpec, runs: &[Run], context: &Context<'_>) -> Result<ScoredRuns, Error> {
    if spec.tokens == Some(0) {
        let hint = Some("leave it out for all".into());
        return Err(Error::Spec { field: "--tokens", problem: "0 tokens leave nothing to predict".into(), hint });
    }
    let read = |texts: &Texts| read_texts(texts, context);
    let training = read(&spec.training)?;
    let held_out = spec.held_out.as_ref().map(read).transpose()?;
    let counted = spec.counts.as_ref().map(read).transpose()?;
    let mut store: Store<Checkpoint> = Store::open(spec.out.as_deref(), || {
        head(spec, [Some(&training), held_out.as_ref(), counted.as_ref()], context)
    })?;

    // The first model's tokenizer is everyone's: whether it is, is found out with each model.
    let first = &spec.checkpoints[0].model;
    let tokenizer = open_model(first, context)?.1.tokenizer()?;
    let mut notes = overlap(&training, held_out.as_deref());
    let training = context.stage("reading the texts", 0, "", || Reading::new(training, &tokenizer))?;
    let table = match counted {
        Some(texts) => target_counts(&Reading::new(texts, &tokenizer)?.documents),
        None => target_counts(&training.documents),
    };
    let training = training.part(spec.tokens);
    let held_out = held_out.map(|texts| Reading::new(texts, &tokenizer)).transpose()?;
    let held_out = held_out.map(|reading| reading.part(spec.tokens));

    let last: Vec<usize> = runs.iter().filter_map(|run| run.checkpoints.last().copied()).collect();
    let missing: Vec<usize> = (0..spec.checkpoints.len()).filter(|index| store.get(*index as u64).is_none()).collect();
    for (done, &index) in missing.iter().enumerate() {
        let reference = &spec.checkpoints[index].model;
        let loaded = load(reference, context)?;
        let own = loaded.tokenizer()?;
        let window = spec.window.min(loaded.decoder.spec().context_length);
        let mut seconds = 0.0;
        let mut split = |reading: &Reading, set: &str| {
            same_tokens(&tokenizer, own, reading, [&first.to_string(), &reference.to_string()])?;
            let what = format!("scoring checkpoint {} of {}, {set}", done + 1, missing.len());
            let Predicted { tokens, bytes, seconds: ran } =
                predicted(&what, &loaded, &reading.documents, window, context)?;
            seconds += ran;
            let types = type_means(&tokens)?;
            let report =
                last.contains(&index).then(|| token_losses(&tokens, &bytes, Frequencies::Table(&table), spec.seed));
            let types = types.into_iter().map(|(id, mean)| (id, mean.tokens, mean.nll, mean.accuracy)).collect();
            Ok::<_, Error>(Split { types, report: report.transpose()? })
        };
        let of_training = split(&training, "training texts")?;
        let of_held_out = held_out.as_ref().map(|reading| split(reading, "held-out texts")).transpose()?;
        store.put(index as u64, Checkpoint { training: of_training, held_out: of_held_out, seconds })?;
    }
    let checkpoint = |index: usize| {
        store.get(index as u64).ok_or_else(|| Error::Spec {
            field: "checkpoints",
            problem: "one was not scored".into(),
            hint: None,
        })
    };
    let seconds =
        (0..spec.checkpoints.len()).map(|index| Ok(checkpoint(index)?.seconds)).sum::<Result<f64, Error>>()?;
    let mut measured = Vec::with_capacity(runs.len());
    for run in runs {
        let found = run.checkpoints.iter().map(|index| checkpoint(*index)).collect::<Result<Vec<_>, _>>()?;
        let steps: Vec<Option<u64>> = run.checkpoints.iter().map(|index| spec.checkpoints[*index].step).collect();
        let of_training = run_split(&steps, found.iter().map(|of| Some(&of.training)), &table)?;
        let of_held_out = run_split(&steps, found.iter().map(|of| of.held_out.as_ref()), &table)?;
        let model = run.checkpoints.last().map_or(String::new(), |index| spec.checkpoints[*index].model.to_string());
        measured.push(RunFairness {
            name: run.name(),
            variant: run.variant.clone(),
            weight_decay: run.weight_decay,
            seed: run.seed,
            step: steps.last().copied().flatten(),
            model,
            training: of_training.ok_or_else(|| Error::Spec {
                field: "checkpoints",
                problem: format!("{} has no last checkpoint", run.name()),
                hint: None,
            })?,
            held_out: of_held_out,
        });
    }
    notes.extend(uneven(&measured));
    if spec.out.is_some() {
        store.finish_by(|target| crate::store::write_lines(target, &lines(spec, runs, &measured)))?;
    }
    Ok(ScoredRuns {
        table,
        training: training.scored(),
        held_out: held_out.as_ref().map(Reading::scored),
        runs: measured,
        notes,
        seconds,
    })
}

fn lines<'a>(spec: &'a FairnessSpec, runs: &[Run], measured: &'a [RunFairness]) -> Vec<Line<'a>> {
    let mut lines = Vec::with_capacity(spec.checkpoints.len());
    for (run, of) in runs.iter().zip(measured) {
        for (place, index) in run.checkpoints.iter().enumerate() {
            lines.push(Line {
                name: of.name.clone(),
                checkpoint: &spec.checkpoints[*index],
                training: &of.training.curve[place],
                held_out: of.held_out.as_ref().map(|split| &split.curve[place]),
            });
        }
    }
    lines
}

/// The checkpoints of a run on one set of texts; none where it was not scored.
fn run_split<'a>(
    steps: &[Option<u64>],
    splits: impl Iterator<Item = Option<&'a Split>>,
    table: &BTreeMap<u32, u64>,
) -> Result<Option<RunSplit>, Error> {
    let Some(splits) = splits.collect::<Option<Vec<&Split>>>() else { return Ok(None) };
    let Some(report) = splits.last().and_then(|split| split.report.clone()) else { return Ok(None) };
    let of_type = |(id, tokens, nll, accuracy): &(u32, u64, f64, Option<f64>)| {
        (*id, TypeMean { tokens: *tokens, nll: *nll, accuracy: *accuracy })
    };
    let means: Vec<BTreeMap<u32, TypeMean>> =
        splits.iter().map(|split| split.types.iter().map(of_type).collect()).collect();
    let curve = steps.iter().zip(&means);
    let curve = curve.map(|(step, means)| CurvePoint { step: *step, levels: frequency_levels(means, table) }).collect();
    let steps: Option<Vec<u64>> = steps.iter().copied().collect();
    let speed = match steps {
        Some(steps) if steps.len() > 1 && steps[0] == 0 => Some(speed_by_frequency(&steps, &means, table)?),
        _ => None,
    };
    Ok(Some(RunSplit { report, curve, speed }))
}

fn head(spec: &FairnessSpec, texts: [Option<&Vec<TextDocument>>; 3], context: &Context<'_>) -> Result<Head, Error> {
    let models = spec.checkpoints.iter().map(|checkpoint| fingerprint(&checkpoint.model, context));
    let mut all = Vec::new();
    for texts in texts {
        // Lengths tell one list of texts from another with the same characters.
        let texts = texts.map(|texts| texts.iter().map(|text| &text.text).collect::<Vec<_>>());
        all.extend(serde_json::to_vec(&texts)?);
    }
    Ok(Head {
        lathe: env!("CARGO_PKG_VERSION"),
        models_sha256: models.collect::<Result<_, _>>()?,
        texts_sha256: sha256_of_bytes(&all),
        spec: FairnessSpec { out: None, page: None, ..spec.clone() },
    })
}

/// Types are ids of one vocabulary: every model must read the texts as the first one does.
fn same_tokens(first: &Tokenizer, own: &Tokenizer, reading: &Reading, names: [&str; 2]) -> Result<(), Error> {
    let refuse = |what: String| {
        let hint = "token types are ids of one vocabulary; compare models of several tokenizers with `bits per byte` of \
                    `lathe measure tokens MODEL DATA`";
        Error::Spec {
            field: "checkpoints",
            problem: format!("{} and {} have different tokenizers: {what}", names[0], names[1]),
            hint: Some(hint.into()),
        }
    };
    if first.vocab_size() != own.vocab_size() {
        return Err(refuse(format!("{} and {} tokens", first.vocab_size(), own.vocab_size())));
    }
    for id in 0..first.vocab_size() as u32 {
        let [a, b] = [first, own].map(|tokenizer| tokenizer.token_str(id).unwrap_or_default());
        if a != b {
            return Err(refuse(format!("token {id} is {a:?} and {b:?}")));
        }
    }
    for (text, document) in reading.texts.iter().zip(&reading.documents) {
        if tokenise(own, &text.text)?.ids != document.ids {
            return Err(refuse(format!("they cut {} in different places", text.name)));
        }
    }
    Ok(())
}

/// Says where a held-out text is a training text.
fn overlap(training: &[TextDocument], held_out: Option<&[TextDocument]>) -> Vec<String> {
    let known: std::collections::BTreeSet<&str> = training.iter().map(|text| text.text.as_str()).collect();
    let both = held_out.iter().flat_map(|texts| texts.iter()).filter(|text| known.contains(text.text.as_str())).count();
    match both {
        0 => Vec::new(),
        _ => vec![format!("{both} of the held-out texts are training texts too, so they are not held out.")],
    }
}

/// Says where runs cannot be compared at their ends.
fn uneven(runs: &[RunFairness]) -> Vec<String> {
    let mut notes = Vec::new();
    let mut lasts: Vec<Option<u64>> = runs.iter().map(|run| run.step).collect();
    lasts.sort_unstable();
    lasts.dedup();
    if lasts.len() > 1 {
        notes.push(
            "The last checkpoints of the runs are of different steps: their losses are not those of equal training."
                .into(),
        );
    }
    let without = runs.iter().filter(|run| run.training.speed.is_none()).count();
    if without > 0 && lasts.iter().any(Option::is_some) {
        notes.push(format!(
            "{without} of {} runs have no learning speed: it needs a checkpoint of step 0 and a later one.",
            runs.len()
        ));
    }
    notes
}
