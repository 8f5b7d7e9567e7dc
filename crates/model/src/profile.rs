//! Where the time of a forward pass goes: seconds of each phase.
//!
//! The pass says what it begins ([`Tap::begins`]); a [`Profile`] is a tap that reads a clock whenever it is told, and
//! charges the time since the last reading to the phase that was under way. Phases therefore add up to the time from the
//! first to the last reading, nothing is timed twice, and a pass without a profile reads no clock.

use crate::tap::{Site, Tap};

/// What a forward pass is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Looking up rows of the embedding, with their scale and positions.
    Embedding,
    /// Norms on the residual stream.
    Norm,
    /// Products for query, key and value; their norms and clips, where a model has them.
    QueryKeyValue,
    /// Angles of the rotary tables, and rotating queries and keys.
    Rotary,
    /// Scores, softmax and the sum over values; the cache takes its keys and values here.
    Attention,
    /// Product of the output projection of attention.
    Output,
    /// Dense feed-forward part: its products, activation and gate.
    FeedForward,
    /// Router and experts of a feed-forward part, shared ones included.
    Experts,
    /// Sums on the residual stream, with their scale.
    Residual,
    /// Product of the head and what is computed from its logits.
    Head,
    /// Everything else.
    Other,
}

impl Phase {
    /// All phases, in the order in which a pass comes to them.
    pub const ALL: [Self; 11] = [
        Self::Embedding,
        Self::Norm,
        Self::QueryKeyValue,
        Self::Rotary,
        Self::Attention,
        Self::Output,
        Self::FeedForward,
        Self::Experts,
        Self::Residual,
        Self::Head,
        Self::Other,
    ];
}

/// Seconds of each phase, over all passes that were given this tap.
pub struct Profile<'a> {
    clock: &'a (dyn Fn() -> f64 + Sync),
    /// The phase under way and when it began.
    under_way: Option<(Phase, f64)>,
    seconds: [f64; Phase::ALL.len()],
}

impl<'a> Profile<'a> {
    /// No time so far. `clock` gives seconds; only differences count.
    #[must_use]
    pub fn new(clock: &'a (dyn Fn() -> f64 + Sync)) -> Self {
        Self { clock, under_way: None, seconds: [0.0; Phase::ALL.len()] }
    }

    /// Seconds of a phase so far.
    #[must_use]
    pub fn seconds(&self, phase: Phase) -> f64 {
        self.seconds[phase as usize]
    }
}

impl Tap for Profile<'_> {
    fn wants(&self, _: Site) -> bool {
        false
    }

    fn begins(&mut self, phase: Phase) {
        let now = (self.clock)();
        if let Some((before, since)) = self.under_way.replace((phase, now)) {
            self.seconds[before as usize] += now - since;
        }
    }

    /// Ends the phase under way; what follows is not counted until another begins.
    fn ends(&mut self) {
        let now = (self.clock)();
        if let Some((phase, since)) = self.under_way.take() {
            self.seconds[phase as usize] += now - since;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn time_goes_to_the_phase_that_was_under_way() {
        // Readings at 1, 2, 4, 8, …
        let readings = AtomicU32::new(0);
        let clock = || f64::from(1 << readings.fetch_add(1, Ordering::Relaxed));
        let mut profile = Profile::new(&clock);
        for phase in [Phase::Embedding, Phase::Norm, Phase::Norm, Phase::Head] {
            profile.begins(phase);
        }
        profile.ends();
        profile.ends();
        profile.begins(Phase::Embedding);
        let taken = Phase::ALL.map(|phase| profile.seconds(phase)).into_iter().filter(|s| *s > 0.0);
        assert_eq!(taken.collect::<Vec<_>>(), [1.0, 6.0, 8.0]);
        assert!(Phase::ALL.iter().enumerate().all(|(i, phase)| *phase as usize == i));
    }
}
