//! Averages, percentiles, moments, histogram entropy and the bootstrap that the measurements share.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::measured::{Estimate, Interval, Measured, Number, Reason};

/// Resamples of every bootstrap interval.
pub const BOOTSTRAP_RESAMPLES: usize = 2_000;

/// Estimates with 95 % percentile bootstrap intervals over `units` (documents or windows).
///
/// `statistics` gets how often each unit is drawn, `[units]`; with all ones it must give the value on
/// the full sample. The draws of resample `b` come from (`seed`, `b`) alone, so two calls with the same
/// seed see the same resamples and the result does not depend on the number of threads. Resamples in
/// which a statistic is undefined are left out of its interval and of [`Interval::resamples`]; fewer
/// than half of them leave no interval.
pub fn bootstrap<const K: usize>(
    units: usize,
    seed: u64,
    statistics: impl Fn(&[u32]) -> [Number; K] + Sync,
) -> [Estimate; K] {
    let full = statistics(&vec![1; units]);
    if units < 2 {
        let interval = Measured::Undefined(Reason::OneUnit);
        return full.map(|value| Estimate { value, n: units, interval });
    }
    let resampled: Vec<[Number; K]> = (0..BOOTSTRAP_RESAMPLES as u64)
        .into_par_iter()
        .map(|resample| statistics(&draw_with_replacement(units, seed, resample)))
        .collect();
    std::array::from_fn(|k| {
        let values = resampled.iter().filter_map(|statistics| statistics[k].value()).collect();
        let interval = match full[k] {
            Measured::Value(_) => percentile_interval(values),
            Measured::Undefined(reason) => Measured::Undefined(reason),
        };
        Estimate { value: full[k], n: units, interval }
    })
}

/// Mean of the defined values with its bootstrap interval; `n` counts the defined ones.
pub fn bootstrap_mean(values: &[Number], seed: u64) -> Estimate {
    let defined: Vec<f64> = values.iter().filter_map(|number| number.value()).collect();
    let [estimate] = bootstrap(defined.len(), seed, |drawn| {
        let sum: f64 = defined.iter().zip(drawn).map(|(value, &times)| value * f64::from(times)).sum();
        [Number::ratio(sum, defined.len() as f64, Reason::Empty)]
    });
    estimate
}

/// Estimates with 95 % intervals from halves of the units, for statistics that a unit drawn twice would distort: two equal units are
/// always in one cluster, so that resamples with repetitions agree better than the sample does.
///
/// A resample is half of the units (rounded down), none of them twice. A mean over half of a finite list varies about that of the whole
/// list as a mean over n units does about its expectation (the delete-half jackknife of Shao and Wu 1989), so percentiles need no
/// scale. They are moved by the difference of the full value and their mean, since a statistic may be larger on fewer units.
/// `statistics` gets 0 or 1 for each unit, `[units]`; with all ones it must give the value on the full sample.
pub fn by_halves<const K: usize>(
    units: usize,
    seed: u64,
    statistics: impl Fn(&[u32]) -> [Number; K] + Sync,
) -> [Estimate; K] {
    let full = statistics(&vec![1; units]);
    if units < 4 {
        let interval = Measured::Undefined(Reason::OneUnit);
        return full.map(|value| Estimate { value, n: units, interval });
    }
    let resampled: Vec<[Number; K]> = (0..BOOTSTRAP_RESAMPLES as u64)
        .into_par_iter()
        .map(|resample| statistics(&draw_half(units, seed, resample)))
        .collect();
    std::array::from_fn(|k| {
        let values: Vec<f64> = resampled.iter().filter_map(|statistics| statistics[k].value()).collect();
        let interval = match (full[k], mean(&values)) {
            (Measured::Value(value), Measured::Value(centre)) => {
                percentile_interval(values.into_iter().map(|other| other + (value - centre)).collect())
            }
            (Measured::Undefined(reason), _) | (_, Measured::Undefined(reason)) => Measured::Undefined(reason),
        };
        Estimate { value: full[k], n: units, interval }
    })
}

/// The generator of item `item` under `seed`: its stream is independent of every other item's.
pub fn item_generator(seed: u64, item: u64) -> ChaCha8Rng {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(item);
    generator
}

/// Percentile of ascending `sorted` values, `share` in 0..=1, linear between neighbours.
pub fn percentile(sorted: &[f64], share: f64) -> Number {
    let Some(last) = sorted.len().checked_sub(1) else {
        return Measured::Undefined(Reason::Empty);
    };
    let position = share.clamp(0.0, 1.0) * last as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(last);
    Number::from(sorted[below] + (position - below as f64) * (sorted[above] - sorted[below]))
}

/// Arithmetic mean.
pub fn mean(values: &[f64]) -> Number {
    Number::ratio(values.iter().sum(), values.len() as f64, Reason::Empty)
}

/// Sample standard deviation (n − 1); undefined with fewer than two values.
pub fn standard_deviation(values: &[f64]) -> Number {
    if values.len() == 1 {
        return Measured::Undefined(Reason::OneUnit);
    }
    mean(values).map(|centre| {
        let squares: f64 = values.iter().map(|value| (value - centre).powi(2)).sum();
        (squares / (values.len() - 1) as f64).sqrt()
    })
}

/// How far a number lies apart in runs that differ in their seed only.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Runs in which it has a value.
    pub n: usize,
    /// Their mean.
    pub mean: Number,
    /// Their sample standard deviation (n − 1); undefined with fewer than two.
    pub sd: Number,
    /// The smallest.
    pub least: Number,
    /// The largest.
    pub most: Number,
}

impl Spread {
    /// Of the values that are defined.
    pub fn of(values: &[Number]) -> Self {
        let known: Vec<f64> = values.iter().filter_map(|number| number.value()).collect();
        let reason = values.iter().find_map(Measured::reason).unwrap_or(Reason::Empty);
        let end = |pick: fn(f64, f64) -> f64| {
            known.iter().copied().reduce(pick).map_or(Number::Undefined(reason), Number::Value)
        };
        let mean = if known.is_empty() { Number::Undefined(reason) } else { mean(&known) };
        let sd = if known.is_empty() { mean } else { standard_deviation(&known) };
        Self { n: known.len(), mean, sd, least: end(f64::min), most: end(f64::max) }
    }
}

/// Skewness g1 = m3 / m2^1.5 with population moments; undefined when all values are equal.
pub fn skewness(values: &[f64]) -> Number {
    standardised_moment(values, 3)
}

/// Kurtosis m4 / m2² with population moments (3 for a normal distribution, not the excess);
/// undefined when all values are equal.
pub fn kurtosis(values: &[f64]) -> Number {
    standardised_moment(values, 4)
}

/// Entropy in nats of a histogram with `bins` equal-width bins from the smallest to the largest value;
/// 0 when all values are equal. It depends on the extremes: one outlier lowers it.
pub fn histogram_entropy(values: &[f64], bins: usize) -> Number {
    if values.is_empty() || bins == 0 {
        return Measured::Undefined(Reason::Empty);
    }
    let total = values.len() as f64;
    let entropy: f64 = histogram(values, bins)
        .into_iter()
        .filter(|&count| count > 0)
        .map(|count| count as f64 / total)
        .map(|share| -share * share.ln())
        .sum();
    // A single full bin gives -1 ln 1 = -0.
    Number::from(entropy.max(0.0))
}

/// Counts per bin, `[bins]`. Bins are closed on the right and the smallest value is in the first, which
/// is how R's `cut(include.lowest = TRUE)` counts, and with it the paper (JURIX 2024, Table 2).
pub fn histogram(values: &[f64], bins: usize) -> Vec<usize> {
    if bins == 0 {
        return Vec::new();
    }
    let mut counts = vec![0; bins];
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let width = (high - low) / bins as f64;
    let edges: Vec<f64> = (1..bins).map(|edge| low + edge as f64 * width).collect();
    for &value in values {
        counts[edges.partition_point(|&edge| edge < value)] += 1;
    }
    counts
}

/// How often each of `units` comes up in as many draws with replacement.
fn draw_with_replacement(units: usize, seed: u64, resample: u64) -> Vec<u32> {
    let mut generator = item_generator(seed, resample);
    let mut times = vec![0; units];
    for _ in 0..units {
        times[generator.random_range(0..units as u64) as usize] += 1;
    }
    times
}

fn draw_half(units: usize, seed: u64, resample: u64) -> Vec<u32> {
    let mut order: Vec<usize> = (0..units).collect();
    let (drawn, _) = order.partial_shuffle(&mut item_generator(seed, resample), units / 2);
    let mut times = vec![0; units];
    drawn.iter().for_each(|unit| times[*unit] = 1);
    times
}

fn percentile_interval(mut values: Vec<f64>) -> Measured<Interval> {
    if values.len() * 2 < BOOTSTRAP_RESAMPLES {
        return Measured::Undefined(Reason::TooFewResamples);
    }
    values.sort_by(f64::total_cmp);
    match (percentile(&values, 0.025), percentile(&values, 0.975)) {
        (Measured::Value(low), Measured::Value(high)) => {
            Measured::Value(Interval { low, high, resamples: values.len() })
        }
        _ => Measured::Undefined(Reason::TooFewResamples),
    }
}

fn standardised_moment(values: &[f64], order: i32) -> Number {
    // Compared before the mean is taken: its rounding would leave a spread of 1e-17 behind.
    if values.windows(2).all(|pair| pair[0] == pair[1]) {
        return Measured::Undefined(if values.is_empty() { Reason::Empty } else { Reason::Constant });
    }
    let moment = |centre: f64, order: i32| {
        values.iter().map(|value| (value - centre).powi(order)).sum::<f64>() / values.len() as f64
    };
    mean(values).map(|centre| moment(centre, order) / moment(centre, 2).powf(f64::from(order) / 2.0))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// measure.md 4.7 B.
    const DIFFERENCES: [f64; 8] = [-0.02, -0.01, 0.0, 0.01, 0.05, -0.03, 0.0, 0.04];

    fn close(number: Number, expected: f64) -> bool {
        (number.value().unwrap() - expected).abs() < 5e-7
    }

    #[test]
    fn worked_example_of_moments_and_histogram() {
        assert!(close(mean(&DIFFERENCES), 0.005));
        assert!(close(skewness(&DIFFERENCES), 0.513200));
        assert!(close(kurtosis(&DIFFERENCES), 2.069959));
        assert_eq!(histogram(&DIFFERENCES, 4), [3, 3, 0, 2]);
        assert!(close(histogram_entropy(&DIFFERENCES, 4), 1.082196));
        assert_eq!(histogram(&DIFFERENCES, 11), [1, 1, 1, 0, 2, 1, 0, 0, 0, 1, 1]);
        assert!(close(histogram_entropy(&DIFFERENCES, 11), 1.906155));
    }

    #[test]
    fn halves_know_how_far_a_mean_varies() {
        let values: Vec<f64> = (0..60).map(|index| f64::from(index * 37 % 60)).collect();
        let mean_of = |times: &[u32]| {
            let drawn: f64 = times.iter().map(|times| f64::from(*times)).sum();
            let sum: f64 = values.iter().zip(times).map(|(value, times)| value * f64::from(*times)).sum();
            [Number::ratio(sum, drawn, Reason::Empty)]
        };
        let width = |[of]: [Estimate; 1]| of.interval.value().map(|interval| interval.high - interval.low).unwrap();
        let (drawn, halved) = (bootstrap(60, 3, mean_of), by_halves(60, 3, mean_of));
        assert_eq!(drawn[0].value, halved[0].value);
        let ratio = width(halved) / width(drawn);
        assert!((0.85..1.15).contains(&ratio), "{ratio}");
        // What is larger on fewer units is moved back: the interval lies about the value.
        let per_unit = |times: &[u32]| [Number::from(60.0 / f64::from(times.iter().sum::<u32>()))];
        let [of] = by_halves(60, 3, per_unit);
        let interval = of.interval.value().unwrap();
        assert_eq!((of.value, interval.low, interval.high), (Number::Value(1.0), 1.0, 1.0));
        assert_eq!(by_halves(3, 3, per_unit)[0].interval, Measured::Undefined(Reason::OneUnit));
    }

    #[test]
    fn spread_of_seeds() {
        let values = [1.0, 2.0, 4.0].map(Number::from);
        let spread = Spread::of(&values);
        assert_eq!((spread.n, spread.least, spread.most), (3, Number::Value(1.0), Number::Value(4.0)));
        assert!(close(spread.mean, 7.0 / 3.0) && close(spread.sd, 1.527525));
        // What has no value takes no part.
        let with_gap = Spread::of(&[values.as_slice(), &[Number::Undefined(Reason::Constant)]].concat());
        assert_eq!(with_gap, spread);
        let one = Spread::of(&values[..1]);
        assert_eq!((one.mean, one.sd), (Number::Value(1.0), Number::Undefined(Reason::OneUnit)));
        let none = Spread::of(&[Number::Undefined(Reason::Constant)]);
        assert_eq!((none.n, none.mean, none.least), (0, Number::Undefined(Reason::Constant), none.most));
        assert_eq!(Spread::of(&[]).mean, Number::Undefined(Reason::Empty));
    }

    #[test]
    fn constant_and_empty_values() {
        let constant = [0.1; 3];
        assert_eq!(skewness(&constant), Number::Undefined(Reason::Constant));
        assert_eq!(kurtosis(&constant), Number::Undefined(Reason::Constant));
        assert_eq!(histogram_entropy(&constant, 11), Number::Value(0.0));
        assert_eq!(mean(&[]), Number::Undefined(Reason::Empty));
        assert_eq!(kurtosis(&[]), Number::Undefined(Reason::Empty));
        assert_eq!(histogram_entropy(&[], 11), Number::Undefined(Reason::Empty));
        assert!(histogram(&constant, 0).is_empty());
        assert_eq!(percentile(&[], 0.5), Number::Undefined(Reason::Empty));
        assert_eq!(standard_deviation(&[1.0]), Number::Undefined(Reason::OneUnit));
        assert!(close(standard_deviation(&[1.0, 2.0, 4.0]), 1.527525));
    }

    #[test]
    fn percentiles_are_linear_between_neighbours() {
        let sorted = [1.0, 2.0, 4.0, 8.0];
        assert_eq!(percentile(&sorted, 0.0), Number::Value(1.0));
        assert_eq!(percentile(&sorted, 0.5), Number::Value(3.0));
        assert_eq!(percentile(&sorted, 1.0), Number::Value(8.0));
        assert_eq!(percentile(&[7.0], 0.3), Number::Value(7.0));
    }

    #[test]
    fn bootstrap_covers_the_mean_and_repeats() {
        let values: Vec<Number> = (0..40).map(|i| Number::from(f64::from(i % 7))).collect();
        let estimate = bootstrap_mean(&values, 5);
        let interval = estimate.interval.value().unwrap();
        let centre = estimate.value.value().unwrap();
        assert!(interval.low < centre && centre < interval.high);
        // Normal theory: 1.96 sd / sqrt n on either side, within a tenth.
        let values: Vec<f64> = values.iter().filter_map(|v| v.value()).collect();
        let half = 1.96 * standard_deviation(&values).value().unwrap() / 40f64.sqrt();
        assert!(((interval.high - interval.low) / (2.0 * half) - 1.0).abs() < 0.1);
        let numbers: Vec<Number> = values.iter().map(|&v| Number::from(v)).collect();
        assert_eq!(bootstrap_mean(&numbers, 5), estimate);
        assert_ne!(bootstrap_mean(&numbers, 6).interval, estimate.interval);
    }

    #[test]
    fn bootstrap_does_not_depend_on_threads() {
        let values: Vec<Number> = (0..9).map(|i| Number::from(0.1 * f64::from(i * i))).collect();
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let one = pool(1).install(|| bootstrap_mean(&values, 1));
        let four = pool(4).install(|| bootstrap_mean(&values, 1));
        assert_eq!(one, four);
    }

    #[test]
    fn bootstrap_of_one_none_and_undefined() {
        let one = bootstrap_mean(&[Number::from(3.0), Number::Undefined(Reason::OneToken)], 0);
        assert_eq!(one.value, Number::Value(3.0));
        assert_eq!((one.n, one.interval), (1, Measured::Undefined(Reason::OneUnit)));
        assert_eq!(bootstrap_mean(&[], 0).value, Number::Undefined(Reason::Empty));
        // Defined on the full sample and in 7 of 27 resamples.
        let [rare] = bootstrap(3, 0, |times| {
            if times[0] == 3 || times == [1, 1, 1] { [Number::from(1.0)] } else { [Number::Undefined(Reason::Empty)] }
        });
        assert_eq!(rare.interval, Measured::Undefined(Reason::TooFewResamples));
    }
}
