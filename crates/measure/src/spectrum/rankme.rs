//! RankMe (arXiv 2210.02885): exp of the entropy of the singular values of the raw embeddings.

use super::HiddenStates;
use super::decomposition::singular_values;
use crate::error::MeasureError;
use crate::measured::{Number, Reason};

/// ε added to each share, as the paper does for f32 embeddings.
pub const RANKME_EPSILON: f64 = 1e-7;

/// RankMe of `states`: an effective number of dimensions, about 1 to min(N, d).
///
/// Neither centred nor scaled, and with shares of σ instead of σ², so it differs from eRank on the same
/// matrix. The paper takes 25,600 samples; few tokens cap the value. Undefined without tokens and when all
/// states are zero.
///
/// # Errors
/// The singular values do not converge.
pub fn rankme(states: HiddenStates<'_>) -> Result<Number, MeasureError> {
    if states.tokens() == 0 {
        return Ok(Number::Undefined(Reason::NoTokens));
    }
    let values: Vec<f64> = states.rows().flatten().map(|&value| f64::from(value)).collect();
    let singular = singular_values(&values, states.tokens(), states.width())?;
    let total: f64 = singular.iter().sum();
    if total == 0.0 {
        return Ok(Number::Undefined(Reason::AllZero));
    }
    let shares = singular.iter().map(|sigma| sigma / total + RANKME_EPSILON);
    let entropy: f64 = shares.map(|share| -share * share.ln()).sum();
    Ok(Number::from(entropy.exp()))
}
