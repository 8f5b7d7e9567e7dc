//! Which examples are read in which step: all of it follows from a seed, so that a run that goes on finds its place by
//! counting.

use lathe_measure::statistics::item_generator;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

/// In which order the examples of an epoch are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// In another random order in each epoch.
    #[default]
    Shuffle,
    /// As they are in the file.
    File,
}

/// Where a run is in its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Readings of all data that are complete.
    pub epoch: u64,
    /// What was read of the next one: units of [`Epochs`], tokens of [`Shares`].
    pub position: u64,
}

/// Examples without end, or for a number of epochs.
pub enum Order {
    /// Every unit once in each epoch.
    Epochs(Epochs),
    /// Sources by their shares.
    Shares(Shares),
}

impl Order {
    /// The examples of the next step, by their index, in micro-batches; empty when nothing is left.
    pub fn step(&mut self) -> Vec<Vec<usize>> {
        match self {
            Self::Epochs(epochs) => epochs.step(),
            Self::Shares(shares) => vec![shares.step()],
        }
    }

    /// Where it is.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        match self {
            Self::Epochs(epochs) => {
                let units = epochs.units.len().max(1) as u64;
                Cursor { epoch: epochs.at / units, position: epochs.at % units }
            }
            Self::Shares(shares) => {
                let given = shares.piles.iter().map(|pile| pile.given).sum();
                Cursor { epoch: 0, position: given }
            }
        }
    }
}

/// Units (examples, or bins of them) in epochs. A step that begins in one epoch may end in the next.
pub struct Epochs {
    units: Vec<Vec<usize>>,
    batch: usize,
    accumulate: usize,
    reading: Reading,
    seed: u64,
    /// Units in all; none for no end.
    limit: Option<u64>,
    at: u64,
    /// The order of an epoch.
    permutation: Option<(u64, Vec<usize>)>,
}

impl Epochs {
    /// `units` of example indices; a step reads `accumulate` micro-batches of `batch` units. `epochs` of none are without
    /// end.
    #[must_use]
    pub fn new(
        units: Vec<Vec<usize>>,
        batch: usize,
        accumulate: usize,
        reading: Reading,
        seed: u64,
        epochs: Option<usize>,
    ) -> Self {
        let limit = epochs.map(|epochs| (epochs * units.len()) as u64);
        let (batch, accumulate) = (batch.max(1), accumulate.max(1));
        Self { units, batch, accumulate, reading, seed, limit, at: 0, permutation: None }
    }

    /// Units of an epoch.
    #[must_use]
    pub fn units(&self) -> usize {
        self.units.len()
    }

    /// Steps until nothing is left; none without end.
    #[must_use]
    pub fn steps(&self) -> Option<usize> {
        let limit = usize::try_from(self.limit?).unwrap_or(usize::MAX);
        Some(limit.div_ceil(self.batch * self.accumulate))
    }

    fn step(&mut self) -> Vec<Vec<usize>> {
        let mut micro_batches = Vec::with_capacity(self.accumulate);
        for _ in 0..self.accumulate {
            let mut examples = Vec::new();
            for _ in 0..self.batch {
                let Some(unit) = self.next() else { break };
                examples.extend_from_slice(&self.units[unit]);
            }
            if examples.is_empty() {
                break;
            }
            micro_batches.push(examples);
        }
        micro_batches
    }

    fn next(&mut self) -> Option<usize> {
        let units = self.units.len() as u64;
        if units == 0 || self.limit.is_some_and(|limit| self.at >= limit) {
            return None;
        }
        let (epoch, position) = (self.at / units, (self.at % units) as usize);
        self.at += 1;
        if self.reading == Reading::File {
            return Some(position);
        }
        if self.permutation.as_ref().is_none_or(|(of, _)| *of != epoch) {
            let mut order: Vec<usize> = (0..self.units.len()).collect();
            order.shuffle(&mut item_generator(self.seed, epoch));
            self.permutation = Some((epoch, order));
        }
        self.permutation.as_ref().map(|(_, order)| order[position])
    }
}

/// Examples of one kind.
#[derive(Clone, Debug)]
pub struct Source {
    /// Texts that they are from.
    pub texts: usize,
    /// Index of its first example among all.
    pub first: usize,
    /// Tokens of each example, and how many of them are predicted.
    pub lengths: Vec<(usize, u64)>,
    /// Tokens relative to other sources.
    pub share: f64,
}

/// What was read of a source.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SourceRead {
    /// Its texts.
    pub texts: usize,
    /// Tokens that one reading of them predicts.
    pub tokens: u64,
    /// Tokens that were predicted, over that: how often each was read.
    pub passes: f64,
}

/// Sources by their shares, without end. Each is read in a random order, and again in another one when it is used up. The
/// next example comes from the source that is furthest behind its share of the tokens, the first of several.
pub struct Shares {
    seed: u64,
    /// Tokens of a step.
    tokens: usize,
    piles: Vec<Pile>,
}

struct Pile {
    source: Source,
    /// Examples that are left of this reading, the next one last.
    left: Vec<usize>,
    /// Readings that were begun.
    readings: u64,
    /// Tokens that were read.
    given: u64,
}

impl Shares {
    /// Every source has an example at least.
    #[must_use]
    pub fn new(seed: u64, tokens: usize, sources: Vec<Source>) -> Self {
        let pile = |source| Pile { source, left: Vec::new(), readings: 0, given: 0 };
        Self { seed, tokens, piles: sources.into_iter().map(pile).collect() }
    }

    /// The examples of the next step: as many as have at most so many tokens together, and one at least.
    fn step(&mut self) -> Vec<usize> {
        let mut chosen = Vec::new();
        let mut sum = 0;
        loop {
            let behind = |pile: &Pile| pile.given as f64 / pile.source.share;
            let piles = self.piles.iter().enumerate();
            let Some((index, _)) = piles.min_by(|(_, a), (_, b)| behind(a).total_cmp(&behind(b))) else { break };
            let pile = &mut self.piles[index];
            let example = pile.next(self.seed, index as u64);
            let (len, predicted) = pile.source.lengths[example];
            sum += len;
            if sum > self.tokens && !chosen.is_empty() {
                break;
            }
            pile.left.pop();
            pile.given += predicted;
            chosen.push(pile.source.first + example);
        }
        chosen
    }

    /// What was read so far.
    #[must_use]
    pub fn read(&self) -> Vec<SourceRead> {
        let of_pile = |pile: &Pile| {
            let tokens: u64 = pile.source.lengths.iter().map(|(_, predicted)| predicted).sum();
            SourceRead { texts: pile.source.texts, tokens, passes: pile.given as f64 / tokens as f64 }
        };
        self.piles.iter().map(of_pile).collect()
    }
}

impl Pile {
    /// The next example, which stays where it is.
    fn next(&mut self, seed: u64, index: u64) -> usize {
        if self.left.is_empty() {
            self.left = (0..self.source.lengths.len()).collect();
            self.left.shuffle(&mut item_generator(seed, index << 32 | self.readings));
            self.readings += 1;
        }
        self.left[self.left.len() - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(units: usize, batch: usize, accumulate: usize, reading: Reading, limit: Option<usize>) -> Order {
        let units = (0..units).map(|unit| vec![unit]).collect();
        Order::Epochs(Epochs::new(units, batch, accumulate, reading, 3, limit))
    }

    #[test]
    fn the_order_of_the_file_goes_round() {
        let mut order = epochs(5, 2, 1, Reading::File, None);
        let steps: Vec<_> = (0..4).map(|_| order.step().concat()).collect();
        assert_eq!(steps, [[0, 1], [2, 3], [4, 0], [1, 2]]);
        assert_eq!(order.cursor(), Cursor { epoch: 1, position: 3 });
        let mut order = epochs(5, 2, 2, Reading::File, Some(1));
        assert_eq!(order.step(), [[0, 1], [2, 3]]);
        assert_eq!(order.step(), [[4]]);
        assert!(order.step().is_empty());
        let Order::Epochs(order) = order else { panic!("epochs") };
        assert_eq!(order.steps(), Some(2));
    }

    #[test]
    fn an_epoch_has_every_unit_once_and_the_next_another_order() {
        let mut order = epochs(20, 5, 1, Reading::Shuffle, Some(3));
        let read: Vec<Vec<usize>> = (0..3).map(|_| (0..4).flat_map(|_| order.step().concat()).collect()).collect();
        for epoch in &read {
            let mut sorted = epoch.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..20).collect::<Vec<_>>());
        }
        assert!(read[0] != read[1] && read[1] != read[2]);
        assert!(order.step().is_empty());
        // Another run of the same settings reads the same.
        let mut again = epochs(20, 5, 1, Reading::Shuffle, Some(3));
        assert_eq!(again.step().concat(), read[0][..5]);
    }

    fn source(first: usize, lengths: &[usize], share: f64) -> Source {
        let lengths: Vec<(usize, u64)> = lengths.iter().map(|len| (*len, *len as u64 - 1)).collect();
        Source { texts: lengths.len(), first, lengths, share }
    }

    #[test]
    fn a_reading_has_every_example_once() {
        let mut shares = Shares::new(3, 20, vec![source(0, &[4; 20], 1.0)]);
        let readings: Vec<Vec<usize>> = (0..3).map(|_| (0..4).flat_map(|_| shares.step()).collect()).collect();
        for reading in &readings {
            let mut sorted = reading.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..20).collect::<Vec<_>>());
        }
        assert!(readings[0] != readings[1] && readings[1] != readings[2]);
        assert_eq!(shares.read(), [SourceRead { texts: 20, tokens: 60, passes: 3.0 }]);
        assert_eq!(Shares::new(3, 20, vec![source(0, &[4; 20], 1.0)]).step(), readings[0][..5]);
        assert_ne!(Shares::new(4, 20, vec![source(0, &[4; 20], 1.0)]).step(), readings[0][..5]);
    }

    #[test]
    fn examples_are_whole_and_fit() {
        let lengths = [5, 9, 3, 7];
        let mut shares = Shares::new(1, 12, vec![source(0, &lengths, 1.0)]);
        for _ in 0..50 {
            let step = shares.step();
            assert!(!step.is_empty() && step.iter().map(|index| lengths[*index]).sum::<usize>() <= 12);
        }
        // The smallest possible step still reads something.
        assert_eq!(Shares::new(1, 2, vec![source(0, &lengths, 1.0)]).step().len(), 1);
    }

    #[test]
    fn sources_have_their_shares() {
        let mut shares = Shares::new(1, 44, vec![source(0, &[11; 30], 1.0), source(30, &[3; 7], 3.0)]);
        (0..100).for_each(|_| _ = shares.step());
        let read = shares.read();
        let (a, b) = (read[0].passes * read[0].tokens as f64, read[1].passes * read[1].tokens as f64);
        assert!((b / a - 3.0).abs() < 0.05, "{a} and {b} tokens");
    }
}
