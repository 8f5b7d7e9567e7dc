//! Learning rates over steps: a linear warm-up, then constant, linear or cosine.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// What the learning rate does after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// It stays.
    #[default]
    Constant,
    /// It falls to 0 along a line.
    Linear,
    /// It falls to 0 along half a cosine.
    Cosine,
}

impl Schedule {
    /// Factor of the learning rate at time `t` of `0..=total`: `t / warm_up` at first, then 1, `1 − u` or
    /// `(1 + cos πu) / 2` with `u = (t − warm_up) / (total − warm_up)`.
    #[must_use]
    pub fn factor(self, t: usize, warm_up: usize, total: usize) -> f64 {
        if t < warm_up {
            return t as f64 / warm_up as f64;
        }
        let u = ((t - warm_up) as f64 / total.saturating_sub(warm_up).max(1) as f64).min(1.0);
        match self {
            Self::Constant => 1.0,
            Self::Linear => 1.0 - u,
            Self::Cosine => 0.5 * (1.0 + (PI * u).cos()),
        }
    }
}

/// The learning rate of every step of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// After the warm-up.
    pub value: f64,
    /// Steps of the warm-up.
    pub warm_up: usize,
    /// What follows it.
    pub schedule: Schedule,
    /// Steps of the run.
    pub steps: usize,
}

impl Rate {
    /// Of a step, from 1. A step of the warm-up takes the factor at its end and a later one that at its beginning: so no
    /// step has a rate of 0, neither the first one nor the last.
    #[must_use]
    pub fn at(self, step: usize) -> f64 {
        let t = if step <= self.warm_up { step } else { step - 1 };
        self.value * self.schedule.factor(t, self.warm_up, self.steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worked_example() {
        let factors: Vec<f64> = (0..=10).map(|t| Schedule::Cosine.factor(t, 2, 10)).collect();
        let expected = [0.0, 0.5, 1.0, 0.96194, 0.853_553, 0.691_342, 0.5, 0.308_658, 0.146_447, 0.03806, 0.0];
        for (found, expected) in factors.iter().zip(expected) {
            assert!((found - expected).abs() < 5e-6, "{factors:?}");
        }
    }

    #[test]
    fn no_step_is_lost() {
        for schedule in [Schedule::Constant, Schedule::Linear, Schedule::Cosine] {
            for warm_up in [0, 1, 3, 7, 20] {
                let rate = Rate { value: 0.5, warm_up, schedule, steps: 20 };
                assert!((1..=20).all(|step| rate.at(step) > 0.0 && rate.at(step) <= 0.5), "{rate:?}");
                assert_eq!(rate.at(warm_up.max(1)), 0.5, "{rate:?}");
            }
        }
        let rate = Rate { value: 0.8, warm_up: 4, schedule: Schedule::Constant, steps: 9 };
        assert_eq!([1, 2, 4, 5, 100].map(|step| rate.at(step)), [0.2, 0.4, 0.8, 0.8, 0.8]);
        let rate = Rate { value: 1.0, warm_up: 0, schedule: Schedule::Linear, steps: 4 };
        assert_eq!([1, 2, 3, 4].map(|step| rate.at(step)), [1.0, 0.75, 0.5, 0.25]);
    }
}
