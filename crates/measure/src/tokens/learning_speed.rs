//! How early in training a token type is learnt. The paper's text was not available; the formula is the one
//! that its reviews' description (area under a normalised curve, higher is sooner) leads to.

use serde::{Deserialize, Serialize};

use crate::error::MeasureError;
use crate::measured::{Number, Reason};

/// Learning speed of one loss curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LearningSpeed {
    /// 1 − area under (L − min L) / (max L − min L) over training from 0 to 1, by trapezoids (0 to 1; higher
    /// is sooner). Undefined for a constant curve.
    pub speed: Number,
    /// The last loss in nats, which the scaling to 0 … 1 hides.
    pub final_nll: f64,
}

/// Learning speed of `losses` in nats at `steps`, which start at 0 and rise.
///
/// # Errors
/// No checkpoint, lists of different length, a first step other than 0, steps that do not rise, a loss that
/// is NaN or infinite.
pub fn learning_speed(steps: &[u64], losses: &[f64]) -> Result<LearningSpeed, MeasureError> {
    if steps.len() != losses.len() {
        return Err(MeasureError::Shape { what: "losses per checkpoint", expected: steps.len(), found: losses.len() });
    }
    let (Some(&first), Some(&last), Some(&final_nll)) = (steps.first(), steps.last(), losses.last()) else {
        return Err(MeasureError::Checkpoint { index: 0, problem: "there is none" });
    };
    if first != 0 {
        return Err(MeasureError::Checkpoint { index: 0, problem: "the first step is not 0" });
    }
    if let Some(index) = steps.windows(2).position(|pair| pair[1] <= pair[0]) {
        return Err(MeasureError::Checkpoint { index: index + 1, problem: "its step does not rise" });
    }
    if let Some(index) = losses.iter().position(|loss| !loss.is_finite()) {
        return Err(MeasureError::Checkpoint { index, problem: "its loss is not finite" });
    }

    let low = losses.iter().copied().fold(f64::INFINITY, f64::min);
    let high = losses.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if low == high {
        return Ok(LearningSpeed { speed: Number::Undefined(Reason::Constant), final_nll });
    }
    let level = |loss: f64| (loss - low) / (high - low);
    let trapezoid = |(steps, losses): (&[u64], &[f64])| {
        let width = (steps[1] - steps[0]) as f64 / last as f64;
        width * (level(losses[0]) + level(losses[1])) / 2.0
    };
    let area: f64 = steps.windows(2).zip(losses.windows(2)).map(trapezoid).sum();
    Ok(LearningSpeed { speed: Number::from(1.0 - area), final_nll })
}
