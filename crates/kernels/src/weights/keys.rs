//! Keys by which positions are ranked: the bits of a non-negative f32, which are ordered as the numbers are. Two counts
//! of 2^15 and 2^16 bins find the k-th largest exactly.

use super::{by_count, cut};
use crate::isa::dispatch;

/// Keys are below this one: the sign is gone.
pub const KEY_LIMIT: u32 = 1 << 31;

/// Values of a key's upper 16 bits.
pub const UPPER: usize = 1 << 15;

/// Values of a key's lower 16 bits.
pub const LOWER: usize = 1 << 16;

/// Tables among which neighbours are counted in turn: adding to a number that was just stored makes a processor wait.
pub const TABLES: usize = 4;

dispatch! {
    /// |x − b| as keys.
    pub fn difference_keys(base: &[f32], x: &[f32], keys: &mut [u32]) {
        for ((key, x), b) in keys.iter_mut().zip(x).zip(base) {
            *key = (x - b).to_bits() & (KEY_LIMIT - 1);
        }
    }
}

dispatch! {
    /// The variance of a position over the models (the sum of squares around their mean, in f64, rounded to f32) as
    /// keys. What is below the least normal f32 counts as zero.
    pub fn spread_keys(models: &[&[f32]], keys: &mut [u32]) {
        by_count!(models.len(), N => spread_of(&cut::<_, N>(models, keys.len()), keys), spread_of(models, keys));
    }
}

#[inline(always)]
fn spread_of(models: &[&[f32]], keys: &mut [u32]) {
    for (i, key) in keys.iter_mut().enumerate() {
        // Equal numbers are their mean: their sum is exact in f64, and so is the quotient.
        let mut mean = 0.0;
        for x in models {
            mean += f64::from(x[i]);
        }
        mean /= models.len() as f64;
        let mut sum = 0.0f64;
        for x in models {
            let away = f64::from(x[i]) - mean;
            sum = away.mul_add(away, sum);
        }
        // A spread beyond f32 is as large as any.
        let spread = (sum as f32).min(f32::MAX);
        *key = if spread < f32::MIN_POSITIVE { 0 } else { spread.to_bits() };
    }
}

/// Counts keys by their upper 16 bits in one of the [`TABLES`] tables of [`UPPER`] counts.
///
/// # Panics
/// When the tables have another size.
pub fn count_upper(keys: &[u32], tables: &mut [u32]) {
    let ([a, b, c, d], []) = tables.as_chunks_mut::<UPPER>() else { unreachable!("{TABLES} tables") };
    let (fours, rest) = keys.as_chunks::<TABLES>();
    for four in fours {
        let [ka, kb, kc, kd] = four.map(|key| (key >> 16) as usize % UPPER);
        a[ka] += 1;
        b[kb] += 1;
        c[kc] += 1;
        d[kd] += 1;
    }
    for key in rest {
        a[(key >> 16) as usize % UPPER] += 1;
    }
}

/// Neighbours of which most have nothing to be found.
const GROUP: usize = 32;

dispatch! {
    /// Counts the keys with these upper bits by their lower bits, in `counts`, `[LOWER]`.
    pub fn count_lower(keys: &[u32], upper: u32, counts: &mut [u32]) {
        for group in keys.chunks(GROUP) {
            let found = group.iter().fold(false, |found, key| found | (key >> 16 == upper));
            if found {
                for key in group {
                    if key >> 16 == upper {
                        counts[(key & 0xffff) as usize] += 1;
                    }
                }
            }
        }
    }
}

dispatch! {
    /// Writes `lower bits · 2^16 + position` of the keys with these upper bits to `found`, which is as long as `keys`,
    /// and returns how many they are. Positions count from `first` and end before 2^16.
    pub fn collect_lower(keys: &[u32], upper: u32, first: u32, found: &mut [u32]) -> usize {
        let found = &mut found[..keys.len()];
        let (mut count, mut position) = (0, first);
        for group in keys.chunks(GROUP) {
            let any = group.iter().fold(false, |any, key| any | (key >> 16 == upper));
            if any {
                for (key, position) in group.iter().zip(position..) {
                    found[count] = key << 16 | position;
                    count += usize::from(key >> 16 == upper);
                }
            }
            position += GROUP as u32;
        }
        count
    }
}

dispatch! {
    /// How many keys are this one.
    pub fn count_equal(keys: &[u32], key: u32) -> u32 {
        keys.iter().fold(0, |count, k| count + u32::from(*k == key))
    }
}
