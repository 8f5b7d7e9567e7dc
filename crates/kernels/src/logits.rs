//! What a row of logits says: log-sum-exp, entropy, arg-max, log-probability of a target.

use crate::isa::dispatch;
use crate::vector::{exp, max_of, sums_of};

/// Values whose partial sums stay in f32 before they enter the f64 total.
const BLOCK: usize = 1024;

/// Summary of one row of logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowSummary {
    /// `ln Σ e^logit`, nats.
    pub log_sum_exp: f64,
    /// Shannon entropy of the softmax, nats.
    pub entropy: f64,
    /// Index of the largest logit; the first one of several.
    pub argmax: usize,
    /// The largest logit.
    pub max: f32,
}

dispatch! {
    /// The largest logit; NaN is passed over, and of nothing it is -infinity.
    pub fn largest(row: &[f32]) -> f32 {
        max_of(row)
    }
}

/// What a part of a row adds to its summary.
#[derive(Clone, Copy, Debug)]
pub struct PartSummary {
    argmax: usize,
    max: f32,
    /// What `total` and `weighted` are relative to: `max`, or the least number where that is -infinity.
    origin: f32,
    /// `Σ e^(logit - origin)`
    total: f64,
    /// `Σ e^(logit - origin) · (logit - origin)`
    weighted: f64,
}

dispatch! {
    /// Summarises the logits from number `first` of their row on.
    pub fn summarise_part(first: usize, logits: &[f32]) -> PartSummary {
        let (mut block, mut max) = (0, f32::NEG_INFINITY);
        for (index, values) in logits.chunks(BLOCK).enumerate() {
            let top = max_of(values);
            if top > max {
                (block, max) = (index * BLOCK, top);
            }
        }
        let argmax = first + block + logits[block..].iter().position(|x| *x == max).unwrap_or(0);
        let origin = max.max(f32::MIN);
        let (mut total, mut weighted) = (0.0f64, 0.0f64);
        for values in logits.chunks(BLOCK) {
            let sums = sums_of([values], |[x]| {
                let shifted = x - origin;
                let weight = exp(shifted);
                // 0 · ln 0 = 0, also for a logit of -infinity
                [weight, if shifted > -88.0 { weight * shifted } else { 0.0 }]
            });
            total += f64::from(sums[0]);
            weighted += f64::from(sums[1]);
        }
        PartSummary { argmax, max, origin, total, weighted }
    }
}

impl PartSummary {
    /// Of this part and the `next` one.
    #[must_use]
    pub fn join(self, next: Self) -> Self {
        let (argmax, max) = if next.max > self.max { (next.argmax, next.max) } else { (self.argmax, self.max) };
        let origin = self.origin.max(next.origin);
        let moved = |part: &Self| {
            let by = f64::from(part.origin) - f64::from(origin);
            let scale = by.exp();
            // Parts that are too small to count must not become 0 · infinity.
            [
                scale * part.total,
                if by > -700.0 { scale * (part.weighted + by * part.total) } else { scale * part.weighted },
            ]
        };
        let ([a, b], [c, d]) = (moved(&self), moved(&next));
        Self { argmax, max, origin, total: a + c, weighted: b + d }
    }

    /// Of a row whose parts these were.
    #[must_use]
    pub fn finish(self) -> RowSummary {
        let log_total = self.total.ln();
        RowSummary {
            log_sum_exp: f64::from(self.origin) + log_total,
            entropy: log_total - self.weighted / self.total,
            argmax: self.argmax,
            max: self.max,
        }
    }
}

/// Summarises one row of logits. A row with NaN or +infinity gives a non-finite `log_sum_exp`.
#[must_use]
pub fn summarise(row: &[f32]) -> RowSummary {
    summarise_part(0, row).finish()
}

dispatch! {
    /// `e^(logit - max)` of each logit.
    pub fn weights_into(row: &[f32], max: f32, weights: &mut [f32]) {
        for (weight, x) in weights.iter_mut().zip(row) {
            *weight = exp(*x - max);
        }
    }
}

dispatch! {
    /// `softmax(logits)` scaled by `scale`, in place.
    pub fn softmax_scaled(row: &mut [f32], log_sum_exp: f32, scale: f32) {
        for x in row.iter_mut() {
            *x = exp(*x - log_sum_exp) * scale;
        }
    }
}

dispatch! {
    /// Turns a row of logits `y` into the gradient of `log_sum_exp(y) - y[target]`, in place, with respect to the values
    /// that `y` was made of: `y = scale · x`, or `y = cap · tanh(scale · x / cap)`.
    ///
    /// `(softmax(y) - [target]) · scale · (1 - (y / cap)²)`
    pub fn likelihood_gradient(row: &mut [f32], log_sum_exp: f32, target: usize, scale: f32, soft_cap: Option<f32>) {
        let at_target = row[target];
        match soft_cap {
            None => row.iter_mut().for_each(|y| *y = exp(*y - log_sum_exp) * scale),
            Some(cap) => row.iter_mut().for_each(|y| {
                let slope = scale * (1.0 - (*y / cap) * (*y / cap));
                *y = exp(*y - log_sum_exp) * slope;
            }),
        }
        let slope = soft_cap.map_or(1.0, |cap| 1.0 - (at_target / cap) * (at_target / cap));
        row[target] = (exp(at_target - log_sum_exp) - 1.0) * scale * slope;
    }
}

dispatch! {
    /// `cap · tanh(x / cap)`, in place (Gemma 2, section 2).
    pub fn soft_cap(row: &mut [f32], cap: f32) {
        for x in row.iter_mut() {
            *x = cap * crate::vector::tanh(*x / cap);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_uniform_row() {
        let row = summarise(&[2.0; 3000]);
        assert!((row.entropy - 3000f64.ln()).abs() < 1e-6);
        assert!((row.log_sum_exp - 2.0 - 3000f64.ln()).abs() < 1e-6);
        assert_eq!(row.argmax, 0);
    }

    #[test]
    fn impossible_tokens_count_for_nothing() {
        let row = summarise(&[f32::NEG_INFINITY, 1.0, 1.0]);
        assert!((row.entropy - 2f64.ln()).abs() < 1e-6);
        assert_eq!(row.argmax, 1);
        assert!(!summarise(&[0.0, f32::NAN]).log_sum_exp.is_finite());
    }

    #[test]
    fn likelihood_gradients_equal_finite_differences() {
        let x: Vec<f32> = (0..37).map(|i| ((i * 7 + 3) % 11) as f32 * 0.4 - 2.0).collect();
        for (scale, cap) in [(1.0, None), (0.5, None), (1.5, Some(3.0))] {
            let made = |x: &[f32]| {
                let mut y: Vec<f32> = x.iter().map(|x| x * scale).collect();
                cap.iter().for_each(|cap| soft_cap(&mut y, *cap));
                y
            };
            let loss = |x: &[f32]| {
                let y = made(x);
                summarise(&y).log_sum_exp - f64::from(y[5])
            };
            let mut gradient = made(&x);
            let log_sum_exp = summarise(&gradient).log_sum_exp as f32;
            likelihood_gradient(&mut gradient, log_sum_exp, 5, scale, cap);
            for (i, found) in gradient.iter().enumerate() {
                let at = |by: f32| {
                    let mut x = x.clone();
                    x[i] += by;
                    loss(&x)
                };
                let expected = ((at(1e-2) - at(-1e-2)) / 2e-2) as f32;
                assert!((found - expected).abs() < 1e-3, "{scale} {cap:?} {i}: {found} {expected}");
            }
        }
    }

    #[test]
    fn parts_without_a_possible_token_count_for_nothing() {
        let none = summarise_part(0, &[f32::NEG_INFINITY; 3]);
        for joined in [none.join(summarise_part(3, &[1.0, 1.0])), summarise_part(0, &[1.0, 1.0]).join(none)] {
            assert!((joined.finish().entropy - 2f64.ln()).abs() < 1e-6);
            assert!((joined.finish().log_sum_exp - 1.0 - 2f64.ln()).abs() < 1e-6);
        }
        assert_eq!(none.join(summarise_part(3, &[0.5, 1.0, 1.0])).finish().argmax, 4);
        assert!(!none.finish().log_sum_exp.is_finite());
        let nan = summarise_part(0, &[f32::NEG_INFINITY, f32::NAN]);
        assert!(!nan.join(summarise_part(2, &[1.0])).finish().log_sum_exp.is_finite());
    }

    proptest! {
        #[test]
        fn parts_of_a_row_equal_the_whole(row in proptest::collection::vec(-60.0f32..60.0, 1..3000), part in 1usize..800) {
            let parts = row.chunks(part).enumerate().map(|(i, values)| summarise_part(i * part, values));
            let (joined, whole) = (parts.reduce(PartSummary::join).expect("a part").finish(), summarise(&row));
            prop_assert!((joined.log_sum_exp - whole.log_sum_exp).abs() < 2e-6);
            prop_assert!((joined.entropy - whole.entropy).abs() < 2e-5, "{} {}", joined.entropy, whole.entropy);
            prop_assert_eq!((joined.argmax, joined.max), (whole.argmax, whole.max));
        }

        #[test]
        fn equals_the_definition(row in proptest::collection::vec(-20.0f32..20.0, 1..3000)) {
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let total: f64 = row.iter().map(|x| f64::from(x - max).exp()).sum();
            let lse = f64::from(max) + total.ln();
            let entropy: f64 = row.iter().map(|x| { let l = f64::from(*x) - lse; -l.exp() * l }).sum();
            let summary = summarise(&row);
            prop_assert!((summary.log_sum_exp - lse).abs() < 2e-6);
            prop_assert!((summary.entropy - entropy).abs() < 2e-5, "{} {entropy}", summary.entropy);
            prop_assert_eq!(row[summary.argmax], max);
        }
    }
}
