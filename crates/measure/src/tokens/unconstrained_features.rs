//! What weight decay does to rare classes in the unconstrained-features model with non-negative features
//! (Dang et al. 2024), in closed form: the theory that arXiv 2410.11985 lays over its curves. It needs a width
//! of at least the number of classes, which no language model has.

use serde::{Deserialize, Serialize};

use crate::error::MeasureError;
use crate::measured::{Number, Reason};

/// One class at the optimum.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassLoss {
    /// Samples of the class.
    pub samples: u64,
    /// Cross-entropy in nats: −ln(1 − c), or ln K when the class collapses; undefined without samples.
    pub nll: Number,
    /// Logit of the class above the others, in nats; 0 when it collapses, undefined (unbounded) without decay.
    pub margin: Number,
}

/// Optimal losses of (1/N) Σ CE + (λ/2)‖W‖² + (λ/2)‖H‖² with non-negative H, K classes of `class_sizes`.
///
/// Class means become orthogonal, so the problem separates by class:
/// c = λ N sqrt((K − 1) / (K n)); below (K − 1)/K the loss is −ln(1 − c).
///
/// # Errors
/// `weight_decay` is negative, NaN or infinite.
pub fn unconstrained_features_losses(class_sizes: &[u64], weight_decay: f64) -> Result<Vec<ClassLoss>, MeasureError> {
    if !weight_decay.is_finite() || weight_decay < 0.0 {
        return Err(MeasureError::Parameter { name: "weight decay", value: weight_decay, wanted: "0 or above" });
    }
    let classes = class_sizes.len() as f64;
    let total: f64 = class_sizes.iter().map(|&samples| samples as f64).sum();
    let class_loss = |&samples: &u64| {
        if samples == 0 {
            let nothing = Number::Undefined(Reason::Empty);
            return ClassLoss { samples, nll: nothing, margin: nothing };
        }
        let c = weight_decay * total * ((classes - 1.0) / (classes * samples as f64)).sqrt();
        if c >= (classes - 1.0) / classes {
            return ClassLoss { samples, nll: Number::from(classes.ln()), margin: Number::from(0.0) };
        }
        let margin = ((classes - 1.0) * (1.0 / c - 1.0)).ln();
        // −ln(1 − c) without the cancellation at small c; 0.0 − … keeps c = 0 from giving −0.
        ClassLoss { samples, nll: Number::from(0.0 - (-c).ln_1p()), margin: Number::from(margin) }
    };
    Ok(class_sizes.iter().map(class_loss).collect())
}
