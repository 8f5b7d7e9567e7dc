//! `lathe ensemble`, and ensembles wherever a model can stand: several models write one text.
//!
//! Which models, and how they write together, is an [`EnsembleSpec`]. The algorithms are in [`lathe_decode::ensemble`];
//! here models are loaded, prompts become each member's own tokens, and votes become records that a person can read.

mod determine;
mod page;
mod record;
mod write;

use std::fmt;

use lathe_decode::ensemble::{EndSymbol, Ensemble, GATED_BEYOND, Member, Method, Plan, Safe, unite};
use lathe_model::reference::ModelReference;
use lathe_tokenizer::{ByteVocabulary, Tokenizer, encode_continuation};
use serde::{Deserialize, Serialize};

use crate::generate::{DecodingSpec, EndTokens};
use crate::{Compute, Context, Error, Loaded, load};
pub use determine::{
    Criteria, Decision, DetermineResult, DetermineSpec, MAX_GAP_POINTS, MAX_LENGTH_RATIO, Verdict, determine,
};
pub use page::explain_page;
pub use record::{EnsembleString, StepRecord, VoteRecord};
pub use write::{EnsembleResult, EnsembleWriteSpec, Totals, write_together};

/// Which models write together, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnsembleSpec {
    /// The models, at least one. The first drafts where there is a gate, and its tokens are counted.
    pub members: Vec<ModelReference>,
    /// How their distributions become one.
    #[serde(default = "unite_as_recommended")]
    pub method: Method,
    /// λ by member; none weighs all alike.
    #[serde(default)]
    pub weights: Option<Vec<f64>>,
    /// Whether the first member writes alone where the others agree.
    #[serde(default)]
    pub gate: Gate,
}

fn unite_as_recommended() -> Method {
    Method::Unite(unite::Unite::default())
}

/// Whether the first member writes alone where the others agree.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// In texts that may have more than 32 tokens.
    Auto(Safe),
    /// Never.
    Off,
    /// Always.
    On(Safe),
}

impl Default for Gate {
    fn default() -> Self {
        Self::Auto(Safe::default())
    }
}

/// How a text is written, whoever writes it.
#[derive(Clone, Debug)]
pub(crate) struct Writing {
    /// 0 is greedy.
    pub(crate) temperature: f64,
    pub(crate) seed: u64,
    pub(crate) stops: Vec<String>,
    pub(crate) ends: EndSymbol,
    pub(crate) max_tokens: usize,
    /// Symbols whose votes are recorded.
    pub(crate) votes: usize,
}

impl Writing {
    /// Greedily, to the end symbol, without votes.
    pub(crate) fn greedy(max_tokens: usize, stops: &[String]) -> Self {
        let ends = EndSymbol::Counts;
        Self { temperature: 0.0, seed: 0, stops: stops.to_vec(), ends, max_tokens, votes: 0 }
    }

    /// What of one model's decoding has a meaning for several.
    ///
    /// # Errors
    /// A rule that cuts or changes one model's distribution, or counts its tokens.
    pub(crate) fn of(decoding: &DecodingSpec, votes: usize) -> Result<Self, Error> {
        let bad = |field, problem: &str, hint: &str| {
            Err(Error::Spec { field, problem: problem.to_owned(), hint: Some(hint.to_owned()) })
        };
        if decoding.sampling.truncation.is_some() {
            return bad("--top-k, --top-p, --min-p, --typical", "they cut one model's distribution", "unite has --k");
        }
        if decoding.sampling.repetition_penalty != 1.0 || decoding.sampling.presence_penalty != 0.0 {
            let problem = "penalties change one model's logits by its tokens";
            return bad("--repetition-penalty, --presence-penalty", problem, "leave them out");
        }
        if !decoding.stop_ids.is_empty() {
            return bad("--stop-ids", "the members have different tokens", "use --stop TEXT");
        }
        if decoding.min_tokens > 0 {
            return bad("--min-tokens", "the members have different tokens", "use --ignore-end");
        }
        Ok(Self {
            temperature: decoding.sampling.temperature,
            seed: decoding.seed,
            stops: decoding.stop.clone(),
            ends: if decoding.end_tokens == EndTokens::End { EndSymbol::Counts } else { EndSymbol::Excluded },
            max_tokens: decoding.max_tokens,
            votes,
        })
    }
}

impl EnsembleSpec {
    /// The plan for one text.
    pub(crate) fn plan(&self, writing: &Writing) -> Plan {
        let gate = match self.gate {
            Gate::Off => None,
            Gate::On(safe) => Some(safe),
            Gate::Auto(safe) => {
                let repeats_release =
                    matches!(self.method, Method::Unite(unite) if unite.append == unite::Append::PrimaryFirstToken);
                let applies = writing.max_tokens > GATED_BEYOND && writing.temperature == 0.0 && !repeats_release;
                (applies && self.members.len() > 1).then_some(safe)
            }
        };
        Plan {
            method: self.method,
            weights: self.weights.clone().unwrap_or_else(|| vec![1.0; self.members.len()]),
            gate,
            temperature: writing.temperature,
            seed: writing.seed,
            stops: writing.stops.clone(),
            ends: writing.ends,
            max_tokens: writing.max_tokens,
            votes: writing.votes,
        }
    }

    /// λ, with sum 1; all alike where none are given.
    pub(crate) fn normalised_weights(&self) -> Vec<f64> {
        let weights = self.weights.clone().unwrap_or_else(|| vec![1.0; self.members.len()]);
        let sum: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / sum).collect()
    }

    /// What does not need the models to be known as wrong.
    pub(crate) fn check(&self, writing: &Writing) -> Result<(), Error> {
        if self.members.is_empty() {
            let hint = Some("lathe ensemble smollm2 qwen2.5-coder-0.5b --prompt TEXT".into());
            return Err(Error::Spec { field: "MODEL", problem: "an ensemble needs models".into(), hint });
        }
        Ok(self.plan(writing).check(self.members.len())?)
    }
}

impl fmt::Display for EnsembleSpec {
    /// Members joined by `+`, then what is not as usual: `smollm2+gemma3-270m unite k=5`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members: Vec<String> = self.members.iter().map(ToString::to_string).collect();
        f.write_str(&members.join("+"))?;
        match self.method {
            Method::Unite(unite) => {
                write!(f, " unite k={}", unite.k)?;
                match unite.duplicates {
                    unite::Duplicates::Exclude => {}
                    unite::Duplicates::Keep => f.write_str(" keep")?,
                    unite::Duplicates::RepoZero => f.write_str(" repo-zero")?,
                }
                if unite.missing == unite::Missing::WholeString {
                    f.write_str(" exact")?;
                }
                if unite.append == unite::Append::PrimaryFirstToken {
                    f.write_str(" first-subtoken")?;
                }
            }
            Method::Gac => f.write_str(" gac")?,
            Method::Chared => f.write_str(" chared")?,
            Method::Bytes(covers) => write!(f, " bytes {}", lower(covers.mixture))?,
        }
        if let Some(weights) = &self.weights {
            let weights: Vec<String> = weights.iter().map(ToString::to_string).collect();
            write!(f, " λ={}", weights.join(","))?;
        }
        match self.gate {
            Gate::Auto(_) => Ok(()),
            Gate::Off => f.write_str(" no gate"),
            Gate::On(_) => f.write_str(" gated"),
        }
    }
}

fn lower(name: impl fmt::Debug) -> String {
    format!("{name:?}").to_lowercase()
}

/// The models of an ensemble, loaded, with their vocabularies as byte strings.
pub(crate) struct Members {
    pub(crate) loaded: Vec<Loaded>,
    vocabularies: Vec<ByteVocabulary>,
}

impl Members {
    /// Loads models; one that is named twice is loaded twice.
    pub(crate) fn load(references: &[ModelReference], compute: Compute, context: &Context<'_>) -> Result<Self, Error> {
        let within = compute.within(context)?;
        let loaded = references.iter().map(|reference| load(reference, &within)).collect::<Result<Vec<_>, _>>()?;
        let vocabulary = |loaded: &Loaded| byte_vocabulary(&loaded.reference, loaded.tokenizer()?);
        let vocabularies = loaded.iter().map(vocabulary).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { loaded, vocabularies })
    }

    /// Calls `f` with the ensemble of all members.
    pub(crate) fn with_all<T>(&self, context: &Context<'_>, f: impl FnOnce(&Ensemble<'_>) -> T) -> Result<T, Error> {
        let places: Vec<usize> = (0..self.loaded.len()).collect();
        self.with(&places, context, f)
    }

    /// Calls `f` with the ensemble of the members at these places.
    pub(crate) fn with<T>(
        &self,
        places: &[usize],
        context: &Context<'_>,
        f: impl FnOnce(&Ensemble<'_>) -> T,
    ) -> Result<T, Error> {
        type Spell<'a> = Box<dyn Fn(&[u8]) -> Option<Vec<u32>> + Sync + 'a>;
        let spellers = places.iter().map(|place| {
            let (tokenizer, vocabulary) = (self.loaded[*place].tokenizer()?, &self.vocabularies[*place]);
            let spell: Spell<'_> = Box::new(move |bytes: &[u8]| encode_continuation(tokenizer, vocabulary, bytes));
            Ok(spell)
        });
        let spellers = spellers.collect::<Result<Vec<_>, Error>>()?;
        let members = places.iter().zip(&spellers).map(|(place, spell)| Member {
            decoder: &self.loaded[*place].decoder,
            vocabulary: &self.vocabularies[*place],
            spell: &**spell,
        });
        let seconds = || (context.seconds)();
        Ok(f(&Ensemble::new(members.collect(), &seconds)))
    }

    /// Names of the members, short.
    pub(crate) fn names(references: &[ModelReference]) -> Vec<String> {
        let names: Vec<String> = references.iter().map(ToString::to_string).collect();
        crate::report::numbered_names(names.iter().map(String::as_str))
    }
}

/// A model's vocabulary as byte strings.
pub(crate) fn byte_vocabulary(reference: &ModelReference, tokenizer: &Tokenizer) -> Result<ByteVocabulary, Error> {
    ByteVocabulary::new(tokenizer).map_err(|error| Error::Spec {
        field: "MODEL",
        problem: format!("{reference}: {error}"),
        hint: error.hint(),
    })
}
