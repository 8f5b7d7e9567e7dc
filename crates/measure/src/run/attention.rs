//! Attention of one text, head by head, streamed: no matrix of all heads exists at any time.

use std::sync::Mutex;

use lathe_model::{Batch, Decoder, Pattern, Site, Tap};

use super::{RunError, Watch};
use crate::MeasureError;
use crate::attention::{HeadAttention, HeadReport, KeyWindow, SpanPlan};

/// Every head's attention over one text.
#[derive(Clone, Debug)]
pub struct TextAttention {
    /// `[layers][heads]`
    pub heads: Vec<Vec<HeadReport>>,
}

/// Runs one text and measures every head against the plan of its layer: `plans[l]` holds the spans, excluded positions
/// and window of layer `l`. Memory beside the forward pass: heads x tokens per layer.
///
/// # Errors
/// The text does not fit the model; attention is not a distribution (naming the layer).
pub fn attention_of_text(decoder: &Decoder, ids: &[u32], plans: &[SpanPlan]) -> Result<TextAttention, RunError> {
    let heads = decoder.spec().layers.iter().zip(plans);
    let heads = heads
        .map(|(layer, plan)| (0..layer.attention.heads).map(|_| Mutex::new(Ok(HeadAttention::new(plan)))).collect())
        .collect();
    let mut tap = Heads { heads };
    decoder.forward(&Batch::single(ids), None, &mut tap)?;
    let mut layers = Vec::with_capacity(tap.heads.len());
    for (layer, heads) in tap.heads.into_iter().enumerate() {
        let at_layer = |source| RunError::Layer { layer, source };
        let reports: Result<Vec<HeadReport>, MeasureError> = heads
            .into_iter()
            .map(|head| head.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)?.report())
            .collect();
        layers.push(reports.map_err(at_layer)?);
    }
    Ok(TextAttention { heads: layers })
}

/// What keys a layer's queries see, in the words of the attention measurement.
#[must_use]
pub fn key_window(window: Option<usize>) -> KeyWindow {
    window.map_or(KeyWindow::All, KeyWindow::Last)
}

struct Heads<'plan> {
    heads: Vec<Vec<Mutex<Result<HeadAttention<'plan>, MeasureError>>>>,
}

impl Tap for Heads<'_> {
    fn wants(&self, site: Site) -> bool {
        matches!(site, Site::Pattern(_))
    }

    fn pattern(&self, layer: usize, pattern: &Pattern<'_>) {
        let mut head = self.heads[layer][pattern.head].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Ok(attention) = head.as_mut() else { return };
        let keys = pattern.first_key..pattern.first_key + pattern.keys;
        let added = attention.add_rows_of_keys(pattern.first_query, keys, pattern.probabilities);
        if let Err(error) = added {
            *head = Err(error);
        }
    }
}

/// Sink share of every head, window by window.
#[derive(Clone, Debug)]
pub struct SinkShares {
    /// Share of attention mass on the first token, `[windows][layers][heads]`.
    pub windows: Vec<Vec<Vec<f64>>>,
    /// The same under uniform causal attention, for each layer's window.
    pub uniform: Vec<f64>,
}

/// Measures the share of attention that the first token receives, over windows of `tokens` tokens each.
///
/// # Errors
/// A window does not fit the model or has another length.
pub fn sink_shares(
    decoder: &Decoder,
    windows: &[Vec<u32>],
    tokens: usize,
    watch: Watch<'_>,
) -> Result<SinkShares, RunError> {
    let layers = decoder.spec().layers.iter();
    let plans: Vec<SpanPlan> = layers
        .map(|layer| SpanPlan::new(tokens, key_window(layer.attention.window), &[], &[], 0))
        .collect::<Result<_, _>>()?;
    let of_window = |window: &Vec<u32>| {
        let text = attention_of_text(decoder, window, &plans)?;
        (watch.advance)(window.len() as u64);
        let share = |head: &HeadReport| head.sink_share.value().unwrap_or(0.0);
        Ok(text.heads.iter().map(|heads| heads.iter().map(share).collect()).collect())
    };
    Ok(SinkShares {
        windows: windows.iter().map(of_window).collect::<Result<_, RunError>>()?,
        uniform: plans.iter().map(|plan| plan.uniform_sink_share().value().unwrap_or(0.0)).collect(),
    })
}
