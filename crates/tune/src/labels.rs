//! Examples, token ids with what is to be predicted, and the audit of a set of them before the first step.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

/// Token ids and a label for each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Example {
    /// Token ids.
    pub ids: Vec<u32>,
    /// What is to be predicted in the place of each token, from those before it; none is masked. The first one has
    /// nothing before it and never counts.
    pub labels: Vec<Option<u32>>,
}

impl Example {
    /// Every token is to be predicted.
    #[must_use]
    pub fn whole(ids: Vec<u32>) -> Self {
        let labels = ids.iter().copied().map(Some).collect();
        Self { ids, labels }
    }

    /// Tokens from `first` on are to be predicted.
    #[must_use]
    pub fn from_position(ids: Vec<u32>, first: usize) -> Self {
        let labels = ids.iter().enumerate().map(|(i, id)| (i >= first).then_some(*id)).collect();
        Self { ids, labels }
    }

    /// Row whose state predicts, and token: in order, rows from 0.
    pub fn targets(&self) -> impl Iterator<Item = (usize, u32)> + '_ {
        self.labels.iter().enumerate().skip(1).filter_map(|(i, label)| Some((i - 1, (*label)?)))
    }

    /// How many tokens are to be predicted.
    #[must_use]
    pub fn target_count(&self) -> usize {
        self.targets().count()
    }

    /// The first `most` tokens.
    fn cut(mut self, most: usize) -> Self {
        self.ids.truncate(most);
        self.labels.truncate(most);
        self
    }

    /// Pieces of at most `most` tokens; each later one begins with the last token of the one before it, as context, so
    /// that no prediction is lost.
    fn pieces(self, most: usize) -> Vec<Self> {
        let step = most.saturating_sub(1).max(1);
        let starts = (0..self.ids.len().saturating_sub(1).max(1)).step_by(step);
        let piece = |from: usize| {
            let to = self.ids.len().min(from + step + 1);
            Self { ids: self.ids[from..to].to_vec(), labels: self.labels[from..to].to_vec() }
        };
        starts.map(piece).collect()
    }
}

/// What becomes of an example that is longer than allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlong {
    /// Its end is cut off.
    #[default]
    Truncate,
    /// It becomes several examples.
    Split,
    /// It is left out.
    Drop,
}

/// What examples are made to fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens of an example at most.
    pub max_length: usize,
    /// What becomes of longer ones.
    pub overlong: Overlong,
    /// Tokens that end a text or a turn; none where they are not known.
    pub end_tokens: Option<Vec<u32>>,
}

/// What a set of examples is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Audit {
    /// Examples that will be trained on.
    pub examples: usize,
    /// Their tokens.
    pub tokens: u64,
    /// Tokens that are to be predicted.
    pub targets: u64,
    /// Share of the tokens that are not: prompts, and the first token of every example.
    pub masked_share: f64,
    /// Examples without an end token among what is to be predicted, as they will be trained on; none where end tokens are
    /// not known. Of an example that was split its last piece counts.
    pub without_end: Option<usize>,
    /// Examples that were longer than allowed: cut, split or left out.
    pub overlong: usize,
    /// Tokens that were cut off or left out with them.
    pub tokens_lost: u64,
    /// Examples equal to an earlier one, labels included. They are trained on.
    pub duplicates: usize,
    /// Examples that were left out because nothing in them is to be predicted.
    pub empty: usize,
    /// Tokens of the longest example, before any was cut.
    pub longest: usize,
}

impl Audit {
    /// What a reader should know before the first step, a sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let of = |count: usize, what: &str| format!("{count} of {} examples {what}", self.examples);
        let mut warnings = Vec::new();
        if let Some(count) = self.without_end.filter(|count| *count > 0) {
            warnings.push(of(count, "have no end token to predict: from these the model does not learn to stop"));
        }
        if self.overlong > 0 {
            let lost = self.tokens_lost;
            warnings.push(format!(
                "{} examples were longer than allowed; {lost} tokens of them are not read",
                self.overlong
            ));
        }
        if self.duplicates > 0 {
            warnings.push(of(self.duplicates, "repeat an earlier one"));
        }
        if self.empty > 0 {
            warnings.push(format!("{} examples were left out: nothing in them is to be predicted", self.empty));
        }
        warnings
    }
}

/// Makes examples fit and says what they are. Examples without a target are left out.
#[must_use]
pub fn prepare(examples: Vec<Example>, limits: &Limits) -> (Vec<Example>, Audit) {
    let mut audit = Audit { without_end: limits.end_tokens.as_ref().map(|_| 0), ..Audit::default() };
    let mut kept: Vec<Example> = Vec::with_capacity(examples.len());
    let most = limits.max_length.max(2);
    for example in examples {
        let len = example.ids.len();
        audit.longest = audit.longest.max(len);
        let pieces = if len <= most {
            vec![example]
        } else {
            audit.overlong += 1;
            match limits.overlong {
                Overlong::Truncate => {
                    audit.tokens_lost += (len - most) as u64;
                    vec![example.cut(most)]
                }
                Overlong::Split => example.pieces(most),
                Overlong::Drop => {
                    audit.tokens_lost += len as u64;
                    continue;
                }
            }
        };
        if let (Some(without), Some(ends)) = (&mut audit.without_end, &limits.end_tokens)
            && pieces.iter().any(|piece| piece.target_count() > 0)
            && !pieces.iter().any(|piece| piece.targets().any(|(_, id)| ends.contains(&id)))
        {
            *without += 1;
        }
        for piece in pieces {
            if piece.target_count() == 0 {
                audit.empty += 1;
            } else {
                kept.push(piece);
            }
        }
    }
    let mut seen = HashSet::with_capacity(kept.len());
    audit.duplicates = kept.iter().filter(|example| !seen.insert(*example)).count();
    audit.examples = kept.len();
    audit.tokens = kept.iter().map(|example| example.ids.len() as u64).sum();
    audit.targets = kept.iter().map(|example| example.target_count() as u64).sum();
    audit.masked_share = if audit.tokens == 0 { 0.0 } else { 1.0 - audit.targets as f64 / audit.tokens as f64 };
    (kept, audit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(max_length: usize, overlong: Overlong) -> Limits {
        Limits { max_length, overlong, end_tokens: Some(vec![0]) }
    }

    #[test]
    fn an_audit_counts_what_is_there() {
        let examples = vec![
            Example::from_position(vec![5, 6, 7, 0], 2),
            Example::from_position(vec![5, 6, 7, 0], 2),
            // The end is cut off.
            Example::whole(vec![1, 2, 3, 4, 5, 0]),
            // Nothing to predict: all is masked, or there is only a first token.
            Example::from_position(vec![1, 2], 2),
            Example::whole(vec![9]),
        ];
        let (kept, audit) = prepare(examples, &limits(5, Overlong::Truncate));
        assert_eq!(kept.len(), 3);
        let expected = Audit {
            examples: 3,
            tokens: 13,
            targets: 8,
            masked_share: 1.0 - 8.0 / 13.0,
            without_end: Some(1),
            overlong: 1,
            tokens_lost: 1,
            duplicates: 1,
            empty: 2,
            longest: 6,
        };
        assert_eq!(audit, expected);
        assert_eq!(audit.warnings().len(), 4);
        assert!(audit.warnings()[0].starts_with("1 of 3 examples have no end token"));
    }

    #[test]
    fn targets_are_predicted_by_the_row_before() {
        let example = Example { ids: vec![4, 5, 6], labels: vec![Some(9), None, Some(8)] };
        assert_eq!(example.targets().collect::<Vec<_>>(), [(1, 8)]);
        assert_eq!(Example::whole(vec![4, 5, 6]).targets().collect::<Vec<_>>(), [(0, 5), (1, 6)]);
    }

    #[test]
    fn long_examples_are_cut_split_or_left_out() {
        let long = || vec![Example::whole((1..=7).collect())];
        let ids = |overlong| {
            let (kept, audit) = prepare(long(), &limits(3, overlong));
            (kept.into_iter().map(|example| example.ids).collect::<Vec<_>>(), audit.tokens_lost)
        };
        assert_eq!(ids(Overlong::Truncate), (vec![vec![1, 2, 3]], 4));
        assert_eq!(ids(Overlong::Split), (vec![vec![1, 2, 3], vec![3, 4, 5], vec![5, 6, 7]], 0));
        assert_eq!(ids(Overlong::Drop), (vec![], 7));
    }

    proptest! {
        /// Splitting loses no prediction and invents none.
        #[test]
        fn pieces_predict_what_the_whole_predicts(len in 2usize..50, most in 2usize..12, masked in 0usize..50) {
            let ids: Vec<u32> = (0..len as u32).collect();
            let example = Example::from_position(ids, masked);
            let (kept, audit) = prepare(vec![example.clone()], &limits(most, Overlong::Split));
            let found: Vec<u32> = kept.iter().flat_map(|piece| piece.targets().map(|(_, id)| id)).collect();
            let expected: Vec<u32> = example.targets().map(|(_, id)| id).collect();
            prop_assert_eq!(found.len() as u64, audit.targets);
            prop_assert_eq!(found, expected);
            prop_assert!(kept.iter().all(|piece| piece.ids.len() <= most));
            for piece in &kept {
                for (row, id) in piece.targets() {
                    prop_assert_eq!(piece.ids[row] + 1, id);
                }
            }
        }
    }
}
