//! Which windows are read in which step.
//!
//! Each source is read in a random order, and again in another one when it is used up. The next window comes from the
//! source that is furthest behind its share of the tokens, the first of several. All of it follows from the seed and
//! the texts.

use lathe_measure::run::Window;
use lathe_measure::statistics::item_generator;
use rand::seq::SliceRandom;

use super::SourceRead;

/// Windows of texts of one kind, at least one.
pub(super) struct Source {
    /// Texts that they are from.
    pub(super) texts: usize,
    pub(super) windows: Vec<Window>,
    /// Tokens relative to other sources.
    pub(super) share: f64,
}

/// Windows without end.
pub(super) struct Order {
    seed: u64,
    piles: Vec<Pile>,
}

struct Pile {
    source: Source,
    /// Windows that are left of this reading, the next one last.
    left: Vec<usize>,
    /// Readings that were begun.
    readings: u64,
    /// Tokens that were read.
    given: u64,
}

impl Order {
    pub(super) fn new(seed: u64, sources: Vec<Source>) -> Self {
        let pile = |source| Pile { source, left: Vec::new(), readings: 0, given: 0 };
        Self { seed, piles: sources.into_iter().map(pile).collect() }
    }

    /// The windows of the next step: as many as have at most `tokens` tokens together, and one at least.
    pub(super) fn step(&mut self, tokens: usize) -> Vec<&Window> {
        let mut chosen = Vec::new();
        let mut sum = 0;
        loop {
            let behind = |pile: &Pile| pile.given as f64 / pile.source.share;
            let piles = self.piles.iter().enumerate();
            let Some((index, _)) = piles.min_by(|(_, a), (_, b)| behind(a).total_cmp(&behind(b))) else { break };
            let pile = &mut self.piles[index];
            let window = pile.next(self.seed, index as u64);
            sum += pile.source.windows[window].ids.len();
            if sum > tokens && !chosen.is_empty() {
                break;
            }
            pile.left.pop();
            pile.given += predicted(&pile.source.windows[window]);
            chosen.push((index, window));
        }
        chosen.into_iter().map(|(index, window)| &self.piles[index].source.windows[window]).collect()
    }

    /// What was read so far.
    pub(super) fn read(&self) -> Vec<SourceRead> {
        let of_pile = |pile: &Pile| {
            let tokens: u64 = pile.source.windows.iter().map(predicted).sum();
            SourceRead { texts: pile.source.texts, tokens, passes: pile.given as f64 / tokens as f64 }
        };
        self.piles.iter().map(of_pile).collect()
    }
}

impl Pile {
    /// The next window, which stays where it is.
    fn next(&mut self, seed: u64, index: u64) -> usize {
        if self.left.is_empty() {
            self.left = (0..self.source.windows.len()).collect();
            self.left.shuffle(&mut item_generator(seed, index << 32 | self.readings));
            self.readings += 1;
        }
        self.left[self.left.len() - 1]
    }
}

fn predicted(window: &Window) -> u64 {
    (window.ids.len() - window.context) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(lengths: &[usize], share: f64) -> Source {
        let window = |(document, len): (usize, &usize)| Window { document, ids: vec![0; *len], first: 1, context: 1 };
        Source { texts: lengths.len(), windows: lengths.iter().enumerate().map(window).collect(), share }
    }

    fn documents(order: &mut Order, tokens: usize) -> Vec<usize> {
        order.step(tokens).iter().map(|window| window.document).collect()
    }

    #[test]
    fn a_reading_has_every_window_once_and_the_next_another_order() {
        let mut order = Order::new(3, vec![source(&[4; 20], 1.0)]);
        let readings: Vec<Vec<usize>> =
            (0..3).map(|_| (0..4).flat_map(|_| documents(&mut order, 20)).collect()).collect();
        for reading in &readings {
            let mut sorted = reading.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..20).collect::<Vec<_>>());
        }
        assert!(readings[0] != readings[1] && readings[1] != readings[2]);
        assert_eq!(order.read(), [SourceRead { texts: 20, tokens: 60, passes: 3.0 }]);
        let mut again = Order::new(3, vec![source(&[4; 20], 1.0)]);
        assert_eq!(documents(&mut again, 20), readings[0][..5]);
        assert_ne!(documents(&mut Order::new(4, vec![source(&[4; 20], 1.0)]), 20), readings[0][..5]);
    }

    #[test]
    fn windows_are_whole_and_fit() {
        let mut order = Order::new(1, vec![source(&[5, 9, 3, 7], 1.0)]);
        for _ in 0..50 {
            let step = order.step(12);
            assert!(!step.is_empty() && step.iter().map(|window| window.ids.len()).sum::<usize>() <= 12);
        }
        // The smallest possible step still reads something.
        assert_eq!(order.step(2).len(), 1);
    }

    #[test]
    fn sources_have_their_shares() {
        let mut order = Order::new(1, vec![source(&[11; 30], 1.0), source(&[3; 7], 3.0)]);
        (0..100).for_each(|_| _ = order.step(44));
        let read = order.read();
        let (a, b) = (read[0].passes * read[0].tokens as f64, read[1].passes * read[1].tokens as f64);
        assert!((b / a - 3.0).abs() < 0.05, "{a} and {b} tokens");
    }
}
