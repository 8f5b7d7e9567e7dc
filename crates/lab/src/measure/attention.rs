//! `lathe measure attention`: how much attention the heads of a model give to a span of text.

use std::ops::Range;
use std::path::PathBuf;

use lathe_measure::Number;
use lathe_measure::attention::{
    HeadComparison, HeadDistribution, HeadGrid, HeadReport, LayerMean, SpanBaseline, SpanPlan, SpanShare,
    compare_heads, head_distribution, is_excluded_token, layer_means, tokens_in_range,
};
use lathe_measure::run::{attention_of_text, key_window};
use lathe_model::reference::ModelReference;
use lathe_tokenizer::{BosEos, Markup, Tokenizer};
use serde::{Deserialize, Serialize};

use super::COMPUTE_TYPE;
use crate::load::Loaded;
use crate::{Context, Error, load};

/// What to measure.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionSpec {
    /// The model.
    pub model: ModelReference,
    /// A second model of the same lineage: its difference from the first is reported per head.
    pub against: Option<ModelReference>,
    /// Texts and spans.
    pub spans: SpanSource,
    /// Seed of the control spans.
    pub seed: u64,
}

/// Where spans come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpanSource {
    /// A text and a part of it, which must occur exactly once.
    Quote {
        /// The text.
        text: String,
        /// The part.
        span: String,
    },
    /// JSON lines of [`SpanInput`].
    File(PathBuf),
}

/// A text with one span, by character offsets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpanInput {
    /// For tables; the line number when missing.
    #[serde(default)]
    pub name: Option<String>,
    /// The text.
    pub text: String,
    /// First character of the span, from 0.
    pub start: usize,
    /// Character after the span.
    pub end: usize,
}

/// Attention on spans.
#[derive(Clone, Debug, Serialize)]
pub struct AttentionResult {
    /// The model.
    pub model: String,
    /// The second model.
    pub against: Option<String>,
    /// Type of the forward pass; sums are f64.
    pub compute_type: &'static str,
    /// Seed of the control spans.
    pub seed: u64,
    /// One for each text.
    pub spans: Vec<SpanResult>,
}

/// One span of one text.
#[derive(Clone, Debug, Serialize)]
pub struct SpanResult {
    /// Its name.
    pub name: String,
    /// Tokens of the text, start tokens included.
    pub tokens: usize,
    /// Token positions of the span.
    pub positions: Vec<usize>,
    /// Token positions left out of every sum: punctuation and start tokens.
    pub excluded: Vec<usize>,
    /// Baseline of layers without a window.
    pub baseline: SpanBaseline,
    /// Every head.
    pub heads: Vec<HeadRow>,
    /// The span's share over all heads.
    pub distribution: HeadDistribution,
    /// Mean share of each layer.
    pub layers: Vec<LayerMean>,
    /// The second model against the first.
    pub comparison: Option<Comparison>,
}

/// One head.
#[derive(Clone, Debug, Serialize)]
pub struct HeadRow {
    /// Layer, from 0.
    pub layer: usize,
    /// Query head, from 0.
    pub head: usize,
    /// Share of all attention on the first position.
    pub sink_share: Number,
    /// The span's shares.
    #[serde(flatten)]
    pub span: SpanShare,
}

/// Differences of the second model from the first, head by head.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Differences of the share.
    pub share: HeadComparison,
    /// Differences of the row-renormalised share.
    pub renormalised: HeadComparison,
}

/// Measures attention on spans.
///
/// # Errors
/// A model or the spans cannot be read; a span is empty, ambiguous or nothing but excluded tokens; the two models
/// have different tokens or heads.
pub fn measure_attention(spec: &AttentionSpec, context: &Context<'_>) -> Result<AttentionResult, Error> {
    let inputs = read_spans(&spec.spans)?;
    let first = load(&spec.model, context)?;
    let mut plans = Vec::new();
    for (name, text, span) in &inputs {
        plans.push(TextPlan::new(&first, name, text, span.clone(), spec.seed)?);
    }
    let heads = run(&first, &plans, context)?;
    drop(first);
    let second = match &spec.against {
        None => None,
        Some(reference) => {
            let second = load(reference, context)?;
            for (plan, (_, text, _)) in plans.iter().zip(&inputs) {
                let ids = second.tokenizer()?.encode(text, BosEos::Add, Markup::Text)?;
                if ids != plan.ids {
                    return Err(Error::Spec {
                        field: "--against",
                        problem: format!("`{reference}` cuts the text into other tokens than `{}`", spec.model),
                        hint: Some("heads are compared between models of one lineage, which share a tokenizer".into()),
                    });
                }
            }
            if second.decoder.spec().layers.len() != heads.first().map_or(0, Vec::len) {
                return Err(Error::Spec {
                    field: "--against",
                    problem: format!("`{reference}` has another number of layers than `{}`", spec.model),
                    hint: None,
                });
            }
            Some(run(&second, &plans, context)?)
        }
    };
    let spans = plans
        .into_iter()
        .zip(&heads)
        .enumerate()
        .map(|(i, (plan, heads))| plan.result(heads, second.as_ref().map(|second| &second[i])))
        .collect::<Result<_, _>>()?;
    Ok(AttentionResult {
        model: spec.model.to_string(),
        against: spec.against.as_ref().map(ToString::to_string),
        compute_type: COMPUTE_TYPE,
        seed: spec.seed,
        spans,
    })
}

type Heads = Vec<Vec<HeadReport>>;

fn run(loaded: &Loaded, plans: &[TextPlan], context: &Context<'_>) -> Result<Vec<Heads>, Error> {
    context.stage(&format!("attention of {}", loaded.reference), plans.len() as u64, "texts", || {
        plans
            .iter()
            .map(|plan| {
                let text = attention_of_text(&loaded.decoder, &plan.ids, &plan.layers)?;
                context.progress.advance(1);
                Ok(text.heads)
            })
            .collect()
    })
}

/// One text, cut into tokens, with the plan of every layer.
struct TextPlan {
    name: String,
    ids: Vec<u32>,
    excluded: Vec<usize>,
    layers: Vec<SpanPlan>,
    /// Of layers without a window.
    whole: SpanPlan,
}

impl TextPlan {
    fn new(loaded: &Loaded, name: &str, text: &str, span: Range<usize>, seed: u64) -> Result<Self, Error> {
        let tokenizer = loaded.tokenizer()?;
        let tokens = tokenizer.encode_with_offsets(text, BosEos::Add, Markup::Text)?;
        let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
        let excluded: Vec<usize> =
            (0..tokens.len()).filter(|i| tokens[*i].bytes.is_none() || is_excluded(tokenizer, tokens[*i].id)).collect();
        let ranges: Vec<Range<usize>> = tokens.iter().map(|token| token.bytes.clone().unwrap_or(0..0)).collect();
        let mut positions = tokens_in_range(&ranges, span);
        positions.retain(|position| !excluded.contains(position));
        if positions.is_empty() {
            return Err(Error::Spec {
                field: "--span",
                problem: format!("{name}: no token of the span is left"),
                hint: Some("punctuation and start tokens are left out of every sum; choose a span with words".into()),
            });
        }
        let plan =
            |window| SpanPlan::new(ids.len(), key_window(window), &excluded, std::slice::from_ref(&positions), seed);
        let layers =
            loaded.decoder.spec().layers.iter().map(|layer| plan(layer.attention.window)).collect::<Result<_, _>>()?;
        Ok(Self { name: name.into(), layers, whole: plan(None)?, excluded, ids })
    }

    fn result(self, heads: &Heads, second: Option<&Heads>) -> Result<SpanResult, Error> {
        let share = |span: &SpanShare| span.share;
        let renormalised = |span: &SpanShare| span.renormalised_share;
        let comparison = second
            .map(|second| {
                Ok::<_, Error>(Comparison {
                    share: compare_heads(&grid(heads, share), &grid(second, share))?,
                    renormalised: compare_heads(&grid(heads, renormalised), &grid(second, renormalised))?,
                })
            })
            .transpose()?;
        let shares = grid(heads, share);
        let rows = heads.iter().enumerate().flat_map(|(layer, heads)| {
            heads.iter().enumerate().map(move |(head, report)| HeadRow {
                layer,
                head,
                sink_share: report.sink_share,
                span: report.spans[0],
            })
        });
        Ok(SpanResult {
            name: self.name,
            tokens: self.ids.len(),
            positions: self.whole.spans()[0].clone(),
            excluded: self.excluded,
            baseline: self.whole.baselines()[0],
            heads: rows.collect(),
            distribution: head_distribution(&shares.values),
            layers: layer_means(&shares)?,
            comparison,
        })
    }
}

fn grid(heads: &Heads, of: impl Fn(&SpanShare) -> Number) -> HeadGrid {
    HeadGrid {
        layers: heads.len(),
        heads: heads.first().map_or(0, Vec::len),
        values: heads.iter().flatten().map(|head| of(&head.spans[0])).collect(),
    }
}

fn is_excluded(tokenizer: &Tokenizer, id: u32) -> bool {
    tokenizer.token_str(id).is_some_and(is_excluded_token)
}

/// Name, text and byte range of every span.
fn read_spans(source: &SpanSource) -> Result<Vec<(String, String, Range<usize>)>, Error> {
    match source {
        SpanSource::Quote { text, span } => {
            let mut found = text.match_indices(span.as_str());
            let bad = |problem: &str, hint: &str| Error::Spec {
                field: "--span",
                problem: problem.into(),
                hint: Some(hint.into()),
            };
            let (start, _) = match (span.is_empty(), found.next()) {
                (false, Some(first)) => first,
                (true, _) => return Err(bad("the span is empty", "quote a part of the text")),
                (_, None) => return Err(bad("the span does not occur in the text", "quote a part of the text")),
            };
            if found.next().is_some() {
                let hint = "quote more of it, or give character offsets with `--spans F.jsonl`";
                return Err(bad("the span occurs more than once in the text", hint));
            }
            Ok(vec![("text".into(), text.clone(), start..start + span.len())])
        }
        SpanSource::File(file) => {
            let content = std::fs::read_to_string(file).map_err(|source| Error::Read { file: file.into(), source })?;
            let lines = content.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
            let spans: Vec<_> = lines
                .map(|(index, line)| {
                    const EXPECTED: &str =
                        "each line is {\"text\", \"start\", \"end\"} with character offsets, and optionally \"name\"";
                    let bad =
                        |problem| Error::Record { file: file.into(), line: index + 1, problem, expected: EXPECTED };
                    let input: SpanInput = serde_json::from_str(line).map_err(|error| bad(error.to_string()))?;
                    let range = byte_range(&input).map_err(bad)?;
                    Ok((input.name.unwrap_or_else(|| format!("line {}", index + 1)), input.text, range))
                })
                .collect::<Result<_, Error>>()?;
            if spans.is_empty() { Err(Error::NoText { file: file.into() }) } else { Ok(spans) }
        }
    }
}

/// Bytes of a span given in characters.
fn byte_range(input: &SpanInput) -> Result<Range<usize>, String> {
    let characters = input.text.chars().count();
    if input.start >= input.end || input.end > characters {
        return Err(format!(
            "fields `start` and `end` are {} and {}, expected 0 <= start < end <= {characters} characters",
            input.start, input.end
        ));
    }
    let byte = |character: usize| input.text.char_indices().nth(character).map_or(input.text.len(), |(byte, _)| byte);
    Ok(byte(input.start)..byte(input.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_must_be_unique() {
        let read = |text: &str, span: &str| read_spans(&SpanSource::Quote { text: text.into(), span: span.into() });
        assert_eq!(read("an été here", "été").expect("found")[0].2, 3..8);
        for (text, span, message) in [
            ("a b", "c", "--span: the span does not occur in the text"),
            ("a a", "a", "--span: the span occurs more than once in the text"),
            ("a a", "", "--span: the span is empty"),
        ] {
            assert_eq!(read(text, span).expect_err("bad").to_string(), message);
        }
    }

    #[test]
    fn offsets_count_characters() {
        let input = |start, end| SpanInput { name: None, text: "été long".into(), start, end };
        assert_eq!(byte_range(&input(0, 3)), Ok(0..5));
        assert_eq!(byte_range(&input(4, 8)), Ok(6..10));
        assert!(byte_range(&input(3, 3)).is_err());
        assert!(byte_range(&input(4, 9)).is_err());
    }
}
