//! Packing: examples of different lengths into bins of one capacity.
//!
//! lathe's batches have no padding, positions begin anew in every sequence and attention stays within one, so a bin is
//! no other text than its examples. What packing changes is how many tokens a step reads: about as many in each.

use std::collections::BTreeSet;

/// Best-fit decreasing: the longest first, each into the fullest bin that it still fits. Of equal ones the first counts.
/// Bins in the order in which they were begun, as indices of `lengths`; what is longer than `capacity` has its own.
#[must_use]
pub fn best_fit_decreasing(lengths: &[usize], capacity: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(lengths[*index]));
    let mut bins: Vec<Vec<usize>> = Vec::new();
    // Room that is left, and which bin has it.
    let mut rooms: BTreeSet<(usize, usize)> = BTreeSet::new();
    for index in order {
        let len = lengths[index];
        let found = rooms.range((len, 0)..).next().copied();
        let (room, bin) = match found {
            Some((room, bin)) => {
                rooms.remove(&(room, bin));
                (room, bin)
            }
            None => {
                bins.push(Vec::new());
                (capacity.max(len), bins.len() - 1)
            }
        };
        bins[bin].push(index);
        rooms.insert((room - len, bin));
    }
    bins
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(lengths: &[usize], capacity: usize) -> Vec<Vec<usize>> {
        let bins = best_fit_decreasing(lengths, capacity);
        bins.iter().map(|bin| bin.iter().map(|index| lengths[*index]).collect()).collect()
    }

    #[test]
    fn the_worked_examples() {
        assert_eq!(packed(&[5, 2, 3, 1], 5), [vec![5], vec![3, 2], vec![1]]);
        assert_eq!(packed(&[7, 5, 4, 3, 1], 8), [vec![7, 1], vec![5, 3], vec![4]]);
        // After the longest was cut from 5 to 4.
        assert_eq!(packed(&[4, 2, 3, 1], 4), [vec![4], vec![3, 1], vec![2]]);
        assert!(packed(&[], 4).is_empty());
        assert_eq!(packed(&[9, 1], 4), [vec![9], vec![1]]);
    }

    proptest! {
        #[test]
        fn every_example_is_in_one_bin_and_no_bin_is_too_full(
            lengths in proptest::collection::vec(1usize..30, 0..60), capacity in 30usize..60,
        ) {
            let bins = best_fit_decreasing(&lengths, capacity);
            let mut all: Vec<usize> = bins.iter().flatten().copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
            let fill = |bin: &Vec<usize>| bin.iter().map(|index| lengths[*index]).sum::<usize>();
            prop_assert!(bins.iter().all(|bin| fill(bin) <= capacity));
            // Two bins that fit into one would be a poor packing: at most one is half empty.
            prop_assert!(bins.iter().filter(|bin| 2 * fill(bin) <= capacity).count() <= 1);
        }
    }
}
