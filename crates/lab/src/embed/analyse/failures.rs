//! Who fails where: whether one of hidden states and router outputs is right where the other is not.
//!
//! The paper's threshold is not given. Here: of n scored pairs, a similarity *fails* on a pair whose rank by it is more than
//! n/4 away from its rank by the scores (average ranks for equal ones). Of texts with labels, a similarity fails on a text
//! whose nearest other text has another label.

use lathe_measure::correlation::ranks;
use lathe_measure::embedding::{Vectors, cosine};
use lathe_measure::{Number, Reason};
use serde::Serialize;

use super::super::search::nearest;
use super::Material;

/// How failures of HS and RW lie to each other.
#[derive(Clone, Debug, Serialize)]
pub struct FailureReport {
    /// What failing is, in a clause.
    pub definition: String,
    /// Pairs, or texts.
    pub items: usize,
    /// Items on which both fail.
    pub both: usize,
    /// Items on which only HS fails.
    pub only_hidden: usize,
    /// Items on which only RW fails.
    pub only_router: usize,
    /// Items on which neither fails.
    pub neither: usize,
    /// Of the failures of HS.
    pub of_hidden: Failing,
    /// Of the failures of RW.
    pub of_router: Failing,
}

/// The failures of one.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Failing {
    /// How many.
    pub failures: usize,
    /// Share of them on which the other is right.
    pub other_right: Number,
    /// What that share would be if failures had nothing to do with each other: the other's share of right items.
    pub other_right_by_chance: Number,
}

/// None where nothing is known of the texts.
pub(super) fn report(hidden: &Vectors, router: &Vectors, material: &Material) -> Option<FailureReport> {
    if let Some((pairs, scores)) = &material.pairs {
        let definition =
            "the rank of a pair by the cosine is more than a quarter of the pairs away from its rank by the score";
        let gold = ranks(scores);
        let failing = |of: &Vectors| {
            let cosines: Vec<f64> = pairs.iter().map(|[a, b]| cosine(of.row(*a), of.row(*b))).collect();
            let quarter = pairs.len() as f64 / 4.0;
            ranks(&cosines).iter().zip(&gold).map(|(rank, gold)| (rank - gold).abs() > quarter).collect()
        };
        return Some(counted(definition, failing(hidden), failing(router)));
    }
    let (_, labels) = material.labels.as_ref()?;
    let definition = "the nearest other text by the cosine has another label";
    let own: Vec<usize> = (0..labels.len()).collect();
    let failing = |of: &Vectors| {
        let found = nearest(of, of, &own, 1);
        let wrong = |(text, found): (usize, &Vec<(usize, f32)>)| {
            found.first().is_none_or(|(row, _)| labels[*row] != labels[text])
        };
        found.iter().enumerate().map(wrong).collect()
    };
    Some(counted(definition, failing(hidden), failing(router)))
}

fn counted(definition: &str, hidden: Vec<bool>, router: Vec<bool>) -> FailureReport {
    let count = |h: bool, r: bool| hidden.iter().zip(&router).filter(|(a, b)| (**a, **b) == (h, r)).count();
    let (both, only_hidden, only_router, neither) =
        (count(true, true), count(true, false), count(false, true), count(false, false));
    let items = hidden.len();
    let share = |part: usize, of: usize| Number::ratio(part as f64, of as f64, Reason::Empty);
    let failing = |alone: usize, other_alone: usize| Failing {
        failures: both + alone,
        other_right: share(alone, both + alone),
        other_right_by_chance: share(items - both - other_alone, items),
    };
    FailureReport {
        definition: definition.to_owned(),
        items,
        both,
        only_hidden,
        only_router,
        neither,
        of_hidden: failing(only_hidden, only_router),
        of_router: failing(only_router, only_hidden),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_beside_chance() {
        let report = counted("x", vec![true, true, true, false, false], vec![true, false, false, true, false]);
        assert_eq!((report.both, report.only_hidden, report.only_router, report.neither), (1, 2, 1, 1));
        assert_eq!(report.of_hidden.failures, 3);
        assert_eq!(report.of_hidden.other_right, Number::from(2.0 / 3.0));
        // RW is right on three of five.
        assert_eq!(report.of_hidden.other_right_by_chance, Number::from(0.6));
        assert_eq!(report.of_router.other_right, Number::from(0.5));
        assert_eq!(report.of_router.other_right_by_chance, Number::from(0.4));
    }

    #[test]
    fn a_pair_fails_by_its_rank() -> Result<(), lathe_measure::MeasureError> {
        // Eight pairs of a fixed vector and one at a growing angle: cosines fall with the number of the pair.
        let angles = (0..8).map(|pair| 0.1 + 0.1 * pair as f32);
        let mut values = [1.0, 0.0].repeat(8);
        values.extend(angles.flat_map(|angle| [angle.cos(), angle.sin()]));
        let vectors = Vectors::new(2, values)?;
        // The scores fall too, but the best pair has the score in the middle: it is 4 ranks away, and a quarter is 2.
        let scores = vec![3.5, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0];
        let pairs = (0..8).map(|pair| [pair, 8 + pair]).collect();
        let material = Material { texts: Vec::new(), labels: None, pairs: Some((pairs, scores)) };
        let report = report(&vectors, &vectors, &material).map(|report| (report.both, report.items));
        assert_eq!(report, Some((1, 8)));
        Ok(())
    }
}
