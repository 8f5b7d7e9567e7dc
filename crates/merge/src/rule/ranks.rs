//! Ranks of the numbers of a row by size.

use lathe_kernels::weights::difference_keys;

/// Values of a digit: a key has four of 8 bits.
const VALUES: usize = 1 << 8;

/// Ranks of the differences' sizes in a row, from 0 for the smallest; of equal ones the first has the lower rank.
///
/// Sorted by the lowest digit first: each of the four passes keeps the order of the one before it, and the first
/// begins with that of the positions.
pub(super) fn rank_row(base: &[f32], x: &[f32], ranks: &mut Vec<u32>) {
    let mut keys = vec![0; base.len()];
    difference_keys(base, x, &mut keys);
    let mut begins = [[0u32; VALUES]; 4];
    for key in &keys {
        for (counts, digit) in begins.iter_mut().zip(key.to_le_bytes()) {
            counts[usize::from(digit)] += 1;
        }
    }
    for counts in &mut begins {
        let mut total = 0;
        for count in counts {
            (*count, total) = (total, total + *count);
        }
    }
    let mut from: Vec<(u32, u32)> = keys.into_iter().zip(0..).collect();
    let mut to = from.clone();
    for (digit, begins) in begins.iter_mut().enumerate() {
        for item in &from {
            let begin = &mut begins[usize::from(item.0.to_le_bytes()[digit])];
            to[*begin as usize] = *item;
            *begin += 1;
        }
        std::mem::swap(&mut from, &mut to);
    }
    ranks.clear();
    ranks.resize(from.len(), 0);
    for ((_, position), rank) in from.iter().zip(0..) {
        ranks[*position as usize] = rank;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_a_stable_sort() {
        for len in [0usize, 1, 2, 100, 5000] {
            let base = vec![0.0; len];
            let coarse = |i: usize| ((i * 7919 % 613) as f32 - 300.0) * if i.is_multiple_of(3) { 1e-30 } else { 1e3 };
            let x: Vec<f32> = (0..len).map(coarse).collect();
            let mut order: Vec<usize> = (0..len).collect();
            order.sort_by(|a, b| x[*a].abs().total_cmp(&x[*b].abs()));
            let mut ranks = vec![9; 3];
            rank_row(&base, &x, &mut ranks);
            for (rank, position) in order.iter().enumerate() {
                assert_eq!(ranks[*position] as usize, rank);
            }
            assert_eq!(ranks.len(), len);
        }
    }
}
