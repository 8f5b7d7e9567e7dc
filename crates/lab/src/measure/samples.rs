//! `lathe measure samples`: what a set of generated texts is like, and how two sets differ.

use std::path::{Path, PathBuf};

use lathe_measure::run::{Watch, readings};
use lathe_measure::samples::{
    Mauve, MauveOptions, Paired, Words, distinct, mauve, mean_pairwise_bleu, paired_difference, repetition, self_bleu,
};
use lathe_measure::statistics::bootstrap_mean;
use lathe_measure::{Estimate, Number, Reason};
use lathe_model::reference::ModelReference;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::documents::tokenise;
use crate::{Context, DataReference, Error, Loaded, load, read_documents};

/// What to measure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplesSpec {
    /// JSON lines with texts; with two files, records with the same index are a pair.
    pub sets: Vec<PathBuf>,
    /// Field that holds the text.
    #[serde(default = "text")]
    pub field: String,
    /// Texts that the sets should be like, for MAUVE.
    #[serde(default)]
    pub reference: Option<DataReference>,
    /// The model that gives log-likelihoods and the features of MAUVE.
    #[serde(default)]
    pub model: Option<ModelReference>,
    /// Tokens of a text that the model reads.
    #[serde(default = "most_tokens")]
    pub max_tokens: usize,
    /// Seed of intervals, clusters and permutations.
    #[serde(default)]
    pub seed: u64,
}

fn text() -> String {
    "text".into()
}

fn most_tokens() -> usize {
    512
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct SamplesResult {
    /// The sets, in order.
    pub sets: Vec<SampleSet>,
    /// The model of log-likelihoods and features.
    pub model: Option<String>,
    /// Tokens of a text that the model read at most.
    pub max_tokens: usize,
    /// Where the reference texts come from.
    pub reference: Option<String>,
    /// MAUVE of the two sets.
    pub between: Option<Mauve>,
    /// Second set minus first, number by number.
    pub paired: Vec<PairedNumber>,
}

/// A set of texts.
#[derive(Clone, Debug, Serialize)]
pub struct SampleSet {
    /// The file.
    pub file: PathBuf,
    /// Texts, empty ones included.
    pub texts: usize,
    /// Means over texts.
    pub means: Vec<NamedEstimate>,
    /// Numbers of the whole set.
    pub of_set: Vec<NamedEstimate>,
    /// MAUVE against the reference.
    pub mauve: Option<Mauve>,
}

/// A number with its name and unit.
#[derive(Clone, Debug, Serialize)]
pub struct NamedEstimate {
    /// What it is.
    pub name: String,
    /// Its unit.
    pub unit: &'static str,
    /// The number.
    #[serde(flatten)]
    pub estimate: Estimate,
}

/// The difference of two sets in one number.
#[derive(Clone, Debug, Serialize)]
pub struct PairedNumber {
    /// Which number.
    pub name: String,
    /// Its unit.
    pub unit: &'static str,
    /// The difference and its test.
    #[serde(flatten)]
    pub paired: Paired,
}

/// Numbers that a record may carry, as `lathe generate` writes them.
const RECORDED: [(&str, &str, &str); 3] = [
    ("tokens", "length as generated", "tokens"),
    ("log_p", "log p as generated", "nats"),
    ("log_weight", "log w", "nats"),
];

/// Measures sets of texts.
///
/// # Errors
/// A file cannot be read or has no texts; MAUVE without a model; sets that cannot be paired.
pub fn measure_samples(spec: &SamplesSpec, context: &Context<'_>) -> Result<SamplesResult, Error> {
    let bad = |field, problem: String, hint: &str| Err(Error::Spec { field, problem, hint: Some(hint.into()) });
    if !(1..=2).contains(&spec.sets.len()) {
        return bad("FILE", format!("{} sets", spec.sets.len()), "one to measure, or two to compare");
    }
    if spec.reference.is_some() && spec.model.is_none() {
        let problem = "MAUVE needs a model for its features".into();
        return bad("--reference", problem, "name one with --model, the same one for every number that is compared");
    }
    if spec.max_tokens < 2 {
        return bad("--max-tokens", format!("{} tokens leave nothing to predict", spec.max_tokens), "at least 2");
    }
    let sets = spec.sets.iter().map(|file| read(file, &spec.field)).collect::<Result<Vec<_>, _>>()?;
    let reference: Option<Vec<String>> = match &spec.reference {
        // As the sets are read: an empty text is a text.
        Some(DataReference::File(file)) if file.extension().is_some_and(|extension| extension == "jsonl") => {
            Some(read(file, &spec.field)?.into_iter().map(|record| record.text).collect())
        }
        Some(data) => Some(
            read_documents(std::slice::from_ref(data), &spec.field)?
                .into_iter()
                .map(|document| document.text)
                .collect(),
        ),
        None => None,
    };
    let loaded = spec.model.as_ref().map(|model| load(model, context)).transpose()?;
    let judge = loaded.as_ref().map(|loaded| Judge { loaded, max_tokens: spec.max_tokens, context });
    let read_by = |texts: &[&str]| judge.as_ref().map(|judge| judge.read(texts)).transpose();
    let mut measured = Vec::with_capacity(sets.len());
    for set in &sets {
        let texts: Vec<&str> = set.iter().map(|record| record.text.as_str()).collect();
        measured.push((numbers(set, &texts), read_by(&texts)?));
    }
    for (numbers, judged) in &mut measured {
        if let Some(judged) = judged {
            numbers.push(("log-likelihood", "nats per token", judged.log_likelihood.clone()));
        }
    }
    let reference_features = match &reference {
        Some(texts) => read_by(&texts.iter().map(String::as_str).collect::<Vec<_>>())?.map(|judged| judged.features),
        None => None,
    };
    let options = MauveOptions { clusters: None, seed: spec.seed };
    let mut results = Vec::with_capacity(sets.len());
    for ((set, file), (numbers, judged)) in sets.iter().zip(&spec.sets).zip(&measured) {
        let against = match (judged, &reference_features) {
            (Some(judged), Some(reference)) => Some(mauve(&judged.features, reference, options)?),
            _ => None,
        };
        let of_texts = numbers.iter().map(|(name, unit, values)| NamedEstimate {
            name: (*name).to_owned(),
            unit,
            estimate: bootstrap_mean(values, spec.seed),
        });
        results.push(SampleSet {
            file: file.clone(),
            texts: set.len(),
            means: of_texts.collect(),
            of_set: whole(&Words::of(set.iter().map(|record| record.text.as_str())), spec.seed),
            mauve: against,
        });
    }
    let mut between = None;
    let mut paired = Vec::new();
    if let [(first, a), (second, b)] = &measured[..] {
        if let (Some(a), Some(b)) = (a, b) {
            between = Some(mauve(&a.features, &b.features, options)?);
        }
        if sets[0].len() == sets[1].len() {
            for ((name, unit, a), (_, _, b)) in first.iter().zip(second) {
                paired.push(PairedNumber {
                    name: (*name).to_owned(),
                    unit,
                    paired: paired_difference(a, b, spec.seed),
                });
            }
        }
    }
    Ok(SamplesResult {
        sets: results,
        model: spec.model.as_ref().map(ToString::to_string),
        max_tokens: spec.max_tokens,
        reference: spec.reference.clone().map(String::from),
        between,
        paired,
    })
}

/// A text with the numbers of its record.
struct Record {
    text: String,
    recorded: [Number; RECORDED.len()],
}

fn read(file: &Path, field: &str) -> Result<Vec<Record>, Error> {
    let text = std::fs::read_to_string(file).map_err(|source| Error::Read { file: file.into(), source })?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let records = lines.map(|(index, line)| {
        let bad = |problem| Error::Record {
            file: file.into(),
            line: index + 1,
            problem,
            expected: "each line is one JSON object, as `lathe generate --out` writes it; `--field` names the text",
        };
        let record: Value = serde_json::from_str(line).map_err(|error| bad(format!("not valid JSON: {error}")))?;
        let Some(text) = record.get(field).and_then(Value::as_str) else {
            return Err(bad(format!("field `{field}` is missing or no string")));
        };
        let recorded = RECORDED.map(|(key, ..)| record.get(key).and_then(Value::as_f64).map_or(MISSING, Number::from));
        Ok(Record { text: text.to_owned(), recorded })
    });
    let records = records.collect::<Result<Vec<_>, _>>()?;
    if records.is_empty() {
        return Err(Error::NoText { file: file.into() });
    }
    Ok(records)
}

const MISSING: Number = Number::Undefined(Reason::NotGiven);

/// Name, unit and the value of every text.
type Column = (&'static str, &'static str, Vec<Number>);

fn numbers(set: &[Record], texts: &[&str]) -> Vec<Column> {
    let words = Words::of(texts.iter().copied());
    let of_words = |f: &dyn Fn(&[u32]) -> Number| words.texts.iter().map(|text| f(text)).collect::<Vec<_>>();
    let mut columns: Vec<Column> = vec![
        ("length", "words", of_words(&|text| Number::from(text.len() as f64))),
        ("repeated 4-grams", "share", of_words(&|text| repetition(text, 4))),
    ];
    for (index, (_, name, unit)) in RECORDED.into_iter().enumerate() {
        let values: Vec<Number> = set.iter().map(|record| record.recorded[index]).collect();
        if values.iter().any(|value| value.value().is_some()) {
            columns.push((name, unit, values));
        }
    }
    columns
}

fn whole(words: &Words, seed: u64) -> Vec<NamedEstimate> {
    let named = |name: &str, estimate| NamedEstimate { name: name.to_owned(), unit: "1", estimate };
    let mut numbers: Vec<NamedEstimate> =
        (1..=3).map(|n| named(&format!("distinct-{n}"), distinct(words, n))).collect();
    numbers.push(named("self-BLEU, against all others", self_bleu(words, seed)));
    numbers.push(named("BLEU, mean of pairs", mean_pairwise_bleu(words, seed)));
    numbers
}

/// A model that reads texts.
struct Judge<'a> {
    loaded: &'a Loaded,
    max_tokens: usize,
    context: &'a Context<'a>,
}

struct Judged {
    /// Mean log-likelihood of every text, nats per token.
    log_likelihood: Vec<Number>,
    /// Hidden state after the final norm of every text's last token.
    features: Vec<Vec<f32>>,
}

impl Judge<'_> {
    fn read(&self, texts: &[&str]) -> Result<Judged, Error> {
        let decoder = &self.loaded.decoder;
        let limit = self.max_tokens.min(decoder.spec().context_length);
        let tokenizer = self.loaded.tokenizer()?;
        let mut documents = texts.iter().map(|text| tokenise(tokenizer, text)).collect::<Result<Vec<_>, _>>()?;
        // A text without tokens is its end token.
        let end = tokenizer.special().eos.first().copied().unwrap_or(0);
        for document in &mut documents {
            document.ids.truncate(limit);
            if document.ids.is_empty() {
                document.ids.push(end);
            }
        }
        let watch = Watch { seconds: self.context.seconds, advance: &|by| self.context.progress.advance(by) };
        let tokens: usize = documents.iter().map(|document| document.ids.len()).sum();
        self.context.stage("reading", tokens as u64, "tokens", || {
            let texts = readings(decoder, &documents, watch)?;
            let (log_likelihood, features) = texts
                .into_iter()
                .map(|text| (Number::ratio(-text.nll, text.predicted as f64, Reason::NoTokens), text.last))
                .unzip();
            Ok(Judged { log_likelihood, features })
        })
    }
}
