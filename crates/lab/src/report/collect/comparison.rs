//! Whether models could be merged or ensembled: from parameter shapes and vocabularies, nothing is run.

use std::collections::BTreeMap;

use lathe_tokenizer::TokenBytes;

use crate::Loaded;
use crate::figure::{count, percent};
use crate::report::data::{Comparison, Feasibility, ModelPair, VocabularyOverlap};
use crate::report::short_name;
use crate::vocabulary::{self, Spelt};

/// Differences that are listed before the rest is only counted.
const LISTED: usize = 3;

/// What the comparison needs of a model after it is gone.
pub(super) struct Remains {
    name: String,
    family: String,
    /// Shape of every parameter.
    shapes: BTreeMap<String, Vec<usize>>,
    /// Every id of the tokenizer; none without a tokenizer.
    tokens: Option<Vec<Entry>>,
}

/// One entry of a vocabulary.
#[derive(PartialEq, Eq)]
struct Entry {
    /// What it contributes to a text.
    bytes: TokenBytes,
    /// How the file spells it.
    spelling: Option<String>,
}

impl Remains {
    pub(super) fn of(loaded: &Loaded) -> Self {
        let spec = loaded.decoder.spec();
        let tokens = loaded.tokenizer.as_ref().map(|tokenizer| {
            #[expect(clippy::cast_possible_truncation, reason = "token ids are u32")]
            let ids = 0..tokenizer.vocab_size() as u32;
            let entry =
                |id| Entry { bytes: tokenizer.token_bytes(id), spelling: tokenizer.token_str(id).map(str::to_owned) };
            ids.map(entry).collect()
        });
        Self {
            name: short_name(&loaded.reference.to_string()),
            family: spec.family.clone(),
            shapes: spec.parameters().into_iter().map(|parameter| (parameter.name, parameter.shape)).collect(),
            tokens,
        }
    }
}

/// Every pair; none for a single model.
pub(super) fn compare(models: &[Remains]) -> Option<Comparison> {
    if models.len() < 2 {
        return None;
    }
    let pairs = (0..models.len()).flat_map(|left| (left + 1..models.len()).map(move |right| (left, right)));
    let pairs = pairs.map(|(left, right)| {
        let (a, b) = (&models[left], &models[right]);
        let vocabulary = overlap(a, b);
        ModelPair { left, right, merge: merge(a, b), ensemble: ensemble(a, b, &vocabulary), vocabulary }
    });
    Some(Comparison { pairs: pairs.collect() })
}

fn merge(a: &Remains, b: &Remains) -> Feasibility {
    let mut reasons = Vec::new();
    if a.family != b.family {
        reasons.push(format!("the families differ: {} and {}", a.family, b.family));
    }
    reasons.extend(shape_differences(a, b));
    reasons.extend(tokenizer_difference(a, b));
    if !reasons.is_empty() {
        return Feasibility { possible: false, reasons };
    }
    let same = format!("same family, {} parameters of equal names and shapes", count(a.shapes.len() as u64));
    Feasibility { possible: true, reasons: vec![same, "every token id stands for the same bytes".to_owned()] }
}

/// The first differences of names and shapes, in the order of the names, and how many more there are.
fn shape_differences(a: &Remains, b: &Remains) -> Vec<String> {
    let names: Vec<&String> =
        a.shapes.keys().chain(b.shapes.keys().filter(|name| !a.shapes.contains_key(*name))).collect();
    let mut differences = names.into_iter().filter_map(|name| match (a.shapes.get(name), b.shapes.get(name)) {
        (Some(left), Some(right)) if left == right => None,
        (Some(left), Some(right)) => Some(format!("{name} is {} and {}", shape(left), shape(right))),
        (Some(_), None) => Some(format!("{} has no {name}", b.name)),
        (None, _) => Some(format!("{} has no {name}", a.name)),
    });
    let mut listed: Vec<String> = differences.by_ref().take(LISTED).collect();
    let more = differences.count() as u64;
    if more > 0 {
        listed.push(format!("{} more parameters differ", count(more)));
    }
    listed
}

fn shape(sizes: &[usize]) -> String {
    sizes.iter().map(|size| count(*size as u64)).collect::<Vec<_>>().join(" × ")
}

fn tokenizer_difference(a: &Remains, b: &Remains) -> Option<String> {
    let (Some(left), Some(right)) = (&a.tokens, &b.tokens) else {
        return match (&a.tokens, &b.tokens) {
            (None, None) => {
                Some("neither model has a tokenizer, so nothing says that their ids mean the same".to_owned())
            }
            _ => Some("one of the models has no tokenizer".to_owned()),
        };
    };
    let differ = left.iter().zip(right).filter(|(left, right)| left.bytes != right.bytes).count();
    let differ = (differ + left.len().abs_diff(right.len())) as u64;
    if differ == 0 {
        return None;
    }
    let ids = left.len().max(right.len()) as u64;
    Some(format!("the tokenizers differ: {} of {} ids do not stand for the same bytes", count(differ), count(ids)))
}

fn overlap(a: &Remains, b: &Remains) -> VocabularyOverlap {
    vocabulary::overlap(&spelt(a), &spelt(b))
}

fn spelt(model: &Remains) -> Spelt<'_> {
    let entries = model.tokens.iter().flatten();
    Spelt::of(entries.map(|entry| (entry.bytes.as_slice(), entry.spelling.as_deref())))
}

fn ensemble(a: &Remains, b: &Remains, vocabulary: &VocabularyOverlap) -> Feasibility {
    let impossible = |reason: &str| Feasibility { possible: false, reasons: vec![reason.to_owned()] };
    if a.tokens.is_none() || b.tokens.is_none() {
        return impossible("a model without a tokenizer has tokens that stand for nothing");
    }
    let Some(share) = vocabulary.share_by_bytes().finite().filter(|share| *share > 0.0) else {
        return impossible("no token of the one stands for the same bytes as a token of the other");
    };
    if tokenizer_difference(a, b).is_none() {
        let reason = "both have the same tokenizer, so their predictions are combined id by id";
        return Feasibility { possible: true, reasons: vec![reason.to_owned()] };
    }
    let reason = format!(
        "{} tokens stand for the same bytes in both, {} of the smaller vocabulary; the other tokens have to be spelled \
         with shorter ones",
        count(vocabulary.shared_bytes),
        percent(share),
    );
    Feasibility { possible: true, reasons: vec![reason] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(family: &str, width: usize, tokens: Option<&[&str]>) -> Remains {
        let bytes = |spelling: &&str| match spelling.strip_prefix('<') {
            Some(_) => TokenBytes::Control((*spelling).to_owned()),
            None => TokenBytes::Bytes(spelling.replace(['Ġ', '▁'], " ").into_bytes()),
        };
        let entry = |spelling: &&str| Entry { bytes: bytes(spelling), spelling: Some((*spelling).to_owned()) };
        Remains {
            name: format!("{family} of {width}"),
            family: family.to_owned(),
            shapes: [("a".to_owned(), vec![4, width]), ("b".to_owned(), vec![width])].into(),
            tokens: tokens.map(|tokens| tokens.iter().map(entry).collect()),
        }
    }

    fn pair(a: Remains, b: Remains) -> ModelPair {
        compare(&[a, b]).expect("two models").pairs.remove(0)
    }

    #[test]
    fn the_same_model_merges_with_itself() {
        let tokens: &[&str] = &["<end>", "a", "Ġb"];
        let found = pair(model("llama", 8, Some(tokens)), model("llama", 8, Some(tokens)));
        assert!(found.merge.possible && found.ensemble.possible);
        assert_eq!(found.vocabulary, VocabularyOverlap { left: 2, right: 2, shared_bytes: 2, shared_strings: 2 });
        assert!(compare(&[model("llama", 8, None)]).is_none());
    }

    #[test]
    fn every_difference_is_a_reason() {
        let found = pair(model("llama", 8, Some(&["<end>", "a", "Ġb"])), model("gemma", 9, Some(&["a", "▁b"])));
        let VocabularyOverlap { shared_bytes, shared_strings, .. } = found.vocabulary;
        assert_eq!((shared_bytes, shared_strings), (2, 1), "spaces are spelled in two ways");
        assert!(!found.merge.possible && found.ensemble.possible);
        let reasons = [
            "the families differ: llama and gemma",
            "a is 4 × 8 and 4 × 9",
            "b is 8 and 9",
            "the tokenizers differ: 3 of 3 ids do not stand for the same bytes",
        ];
        assert_eq!(found.merge.reasons, reasons);
    }

    #[test]
    fn parameters_of_one_model_only_are_differences() {
        let (short, mut long) = (model("llama", 8, None), model("llama", 8, None));
        for name in ["c", "d", "e", "f"] {
            long.shapes.insert(name.to_owned(), vec![1]);
        }
        let missing = |name: &str| format!("llama of 8 has no {name}");
        let mut expected = vec![missing("c"), missing("d"), missing("e"), "1 more parameters differ".to_owned()];
        expected.push("neither model has a tokenizer, so nothing says that their ids mean the same".to_owned());
        let found = pair(short, long);
        assert_eq!(found.merge.reasons, expected);
        assert!(!found.ensemble.possible);
    }

    #[test]
    fn vocabularies_without_a_common_token_cannot_be_ensembled() {
        let found = pair(model("llama", 8, Some(&["a"])), model("llama", 8, Some(&["b"])));
        assert!(!found.ensemble.possible);
    }
}
