//! Where random numbers come from.

use lathe_measure::statistics::item_generator;
use rand::Rng;

/// Words of an item's stream that belong to one step: a block of ChaCha.
const WORDS_PER_STEP: u128 = 16;

/// The number in `[0, 1)` of step `step` of item `item` under `seed`: a function of the three and of nothing else.
#[must_use]
pub fn uniform(seed: u64, item: u64, step: u64) -> f64 {
    let mut generator = item_generator(seed, item);
    generator.set_word_pos(u128::from(step) * WORDS_PER_STEP);
    generator.random()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_items_have_their_own_numbers() {
        let mut seen: Vec<f64> = (0..20).flat_map(|item| (0..20).map(move |step| uniform(3, item, step))).collect();
        assert_eq!(uniform(3, 7, 11), seen[7 * 20 + 11]);
        assert_ne!(uniform(4, 7, 11), seen[7 * 20 + 11]);
        seen.sort_by(f64::total_cmp);
        seen.dedup();
        assert_eq!(seen.len(), 400);
        // 400 numbers: the mean of uniform ones is 0.5 with a standard error of 0.0144.
        assert!((seen.iter().sum::<f64>() / 400.0 - 0.5).abs() < 4.0 * 0.0144);
    }
}
