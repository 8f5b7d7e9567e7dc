//! What a task gets from outside: where models are, a clock, a place for progress.

use lathe_model::Weights;
use lathe_model::reference::Home;

/// Reports how far long work is. The binary shows it; tests and other programs may ignore it.
pub trait Progress: Sync {
    /// A new stage begins. A `total` of 0 is unknown; the unit `"B"` is shown as bytes.
    fn start(&self, what: &str, total: u64, unit: &str);
    /// `by` more units are done.
    fn advance(&self, by: u64);
    /// What the stage has come to so far: a loss, a speed.
    fn note(&self, text: &str) {
        let _ = text;
    }
    /// The stage is over.
    fn finish(&self);
}

/// Shows nothing.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _: &str, _: u64, _: &str) {}
    fn advance(&self, _: u64) {}
    fn finish(&self) {}
}

/// The surroundings of a task.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Where fetched models are.
    pub home: &'a Home,
    /// Where progress goes.
    pub progress: &'a dyn Progress,
    /// A monotonic clock, seconds; only durations are taken from it.
    pub seconds: &'a (dyn Fn() -> f64 + Sync),
    /// Largest resident memory of the process so far, bytes; none where the system does not say.
    pub peak_memory: &'a (dyn Fn() -> Option<u64> + Sync),
    /// How the weights of models are held while a task runs. No result depends on it, unless a spec chooses its arithmetic.
    pub weights: Weights,
}

impl Context<'_> {
    /// Runs `work` as a stage with progress.
    pub(crate) fn stage<T>(&self, what: &str, total: u64, unit: &str, work: impl FnOnce() -> T) -> T {
        self.progress.start(what, total, unit);
        let result = work();
        self.progress.finish();
        result
    }

    /// Runs `work` and returns its duration in seconds.
    pub(crate) fn timed<T>(&self, work: impl FnOnce() -> T) -> (T, f64) {
        let started = (self.seconds)();
        let result = work();
        (result, (self.seconds)() - started)
    }
}
