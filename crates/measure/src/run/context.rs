//! Attention on the context where an answer begins.

use std::sync::{Mutex, PoisonError};

use lathe_model::{Batch, Decoder, Pattern, Site, Tap};

use super::{RunError, batches};

/// A prompt, and which of its tokens are the context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextAttention {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Positions of the context's tokens.
    pub positions: Vec<usize>,
}

/// Attention of each prompt's last position on its context: the sum of the weights of the context's tokens, mean over the heads of
/// a layer, `[prompts][layers]` (0 to 1). This is how we read the paper's figure 3b, which does not say which query and which
/// mean it takes (arXiv 2410.10796).
///
/// # Errors
/// A prompt does not fit the model.
pub fn attention_on_context(decoder: &Decoder, prompts: &[ContextAttention]) -> Result<Vec<Vec<f64>>, RunError> {
    let mut shares = Vec::with_capacity(prompts.len());
    for group in batches(prompts, |prompt| prompt.ids.len()) {
        let heads: Vec<usize> = decoder.spec().layers.iter().map(|layer| layer.attention.heads).collect();
        let mut tap = LastQuery {
            prompts: group,
            masses: heads.iter().map(|heads| Mutex::new(vec![0.0; heads * group.len()])).collect(),
        };
        decoder.forward(&Batch::of(group.iter().map(|prompt| &prompt.ids[..])), None, &mut tap)?;
        let layers: Vec<Vec<f64>> =
            tap.masses.into_iter().map(|of| of.into_inner().unwrap_or_else(PoisonError::into_inner)).collect();
        shares.extend((0..group.len()).map(|prompt| {
            let of_layer = |(masses, heads): (&Vec<f64>, &usize)| {
                masses[prompt * heads..(prompt + 1) * heads].iter().sum::<f64>() / *heads as f64
            };
            layers.iter().zip(&heads).map(of_layer).collect()
        }));
    }
    Ok(shares)
}

struct LastQuery<'a> {
    prompts: &'a [ContextAttention],
    /// Of each layer, `[prompts, heads]`.
    masses: Vec<Mutex<Vec<f64>>>,
}

impl Tap for LastQuery<'_> {
    fn wants(&self, site: Site) -> bool {
        matches!(site, Site::Pattern(_))
    }

    fn pattern(&self, layer: usize, pattern: &Pattern<'_>) {
        let prompt = &self.prompts[pattern.sequence];
        let Some(row) = (prompt.ids.len() - 1).checked_sub(pattern.first_query).filter(|row| *row < pattern.queries)
        else {
            return;
        };
        let row = &pattern.probabilities[row * pattern.keys..(row + 1) * pattern.keys];
        // Keys outside of a layer's window get nothing.
        let weight = |position: &usize| position.checked_sub(pattern.first_key).and_then(|key| row.get(key));
        let mass = prompt.positions.iter().filter_map(weight).map(|weight| f64::from(*weight)).sum();
        let mut masses = self.masses[layer].lock().unwrap_or_else(PoisonError::into_inner);
        let heads = masses.len() / self.prompts.len();
        masses[pattern.sequence * heads + pattern.head] = mass;
    }
}
