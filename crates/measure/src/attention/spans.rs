//! The spans of a text, what is excluded, the uniform baseline and the control spans.

use std::collections::BTreeSet;
use std::ops::Range;

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::MeasureError;
use crate::measured::{Number, Reason};
use crate::statistics::item_generator;

/// Control spans per span.
pub const CONTROL_SPANS: usize = 100;

/// Candidates per control: 100 controls are drawn from the 200 nearest ones.
const CANDIDATES_PER_CONTROL: usize = 2;

/// Scattered controls are drawn from the nearest 4 |S| kept positions, at least 32.
const SCATTER_FACTOR: usize = 4;
const SCATTER_LEAST: usize = 32;

/// Attempts at drawing different scattered controls before giving up.
const SCATTER_ATTEMPTS: usize = 100 * CONTROL_SPANS;

/// Which keys a query of this layer can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyWindow {
    /// Itself and all before it.
    All,
    /// Itself and those before it, this many in all (4,096 in Mistral-7B-v0.1).
    Last(usize),
}

/// How the control spans of a span were found. In both cases excluded positions are stepped over and no
/// position of the span itself is used, so a control has as many kept positions as the span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlKind {
    /// [`CONTROL_SPANS`] different runs of consecutive kept positions, drawn from the 200 nearest to the span.
    Consecutive,
    /// Too few such runs: [`CONTROL_SPANS`] different sets of single kept positions near the span, drawn from
    /// the nearest four times its length, at least 32.
    Scattered,
    /// Too few of either; no percentile.
    None,
}

/// What a span would get without any preference, and what it is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpanBaseline {
    /// Tokens of the span.
    pub tokens: usize,
    /// Share under uniform causal attention, columns of X left out (0 to 1).
    pub share: Number,
    /// The row-renormalised share under uniform causal attention (0 to 1).
    pub renormalised_share: Number,
    /// Number of control spans: [`CONTROL_SPANS`] or 0.
    pub controls: usize,
    /// Where they come from.
    pub control_kind: ControlKind,
}

/// Spans and excluded positions of one text, checked, with baselines and controls. One plan serves all heads,
/// and all models that share the tokens and the window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SpanPlan {
    tokens: usize,
    /// 1 for a kept column and 0 for one in X; `[tokens]`.
    keep: Vec<f64>,
    /// Ascending positions.
    spans: Vec<Vec<usize>>,
    baselines: Vec<SpanBaseline>,
    /// `[spans][controls][positions]`
    controls: Vec<Vec<Vec<usize>>>,
    /// Uniform causal mass of position 0 over all mass.
    uniform_sink_share: Number,
}

impl SpanPlan {
    /// Plans `spans`, each a set of token positions, for a text of `tokens` tokens with the `excluded`
    /// positions X. The control spans of span s are drawn from (`seed`, s).
    ///
    /// # Errors
    /// An empty span; a position past the text (the text was cut), named twice in a span, or in X.
    pub fn new(
        tokens: usize,
        window: KeyWindow,
        excluded: &[usize],
        spans: &[Vec<usize>],
        seed: u64,
    ) -> Result<Self, MeasureError> {
        if let KeyWindow::Last(0) = window {
            return Err(MeasureError::Parameter { name: "attention window", value: 0.0, wanted: "1 or above" });
        }
        if let Some(&position) = excluded.iter().find(|&&position| position >= tokens) {
            return Err(MeasureError::ExcludedOutsideText { position, tokens });
        }
        for (span, positions) in spans.iter().enumerate() {
            check_span(span, positions, tokens, excluded)?;
        }
        let mut keep = vec![1.0; tokens];
        excluded.iter().for_each(|&position| keep[position] = 0.0);
        let mut spans = spans.to_vec();
        spans.iter_mut().for_each(|span| span.sort_unstable());

        let columns = uniform_columns(tokens, window);
        let mut baselines = Vec::with_capacity(spans.len());
        let mut controls = Vec::with_capacity(spans.len());
        for (index, span) in spans.iter().enumerate() {
            let (control_kind, sets) = control_spans(span, &keep, item_generator(seed, index as u64));
            let mass: f64 = span.iter().map(|&position| columns[position]).sum();
            let kept: f64 = columns.iter().zip(&keep).map(|(column, keep)| column * keep).sum();
            baselines.push(SpanBaseline {
                tokens: span.len(),
                share: Number::ratio(mass, kept, Reason::AllMassExcluded),
                renormalised_share: uniform_renormalised_share(span, &keep, window),
                controls: sets.len(),
                control_kind,
            });
            controls.push(sets);
        }
        let sink = columns.first().copied().unwrap_or(0.0);
        let uniform_sink_share = Number::ratio(sink, columns.iter().sum(), Reason::NoTokens);
        Ok(Self { tokens, keep, spans, baselines, controls, uniform_sink_share })
    }

    /// Tokens of the text.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The spans' positions, ascending.
    pub fn spans(&self) -> &[Vec<usize>] {
        &self.spans
    }

    /// Baseline and controls of each span.
    pub fn baselines(&self) -> &[SpanBaseline] {
        &self.baselines
    }

    /// The control spans of span `span`; empty when there are too few.
    pub fn controls(&self, span: usize) -> &[Vec<usize>] {
        &self.controls[span]
    }

    /// Share of position 0 under uniform causal attention (0 to 1).
    pub fn uniform_sink_share(&self) -> Number {
        self.uniform_sink_share
    }

    /// 1 for a kept column and 0 for one in X; `[tokens]`.
    pub(super) fn keep_weights(&self) -> &[f64] {
        &self.keep
    }
}

/// Positions of the tokens that share text with `span`, from each token's range in the same unit (bytes or
/// characters). A span is found by its place and never by its words, which may occur elsewhere too. Tokens
/// without text, such as the start token, are never part of it.
pub fn tokens_in_range(token_ranges: &[Range<usize>], span: Range<usize>) -> Vec<usize> {
    let shares_text = |token: &Range<usize>| token.start.max(span.start) < token.end.min(span.end);
    (0..token_ranges.len()).filter(|&position| shares_text(&token_ranges[position])).collect()
}

/// Whether the paper excludes a token of this vocabulary string: ' ( ) , - . : a lone space, and a space
/// followed by ( or ... or [...]. The space may be written ▁, Ġ or as itself. The start token, which the paper
/// excludes as well, is known by its id and left to the caller.
pub fn is_excluded_token(piece: &str) -> bool {
    let unspaced = piece.strip_prefix(['▁', 'Ġ', ' ']);
    match unspaced {
        Some(rest) => matches!(rest, "" | "(" | "..." | "[...]"),
        None => matches!(piece, "'" | "(" | ")" | "," | "-" | "." | ":"),
    }
}

fn check_span(span: usize, positions: &[usize], tokens: usize, excluded: &[usize]) -> Result<(), MeasureError> {
    if positions.is_empty() {
        return Err(MeasureError::EmptySpan { span });
    }
    let mut seen = BTreeSet::new();
    for &position in positions {
        if position >= tokens {
            return Err(MeasureError::SpanOutsideText { span, position, tokens });
        }
        if excluded.contains(&position) {
            return Err(MeasureError::SpanExcluded { span, position });
        }
        if !seen.insert(position) {
            return Err(MeasureError::RepeatedPosition { span, position });
        }
    }
    Ok(())
}

/// Mass that each key gets when every query spreads its attention evenly over the keys it sees.
fn uniform_columns(tokens: usize, window: KeyWindow) -> Vec<f64> {
    // up_to[i]: sum of the weights of the queries before i.
    let mut up_to = vec![0.0];
    for query in 0..tokens {
        up_to.push(up_to[query] + 1.0 / visible_keys(query, window).len() as f64);
    }
    let last_query = |key: usize| match window {
        KeyWindow::All => tokens,
        KeyWindow::Last(size) => tokens.min(key.saturating_add(size)),
    };
    (0..tokens).map(|key| up_to[last_query(key)] - up_to[key]).collect()
}

fn uniform_renormalised_share(span: &[usize], keep: &[f64], window: KeyWindow) -> Number {
    // kept_before[i], span_before[i]: kept positions and positions of the span before i.
    let mut kept_before = vec![0usize];
    kept_before.extend(keep.iter().scan(0, |kept, &keep| {
        *kept += usize::from(keep > 0.0);
        Some(*kept)
    }));
    let span_before = |end: usize| span.partition_point(|&position| position < end);
    let (mut sum, mut rows) = (0.0, 0.0);
    for query in 0..keep.len() {
        let keys = visible_keys(query, window);
        let kept = kept_before[keys.end] - kept_before[keys.start];
        if kept > 0 {
            sum += (span_before(keys.end) - span_before(keys.start)) as f64 / kept as f64;
            rows += 1.0;
        }
    }
    Number::ratio(sum, rows, Reason::AllMassExcluded)
}

fn visible_keys(query: usize, window: KeyWindow) -> Range<usize> {
    match window {
        KeyWindow::All => 0..query + 1,
        KeyWindow::Last(size) => (query + 1).saturating_sub(size)..query + 1,
    }
}

fn control_spans(span: &[usize], keep: &[f64], mut generator: ChaCha8Rng) -> (ControlKind, Vec<Vec<usize>>) {
    let kept: Vec<usize> = (0..keep.len()).filter(|&position| keep[position] > 0.0).collect();
    let in_span: Vec<bool> = kept.iter().map(|position| span.binary_search(position).is_ok()).collect();
    // Twice the middle of the span, counted in kept positions.
    let first = in_span.iter().position(|&inside| inside).unwrap_or(0);
    let last = in_span.iter().rposition(|&inside| inside).unwrap_or(0);
    let middle = first + last;

    let mut starts: Vec<usize> = (0..(kept.len() + 1).saturating_sub(span.len()))
        .filter(|&start| !in_span[start..start + span.len()].contains(&true))
        .collect();
    if starts.len() >= CONTROL_SPANS {
        starts.sort_by_key(|&start| (middle.abs_diff(2 * start + span.len() - 1), start));
        starts.truncate(CANDIDATES_PER_CONTROL * CONTROL_SPANS);
        let drawn = rand::seq::index::sample(&mut generator, starts.len(), CONTROL_SPANS);
        let run = |index: usize| kept[starts[index]..starts[index] + span.len()].to_vec();
        return (ControlKind::Consecutive, drawn.into_iter().map(run).collect());
    }

    let mut singles: Vec<usize> = (0..kept.len()).filter(|&index| !in_span[index]).collect();
    singles.sort_by_key(|&index| (middle.abs_diff(2 * index), index));
    singles.truncate((SCATTER_FACTOR * span.len()).max(SCATTER_LEAST));
    let mut sets = BTreeSet::new();
    if singles.len() > span.len() {
        for _ in 0..SCATTER_ATTEMPTS {
            let drawn = rand::seq::index::sample(&mut generator, singles.len(), span.len());
            let mut set: Vec<usize> = drawn.into_iter().map(|index| kept[singles[index]]).collect();
            set.sort_unstable();
            sets.insert(set);
            if sets.len() == CONTROL_SPANS {
                return (ControlKind::Scattered, sets.into_iter().collect());
            }
        }
    }
    (ControlKind::None, Vec::new())
}
