//! How far two labelings of the same items agree, whatever the labels are called.
//!
//! With shares of items `p(a)`, `p(b)` and `p(a, b)`: entropies H and mutual information I in nats, homogeneity `I/H(a)`,
//! completeness `I/H(b)`, their harmonic mean the V-measure (Rosenberg and Hirschberg 2007), which is `I` over the mean of
//! both entropies (NMI), and AMI, which subtracts from numerator and denominator what is expected of labels of the same
//! sizes dealt out at random (Vinh, Epps and Bailey 2010, the hypergeometric model).

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::assignment::greatest_match;
use crate::error::MeasureError;
use crate::measured::{Measured, Number, Reason};

/// Most clusters of the smaller side that are matched: the time goes with its square times the larger side.
const MOST_MATCHED: usize = 2_000;

/// How far a labeling `b` agrees with `a`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Harmonic mean of homogeneity and completeness, 0 to 1. Grows with the number of clusters, even of random ones.
    pub v_measure: Number,
    /// How far a cluster of `b` holds items of one label of `a`, 0 to 1; 1 where `a` has one label.
    pub homogeneity: Number,
    /// How far items of one label of `a` are in one cluster of `b`, 0 to 1; 1 where `b` has one label.
    pub completeness: Number,
    /// Mutual information over the mean entropy, 0 to 1: the V-measure by another name, but 1 where both have one label.
    pub nmi: Number,
    /// Mutual information adjusted for chance: 0 is what random labels have, 1 is equality; it can be below 0.
    pub ami: Number,
    /// Pairs of items that are together in both, as a share of those together in either. Undefined without such a pair.
    pub pair_jaccard: Number,
    /// Items whose labels correspond under the best one-to-one match of labels, as a share. Undefined with more than 2,000
    /// labels on both sides.
    pub matched: Number,
}

/// Compares the labels of the same items; which numbers are used as labels does not matter. Without items all of it is
/// undefined.
///
/// # Errors
/// There are not as many of both.
pub fn agreement(a: &[usize], b: &[usize]) -> Result<Agreement, MeasureError> {
    if a.len() != b.len() {
        return Err(MeasureError::Shape { what: "labels of the same items", expected: a.len(), found: b.len() });
    }
    if a.is_empty() {
        let none = Number::Undefined(Reason::Empty);
        let (v_measure, homogeneity, completeness, nmi) = (none, none, none, none);
        return Ok(Agreement {
            v_measure,
            homogeneity,
            completeness,
            nmi,
            ami: none,
            pair_jaccard: none,
            matched: none,
        });
    }
    let table = Table::of(a, b);
    let [of_a, of_b] = [&table.of_a, &table.of_b].map(|sizes| entropy(sizes, table.items));
    let shared = table.mutual_information().min(of_a).min(of_b);
    let share = |entropy: f64| if entropy == 0.0 { 1.0 } else { shared / entropy };
    let (homogeneity, completeness) = (share(of_a), share(of_b));
    let sum = homogeneity + completeness;
    let v_measure = if sum == 0.0 { 0.0 } else { 2.0 * homogeneity * completeness / sum };
    let mean = (of_a + of_b) / 2.0;
    let is_equal = table.of_a.len() == table.cells.len() && table.of_b.len() == table.cells.len();
    let ami = if is_equal {
        // Also where chance alone gives all there is: one label, or a label for every item.
        1.0
    } else {
        let expected = table.expected_information();
        (shared - expected) / (mean - expected)
    };
    Ok(Agreement {
        v_measure: Number::from(v_measure),
        homogeneity: Number::from(homogeneity),
        completeness: Number::from(completeness),
        nmi: Number::from(if mean == 0.0 { 1.0 } else { shared / mean }),
        ami: Number::from(ami),
        pair_jaccard: table.pair_jaccard(),
        matched: table.matched(),
    })
}

/// How often labels come together. Labels are numbered as they first come, so that their names change no order of a sum.
struct Table {
    items: usize,
    /// Items of each label.
    of_a: Vec<usize>,
    of_b: Vec<usize>,
    /// Items of each pair of labels that there is.
    cells: BTreeMap<(usize, usize), usize>,
}

impl Table {
    fn of(a: &[usize], b: &[usize]) -> Self {
        let [a, b] = [a, b].map(numbered);
        let sizes = |labels: &[usize]| {
            let mut sizes = vec![0; labels.iter().max().map_or(0, |most| most + 1)];
            labels.iter().for_each(|label| sizes[*label] += 1);
            sizes
        };
        let mut cells = BTreeMap::new();
        a.iter().zip(&b).for_each(|(a, b)| *cells.entry((*a, *b)).or_insert(0) += 1);
        Self { items: a.len(), of_a: sizes(&a), of_b: sizes(&b), cells }
    }

    /// I = Σ p(a, b) ln(p(a, b) / (p(a) p(b))).
    fn mutual_information(&self) -> f64 {
        let n = self.items as f64;
        let terms = self.cells.iter().map(|((a, b), count)| {
            let count = *count as f64;
            count / n * (n * count / (self.of_a[*a] as f64 * self.of_b[*b] as f64)).ln()
        });
        // Rounding leaves −1e-17 of independent labels.
        terms.sum::<f64>().max(0.0)
    }

    /// The mutual information expected of labels of these sizes dealt out at random: over all pairs of sizes and all counts
    /// that a pair can have, `(count/n) ln(n count/(a b))` times the hypergeometric probability of the count.
    fn expected_information(&self) -> f64 {
        let n = self.items;
        let factorials = ln_factorials(n);
        let [of_a, of_b] = [&self.of_a, &self.of_b].map(|sizes| {
            let mut times = BTreeMap::<usize, usize>::new();
            sizes.iter().for_each(|size| *times.entry(*size).or_default() += 1);
            times
        });
        let mut sum = 0.0;
        for (a, times_a) in of_a {
            for (b, times_b) in &of_b {
                let b = *b;
                let fixed = factorials[a] + factorials[b] + factorials[n - a] + factorials[n - b] - factorials[n];
                let mut of_pair = 0.0;
                for count in 1.max((a + b).saturating_sub(n))..=a.min(b) {
                    let varying = factorials[count]
                        + factorials[a - count]
                        + factorials[b - count]
                        + factorials[n + count - a - b];
                    let gain = (n as f64 * count as f64 / (a as f64 * b as f64)).ln();
                    of_pair += count as f64 / n as f64 * gain * (fixed - varying).exp();
                }
                sum += (times_a * times_b) as f64 * of_pair;
            }
        }
        sum
    }

    fn pair_jaccard(&self) -> Number {
        let pairs = |count: &usize| *count as f64 * (*count as f64 - 1.0) / 2.0;
        let both: f64 = self.cells.values().map(pairs).sum();
        let [in_a, in_b] = [&self.of_a, &self.of_b].map(|sizes| sizes.iter().map(pairs).sum::<f64>());
        Number::ratio(both, in_a + in_b - both, Reason::Empty)
    }

    fn matched(&self) -> Number {
        let (a, b) = (self.of_a.len(), self.of_b.len());
        if a.min(b) > MOST_MATCHED {
            return Measured::Undefined(Reason::TooManyClusters);
        }
        let count = |a: usize, b: usize| self.cells.get(&(a, b)).map_or(0, |count| *count as i64);
        Number::from(greatest_match(a, b, &count) as f64 / self.items as f64)
    }
}

/// The same labels by the order in which they first come.
fn numbered(labels: &[usize]) -> Vec<usize> {
    let mut known: HashMap<usize, usize> = HashMap::new();
    let number = |label: &usize| {
        let next = known.len();
        *known.entry(*label).or_insert(next)
    };
    labels.iter().map(number).collect()
}

/// H = −Σ p ln p, nats.
fn entropy(sizes: &[usize], items: usize) -> f64 {
    let shares = sizes.iter().map(|size| *size as f64 / items as f64);
    shares.map(|share| -share * share.ln()).sum::<f64>().max(0.0)
}

/// ln 0! to ln n!. The part that a sum rounds away is carried to the next one: of a million items it would be felt.
fn ln_factorials(n: usize) -> Vec<f64> {
    let (mut sum, mut lost) = (0.0f64, 0.0f64);
    let mut table = vec![0.0];
    for i in 1..=n {
        let term = (i as f64).ln() + lost;
        let next = sum + term;
        lost = term - (next - sum);
        sum = next;
        table.push(sum);
    }
    table
}
