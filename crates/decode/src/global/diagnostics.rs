//! How far strings of global decoding can be trusted.

use std::collections::BTreeSet;

use lathe_measure::statistics::{mean, standard_deviation};
use lathe_measure::{Measured, Number, Reason};
use serde::{Deserialize, Serialize};

use super::importance::{effective_sample_size, log_mean_exp};
use super::{Chosen, Proposal};
use crate::Generation;

/// Standard deviation of log w above which a chain of some hundred proposals has not reached its target.
pub const MOST_SPREAD: f64 = 2.0;
/// Acceptance below which a chain has not mixed.
pub const LEAST_ACCEPTANCE: f64 = 0.05;
/// Z from which on exact rejection is cheap enough to be named.
const CHEAP_REJECTION: f64 = 0.01;

/// Numbers beside every set of globally decoded strings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Diagnostics {
    /// Strings of local decoding that were weighed, or particles.
    pub proposals: usize,
    /// Strings of the result.
    pub samples: usize,
    /// Different proposals among them.
    pub distinct: usize,
    /// Mean of log w under local decoding, nats.
    pub mean_log_w: Number,
    /// σ: standard deviation of log w under local decoding, nats.
    pub sd_log_w: Number,
    /// Share of proposals that were accepted.
    pub acceptance: Number,
    /// `2 Φ(−σ/√2)`: stationary acceptance of independent Metropolis–Hastings if log w is normal.
    pub normal_acceptance: Number,
    /// `(Σ w)² / Σ w²`.
    pub ess: Number,
    /// ln Z, nats: log of the model's mass on strings inside their kept sets.
    pub log_z: Number,
    /// Standard error of ln Z, by the delta method. Of a population it is too small where few ancestors are left.
    pub log_z_error: Number,
    /// Share of proposals that were cut by their length.
    pub censored_proposals: Number,
    /// The same of the result.
    pub censored_samples: Number,
    /// What the numbers mean for the strings, in sentences.
    pub warnings: Vec<String>,
}

impl Diagnostics {
    /// Of weighed proposals and those that were chosen.
    #[must_use]
    pub fn of(pool: &[Proposal], chosen: &[Chosen]) -> Self {
        let log_weights: Vec<f64> = pool.iter().map(|proposal| proposal.log_weight).collect();
        let sd_log_w =
            if pool.is_empty() { Measured::Undefined(Reason::Empty) } else { standard_deviation(&log_weights) };
        let ess = effective_sample_size(&log_weights);
        let n = pool.len() as f64;
        let cut = |proposals: &mut dyn Iterator<Item = &Proposal>| {
            let cut: Vec<f64> = proposals.map(|proposal| f64::from(u8::from(proposal.censored))).collect();
            mean(&cut)
        };
        Self {
            proposals: pool.len(),
            samples: chosen.len(),
            distinct: chosen.iter().map(|chosen| chosen.proposal).collect::<BTreeSet<_>>().len(),
            mean_log_w: mean(&log_weights),
            sd_log_w,
            acceptance: Measured::Undefined(Reason::NotRequested),
            normal_acceptance: sd_log_w.map(normal_acceptance),
            ess: if pool.is_empty() { Measured::Undefined(Reason::Empty) } else { ess.into() },
            log_z: log_mean_exp(&log_weights).into(),
            // Var(w̄) / w̄² = (1/ESS − 1/n) · n / (n − 1)
            log_z_error: match pool.len() {
                0 => Measured::Undefined(Reason::Empty),
                1 => Measured::Undefined(Reason::OneUnit),
                _ => ((1.0 / ess - 1.0 / n).max(0.0) * n / (n - 1.0)).sqrt().into(),
            },
            censored_proposals: cut(&mut pool.iter()),
            censored_samples: cut(&mut chosen.iter().map(|chosen| &pool[chosen.proposal])),
            warnings: Vec::new(),
        }
    }

    pub(super) fn accept(&mut self, accepted: usize, offered: usize) {
        self.acceptance = Number::ratio(accepted as f64, offered as f64, Reason::Empty);
    }

    /// Says so when chains of `proposals` can't have mixed, and which sampler would do.
    pub(super) fn warn_of_mixing(&mut self, proposals: usize) {
        let sd = self.sd_log_w.value().unwrap_or(0.0);
        let acceptance = self.acceptance.value().unwrap_or(1.0);
        if sd > MOST_SPREAD || acceptance < LEAST_ACCEPTANCE {
            self.warnings.push(format!(
                "the chains cannot have mixed: sd of log w is {sd:.2} and {:.1} % of proposals were accepted; chains of \
                 {proposals} return little more than the heaviest of {proposals} strings; {}",
                100.0 * acceptance,
                self.better()
            ));
        }
        self.warn_of_censoring();
    }

    /// Says so when a few strings carry all the weight.
    pub(super) fn warn_of_weights(&mut self) {
        /// Draws of the target that a pool should be worth for each string that is taken from it.
        const LEAST_SHARE: f64 = 0.5;
        if let Some(ess) = self.ess.value()
            && ess < LEAST_SHARE * self.samples as f64
        {
            self.warnings.push(format!(
                "the pool of {} strings is worth {ess:.1} draws of the target, and {} were taken; {}",
                self.proposals,
                self.samples,
                self.better()
            ));
        }
        self.warn_of_censoring();
    }

    pub(super) fn warn_of_censoring(&mut self) {
        if self.censored_proposals == Measured::Value(1.0) {
            self.warnings.push(
                "no string ended before its longest length: the target is one over prefixes of that length".into(),
            );
        }
    }

    /// What a population knows better than its final weights: Z over all resamplings. Its effective size is the number of
    /// different strings, as all weigh the same.
    pub(super) fn weigh_population(&mut self, log_z: f64, error: f64, particles: &[Generation], ancestors: usize) {
        self.log_z = log_z.into();
        self.log_z_error =
            if particles.len() > 1 { error.max(0.0).sqrt().into() } else { Measured::Undefined(Reason::OneUnit) };
        let unlike: BTreeSet<Vec<u32>> =
            particles.iter().map(|particle| particle.steps.iter().map(|step| step.id).collect()).collect();
        self.ess = (unlike.len() as f64).into();
        // The particles are no draws of local decoding.
        for number in [&mut self.mean_log_w, &mut self.sd_log_w, &mut self.normal_acceptance] {
            *number = Measured::Undefined(Reason::NotGiven);
        }
        if ancestors < particles.len().div_ceil(20) {
            self.warnings.push(format!(
                "the {} strings go back to {ancestors} first tokens: their beginnings are alike; more particles, or several \
                 runs with different seeds, would vary them",
                particles.len()
            ));
        }
        self.warn_of_censoring();
    }

    fn better(&self) -> &'static str {
        match self.log_z.value() {
            Some(log_z) if log_z > CHEAP_REJECTION.ln() => "--sampler rejection is exact here, --sampler smc is faster",
            _ => "--sampler smc would do better",
        }
    }
}

/// Stationary acceptance of independent Metropolis–Hastings where log w is normal with standard deviation `sigma`:
/// `2 Φ(−σ/√2) = erfc(σ/2)`.
#[must_use]
pub fn normal_acceptance(sigma: f64) -> f64 {
    erfc(sigma / 2.0)
}

/// Complementary error function of x ≥ 0: its series below 2, its continued fraction above.
fn erfc(x: f64) -> f64 {
    let sqrt_pi = std::f64::consts::PI.sqrt();
    if x < 2.0 {
        // erf x = 2/√π Σ (−1)^n x^(2n+1) / (n! (2n+1))
        let (mut term, mut sum) = (x, x);
        for n in 1..60 {
            let n = f64::from(n);
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        return 1.0 - 2.0 / sqrt_pi * sum;
    }
    // erfc x = e^(−x²)/√π · 1/(x + (1/2)/(x + 1/(x + (3/2)/(x + …))))
    let fraction = (1..80).rev().fold(x, |rest, n| x + f64::from(n) / 2.0 / rest);
    (-x * x).exp() / sqrt_pi / fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acceptance_of_normal_weights() {
        // The table of the method's page.
        for (sigma, acceptance, digits) in
            [(0.5, 0.7237, 5e-5), (1.0, 0.4795, 5e-5), (2.0, 0.1573, 5e-5), (3.0, 0.0339, 5e-5), (5.0, 4.1e-4, 5e-6)]
        {
            assert!((normal_acceptance(sigma) - acceptance).abs() < digits, "{sigma}: {}", normal_acceptance(sigma));
        }
        assert!((normal_acceptance(10.0) / 1.5e-12 - 1.0).abs() < 0.05);
        assert_eq!(normal_acceptance(0.0), 1.0);
        // Both formulas where they meet.
        assert!((erfc(2.0 - 1e-9) / erfc(2.0 + 1e-9) - 1.0).abs() < 1e-7);
    }

    #[test]
    fn nothing_and_one_have_no_spread() {
        let none = Diagnostics::of(&[], &[]);
        assert_eq!((none.sd_log_w.reason(), none.ess.reason()), (Some(Reason::Empty), Some(Reason::Empty)));
        let one = Proposal { log_weight: -1.0, censored: true };
        let one = Diagnostics::of(&[one], &[Chosen { proposal: 0, chain: 0, run: 0 }]);
        assert_eq!((one.sd_log_w.reason(), one.log_z_error.reason()), (Some(Reason::OneUnit), Some(Reason::OneUnit)));
        assert_eq!((one.ess, one.log_z), (Measured::Value(1.0), Measured::Value(-1.0)));
    }
}
