//! EmbedFilter's matrix: what the head of a model says of directions of its last hidden state.

use lathe_measure::embedding::BandFilter;
use rayon::prelude::*;

use super::capture::Taken;
use crate::{Context, Error, Loaded};

/// Rows of the head that are decoded at once.
const ROWS: usize = 256;

/// The band of a model's unembedding.
///
/// # Errors
/// The hidden states are not those that the head reads; the factor is none.
pub(super) fn band_filter(
    loaded: &Loaded,
    taken: &Taken,
    tau: f64,
    context: &Context<'_>,
) -> Result<BandFilter, Error> {
    if taken.layers != [taken.last] {
        return Err(Error::Spec {
            field: "--filter",
            problem: format!("the head reads hidden state {}, and others were asked for", taken.last),
            hint: Some("leave out --layer or --filter".into()),
        });
    }
    let gram = gram(loaded, context)?;
    Ok(BandFilter::of(&gram, taken.width, tau)?)
}

/// WᵀW of the unembedding `W` `[vocabulary, width]`, as `[width, width]`, summed over rising rows in f64.
fn gram(loaded: &Loaded, context: &Context<'_>) -> Result<Vec<f64>, Error> {
    let parameters = loaded.opened.spec.parameters();
    let named = |name: &str| parameters.iter().find(|parameter| parameter.name == name);
    let head = named("head.weight").or_else(|| named("embedding.weight")).filter(|_| loaded.opened.spec.has_head());
    let Some(head) = head else {
        let problem = format!("{} has no language-model head", loaded.reference);
        return Err(Error::Spec { field: "--filter", problem, hint: Some("leave it out".into()) });
    };
    let source = loaded.opened.parameters();
    let (rows, width) = (head.shape[0], head.shape[1]);
    let mut gram = vec![0.0f64; width * width];
    let mut block = vec![0.0f32; ROWS * width];
    context.stage("reading the head", rows as u64, "rows", || {
        use lathe_model::ParameterSource;
        for first in (0..rows).step_by(ROWS) {
            let count = ROWS.min(rows - first);
            let block = &mut block[..count * width];
            source.rows(head, first..first + count, block)?;
            let block = &*block;
            gram.par_chunks_mut(width).enumerate().for_each(|(i, sums)| {
                for row in block.chunks_exact(width) {
                    let x = f64::from(row[i]);
                    sums[i..].iter_mut().zip(&row[i..]).for_each(|(sum, y)| *sum += x * f64::from(*y));
                }
            });
            context.progress.advance(count as u64);
        }
        for i in 0..width {
            for j in 0..i {
                gram[i * width + j] = gram[j * width + i];
            }
        }
        Ok(gram)
    })
}
