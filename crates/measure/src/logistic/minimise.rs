//! L-BFGS: a minimiser that learns the curvature from its last steps (Nocedal and Wright, Numerical Optimization, algorithms 7.4
//! and 7.5, with the line search of algorithms 3.5 and 3.6).

use std::collections::VecDeque;

use super::Convergence;
use crate::embedding::tree;

/// Steps that are remembered; scikit-learn's minimiser has as many.
const CORRECTIONS: usize = 10;
/// Share of the promised decrease that a step has to bring (Wolfe's first condition).
const DECREASE: f64 = 1e-4;
/// Share of the slope that may be left after a step (his second, in its strong form).
const CURVATURE: f64 = 0.9;
/// Evaluations of one line search at most, as in scikit-learn.
const EVALUATIONS: usize = 50;
/// The objective has stopped falling: scikit-learn's bound for its relative change.
const FLAT: f64 = 64.0 * f64::EPSILON;

/// When to end.
pub(super) struct Limits {
    /// The largest component of the gradient at a minimum.
    pub(super) gradient: f64,
    /// Steps at most.
    pub(super) rounds: usize,
}

/// The point from `start` on where `objective`, which writes its gradient, is smallest.
pub(super) fn minimise(
    start: Vec<f64>,
    limits: &Limits,
    objective: impl Fn(&[f64], &mut [f64]) -> f64,
) -> (Vec<f64>, Convergence) {
    let mut gradient = vec![0.0; start.len()];
    let value = objective(&start, &mut gradient);
    let mut here = Point { at: start, value, gradient };
    let mut memory = Memory::default();
    for rounds in 0..limits.rounds {
        if here.steepest() <= limits.gradient {
            return (here.at, Convergence::Reached { rounds });
        }
        let mut direction = memory.direction(&here.gradient);
        let mut slope = dot(&direction, &here.gradient);
        if slope >= 0.0 {
            // Rounding has spoilt what was remembered.
            memory = Memory::default();
            direction = memory.direction(&here.gradient);
            slope = dot(&direction, &here.gradient);
        }
        // Without a remembered step the direction has no scale: the first one is of length 1 at most.
        let first = if memory.steps.is_empty() { (1.0 / dot(&direction, &direction).sqrt()).min(1.0) } else { 1.0 };
        let line = Line { from: &here, direction: &direction, slope, objective: &objective };
        let Some(next) = line.search(first) else { return (here.at, Convergence::Stopped { rounds }) };
        memory.learn(&here, &next);
        let scale = here.value.abs().max(next.value.abs()).max(1.0);
        let is_flat = here.value - next.value <= FLAT * scale;
        here = next;
        if is_flat {
            return (here.at, Convergence::Reached { rounds: rounds + 1 });
        }
    }
    let rounds = limits.rounds;
    let is_reached = here.steepest() <= limits.gradient;
    (here.at, if is_reached { Convergence::Reached { rounds } } else { Convergence::Stopped { rounds } })
}

/// A point, and what the objective is there.
struct Point {
    at: Vec<f64>,
    value: f64,
    gradient: Vec<f64>,
}

impl Point {
    /// The largest component of the gradient.
    fn steepest(&self) -> f64 {
        self.gradient.iter().fold(0.0, |most: f64, component| most.max(component.abs()))
    }
}

/// The last steps and what they did to the gradient.
#[derive(Default)]
struct Memory {
    steps: VecDeque<Step>,
}

struct Step {
    /// Difference of points.
    moved: Vec<f64>,
    /// Difference of gradients.
    turned: Vec<f64>,
    /// Their product.
    product: f64,
}

impl Memory {
    fn learn(&mut self, from: &Point, to: &Point) {
        let difference = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f64>>();
        let (moved, turned) = (difference(&to.at, &from.at), difference(&to.gradient, &from.gradient));
        let product = dot(&moved, &turned);
        // A step along which the objective does not curve upwards teaches nothing.
        if product <= f64::EPSILON * dot(&turned, &turned) {
            return;
        }
        if self.steps.len() == CORRECTIONS {
            self.steps.pop_front();
        }
        self.steps.push_back(Step { moved, turned, product });
    }

    /// Minus the gradient, turned and scaled by the curvature.
    fn direction(&self, gradient: &[f64]) -> Vec<f64> {
        let mut direction: Vec<f64> = gradient.iter().map(|component| -component).collect();
        let mut shares = Vec::with_capacity(self.steps.len());
        for step in self.steps.iter().rev() {
            let share = dot(&step.moved, &direction) / step.product;
            add(&mut direction, -share, &step.turned);
            shares.push(share);
        }
        if let Some(last) = self.steps.back() {
            let scale = last.product / dot(&last.turned, &last.turned);
            direction.iter_mut().for_each(|component| *component *= scale);
        }
        for (step, share) in self.steps.iter().zip(shares.into_iter().rev()) {
            let other = dot(&step.turned, &direction) / step.product;
            add(&mut direction, share - other, &step.moved);
        }
        direction
    }
}

/// The objective along a direction.
struct Line<'a, F> {
    from: &'a Point,
    direction: &'a [f64],
    /// Of the objective at the start; below 0.
    slope: f64,
    objective: &'a F,
}

/// A step along a line, and the objective and its slope there.
#[derive(Clone, Copy)]
struct Trial {
    step: f64,
    value: f64,
    slope: f64,
}

impl<F: Fn(&[f64], &mut [f64]) -> f64> Line<'_, F> {
    /// A point that satisfies both conditions of Wolfe; none is found where rounding hides the decrease.
    fn search(&self, first: f64) -> Option<Point> {
        let mut before = Trial { step: 0.0, value: self.from.value, slope: self.slope };
        let mut step = first;
        for evaluation in 1..EVALUATIONS {
            let (point, trial) = self.at(step);
            if !self.decreases(&trial) || (evaluation > 1 && trial.value >= before.value) {
                return self.between(before, trial, EVALUATIONS - evaluation);
            }
            if trial.slope.abs() <= -CURVATURE * self.slope {
                return Some(point);
            }
            if trial.slope >= 0.0 {
                return self.between(trial, before, EVALUATIONS - evaluation);
            }
            before = trial;
            step *= 2.0;
        }
        None
    }

    /// Such a point between two steps, of which `low` is the better one.
    fn between(&self, mut low: Trial, mut high: Trial, evaluations: usize) -> Option<Point> {
        for _ in 0..evaluations {
            let (point, trial) = self.at(interpolated(low, high));
            if !self.decreases(&trial) || trial.value >= low.value {
                high = trial;
                continue;
            }
            if trial.slope.abs() <= -CURVATURE * self.slope {
                return Some(point);
            }
            if trial.slope * (high.step - low.step) >= 0.0 {
                high = low;
            }
            low = trial;
        }
        // Less steep would be better, but lower it is.
        (low.step > 0.0 && low.value < self.from.value).then(|| self.at(low.step).0)
    }

    fn at(&self, step: f64) -> (Point, Trial) {
        let mut at = self.from.at.clone();
        add(&mut at, step, self.direction);
        let mut gradient = vec![0.0; at.len()];
        let value = (self.objective)(&at, &mut gradient);
        let trial = Trial { step, value, slope: dot(&gradient, self.direction) };
        (Point { at, value, gradient }, trial)
    }

    fn decreases(&self, trial: &Trial) -> bool {
        trial.value <= self.from.value + DECREASE * trial.step * self.slope
    }
}

/// The minimum of the cubic through two trials (equation 3.59), kept away from both.
fn interpolated(low: Trial, high: Trial) -> f64 {
    let span = high.step - low.step;
    let d1 = low.slope + high.slope - 3.0 * (low.value - high.value) / (low.step - high.step);
    let d2 = (d1 * d1 - low.slope * high.slope).max(0.0).sqrt() * span.signum();
    let step = high.step - span * (high.slope + d2 - d1) / (high.slope - low.slope + 2.0 * d2);
    let (a, b) = (low.step + 0.1 * span, high.step - 0.1 * span);
    if step.is_finite() { step.clamp(a.min(b), a.max(b)) } else { low.step + 0.5 * span }
}

fn add(to: &mut [f64], factor: f64, other: &[f64]) {
    to.iter_mut().zip(other).for_each(|(sum, value)| *sum += factor * value);
}

/// Σ a b, with eight partial sums.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    for (a, b) in a.chunks(8).zip(b.chunks(8)) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    tree(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { gradient: 1e-9, rounds: 200 };

    #[test]
    fn a_narrow_curved_valley() {
        // Rosenbrock's function, minimum 0 at (1, 1).
        let (at, converged) = minimise(vec![-1.2, 1.0], &LIMITS, |at, gradient| {
            let (x, y) = (at[0], at[1]);
            gradient[0] = -2.0 * (1.0 - x) - 400.0 * x * (y - x * x);
            gradient[1] = 200.0 * (y - x * x);
            (1.0 - x).powi(2) + 100.0 * (y - x * x).powi(2)
        });
        assert!((at[0] - 1.0).abs() < 1e-6 && (at[1] - 1.0).abs() < 1e-6, "{at:?}");
        assert!(matches!(converged, Convergence::Reached { rounds: 10..80 }), "{converged:?}");
    }

    #[test]
    fn scales_that_differ_a_million_times() {
        let scales = [1.0, 1e-3, 1e3, 30.0];
        let (at, converged) = minimise(vec![1.0; 4], &LIMITS, |at, gradient| {
            at.iter().zip(scales).enumerate().for_each(|(i, (x, scale))| gradient[i] = scale * (x - 2.0));
            at.iter().zip(scales).map(|(x, scale)| 0.5 * scale * (x - 2.0).powi(2)).sum()
        });
        assert!(at.iter().all(|x| (x - 2.0).abs() < 1e-5), "{at:?}");
        assert!(matches!(converged, Convergence::Reached { .. }));
    }

    #[test]
    fn an_end_before_the_minimum_says_so() {
        let slope = |at: &[f64], gradient: &mut [f64]| {
            gradient[0] = -(-at[0]).exp();
            (-at[0]).exp()
        };
        let (_, converged) = minimise(vec![0.0], &Limits { gradient: 1e-12, rounds: 3 }, slope);
        assert_eq!(converged, Convergence::Stopped { rounds: 3 });
        // At the minimum already.
        let (at, converged) = minimise(vec![3.0], &LIMITS, |_, gradient| {
            gradient.fill(0.0);
            1.0
        });
        assert_eq!((at, converged), (vec![3.0], Convergence::Reached { rounds: 0 }));
    }
}
