//! Keeps threads of the pool awake between many short pieces of work.
//!
//! Decoding a token is a hundred products of some 50 microseconds with a little sequential work between them. A worker
//! that finds nothing to do falls asleep and is woken again, which takes as long as the product that it is woken for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rayon::Yield;

/// While it lives, and as long as [`Awake::call`] is called often, some workers look for work without sleeping.
pub struct Awake(Arc<State>);

struct State {
    over: AtomicBool,
    /// Workers that are awake, or about to be.
    called: AtomicUsize,
    /// The caller's own thread has other things to do.
    owner: Option<usize>,
}

/// More workers than that wait for each other more than they help one token along.
const MOST: usize = 7;

/// Looks for work without finding any before a worker may sleep: some 100 microseconds. It also ends the wait of a
/// worker that took up watching while it had a piece of unfinished work below it.
const PATIENCE: usize = 2000;

impl Awake {
    /// Nobody is called yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it belongs to the thread that makes it")]
    pub fn new() -> Self {
        let (over, called) = (AtomicBool::new(false), AtomicUsize::new(0));
        Self(Arc::new(State { over, called, owner: rayon::current_thread_index() }))
    }

    /// Calls the workers that are not awake.
    pub fn call(&self) {
        let wanted = MOST.min(rayon::current_num_threads() - 1);
        for _ in self.0.called.load(Ordering::Relaxed)..wanted {
            self.0.called.fetch_add(1, Ordering::Relaxed);
            let state = self.0.clone();
            rayon::spawn(move || state.watch());
        }
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

impl State {
    fn watch(&self) {
        let mut idle = 0;
        while rayon::current_thread_index() != self.owner && idle < PATIENCE && !self.over.load(Ordering::Relaxed) {
            if rayon::yield_now() == Some(Yield::Executed) {
                idle = 0;
            } else {
                idle += 1;
                std::hint::spin_loop();
            }
        }
        self.called.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    /// Watchers in the middle of other work must let it end, however the pieces fall on the threads.
    #[test]
    fn nested_work_ends() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build();
        let total: usize = pool.expect("threads").install(|| {
            let outer = (0..64usize).into_par_iter().map(|outer| {
                let awake = Awake::new();
                let rounds = (0..20usize).map(|round| {
                    awake.call();
                    (0..16usize).into_par_iter().map(|inner| outer + round + inner).sum::<usize>()
                });
                rounds.sum::<usize>()
            });
            outer.sum()
        });
        let sum = |n: usize| n * (n - 1) / 2;
        assert_eq!(total, sum(64) * 20 * 16 + sum(20) * 64 * 16 + sum(16) * 64 * 20);
    }
}
