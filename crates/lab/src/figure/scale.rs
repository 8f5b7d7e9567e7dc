//! Scales from data to pixels, and round tick values.

/// The smallest and largest finite value, or `None` when there is none.
#[must_use]
pub fn finite_extent(values: impl IntoIterator<Item = f64>) -> Option<[f64; 2]> {
    values.into_iter().filter(|value| value.is_finite()).fold(None, |extent, value| match extent {
        None => Some([value, value]),
        Some([low, high]) => Some([low.min(value), high.max(value)]),
    })
}

/// A map from a data interval to an interval of pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Data at the two ends of `range`; both positive when `logarithmic`.
    domain: [f64; 2],
    /// Pixels at the two ends; may run downwards.
    range: [f64; 2],
    logarithmic: bool,
}

impl Scale {
    /// A scale that keeps distances. A domain of one point, or one that is not finite, is widened to a usable one.
    #[must_use]
    pub fn linear(domain: [f64; 2], range: [f64; 2]) -> Self {
        Self { domain: widened(domain), range, logarithmic: false }
    }

    /// A scale that keeps ratios. A domain that is not positive is replaced by 1–10.
    #[must_use]
    pub fn log(domain: [f64; 2], range: [f64; 2]) -> Self {
        let [low, high] = domain;
        let usable = low > 1e-300 && high < 1e300 && high >= low;
        let [low, high] = if usable { [low, high] } else { [1.0, 10.0] };
        let domain = if high / low > 1.000_001 { [low, high] } else { [low / 2.0, low * 2.0] };
        Self { domain, range, logarithmic: true }
    }

    /// Pixel of a value, clamped to the range: a mark never leaves its figure. `None` for what cannot be drawn.
    #[must_use]
    pub fn at(&self, value: f64) -> Option<f64> {
        if !value.is_finite() || (self.logarithmic && value <= 0.0) {
            return None;
        }
        let [low, high] = self.domain;
        let share = if self.logarithmic {
            (value.ln() - low.ln()) / (high.ln() - low.ln())
        } else {
            // Halves first: the width of a domain as large as f64 itself would overflow.
            (value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0)
        };
        let [from, to] = self.range;
        Some(from + (to - from) * share.clamp(0.0, 1.0))
    }

    /// Round values inside the domain, about `wanted` of them.
    #[must_use]
    pub fn ticks(&self, wanted: usize) -> Vec<f64> {
        let [low, high] = self.domain;
        if self.logarithmic { log_ticks(low, high, wanted) } else { linear_ticks(low, high, wanted) }
    }

    /// The pixels at the two ends.
    #[must_use]
    pub fn range(&self) -> [f64; 2] {
        self.range
    }
}

/// The interval widened so that both ends are ticks: axes begin and end at round numbers.
pub(super) fn nice_domain(extent: [f64; 2], wanted: usize) -> [f64; 2] {
    let [low, high] = widened(extent);
    let Some(step) = round_step(low, high, wanted) else {
        return [low, high];
    };
    [(low / step + 1e-9).floor() * step, (high / step - 1e-9).ceil() * step]
}

/// Multiples of 1, 2 or 5 times a power of ten within `[low, high]`, ascending; at most about twice `wanted`.
#[must_use]
pub fn linear_ticks(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    let ticks = multiples_within(low, high, wanted);
    // One tick says nothing of the scale. A step is at most 2.5 times the wanted one, so six wanted give two.
    if ticks.len() < 2 { multiples_within(low, high, wanted.max(2) * 3) } else { ticks }
}

fn multiples_within(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    let Some(step) = round_step(low, high, wanted) else {
        return Vec::new();
    };
    // A relative slack of the step keeps an end that is a multiple up to rounding.
    let first = (low / step - 1e-6).ceil();
    let last = (high / step + 1e-6).floor();
    let many = (last - first).min(2.0 * wanted.max(1) as f64 + 2.0);
    if many < 0.0 {
        return Vec::new();
    }
    (0..=many as u64).map(|index| ((first + index as f64) * step).clamp(low, high) + 0.0).collect()
}

/// Powers of ten within `[low, high]`; with 2 and 5 between them where there are few; ascending.
#[must_use]
pub fn log_ticks(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    if !(low > 0.0 && high.is_finite() && high > low) {
        return Vec::new();
    }
    let first = low.log10().floor() as i32;
    let last = high.log10().ceil() as i32;
    let decades = (last - first).max(1) as usize;
    let wanted = wanted.max(2);
    let factors: &[f64] = match decades {
        many if many * 3 <= wanted * 2 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    let every = decades.div_ceil(wanted).max(1);
    (first..=last)
        .step_by(every)
        .flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power)))
        .filter(|tick| tick.is_finite() && *tick >= low && *tick <= high)
        .collect()
}

fn round_step(low: f64, high: f64, wanted: usize) -> Option<f64> {
    let width = high - low;
    if !(width.is_finite() && width > 0.0) {
        return None;
    }
    let rough = width / wanted.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough * 0.999)?;
    // Below the resolution of f64 around these values ticks would coincide.
    let resolved = step > 4.0 * f64::EPSILON * low.abs().max(high.abs());
    (resolved && step.is_finite() && step > 0.0).then_some(step)
}

fn widened([low, high]: [f64; 2]) -> [f64; 2] {
    // Beyond these sizes the width of the interval is no longer an f64.
    if !(low.abs() < 1e300 && high.abs() < 1e300) {
        return [0.0, 1.0];
    }
    let [low, high] = if low <= high { [low, high] } else { [high, low] };
    let size = low.abs().max(high.abs());
    if high - low > (size * 1e-9).max(1e-280) {
        return [low, high];
    }
    let margin = if size < 1e-270 { 0.5 } else { size * 0.1 };
    [low - margin, high + margin]
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn round_ticks() {
        assert_eq!(linear_ticks(0.0, 1.0, 5), [0.0, 0.2, 0.4, 0.600_000_000_000_000_1, 0.8, 1.0]);
        assert_eq!(linear_ticks(3.0, 47.0, 5), [10.0, 20.0, 30.0, 40.0]);
        assert_eq!(linear_ticks(-1.0, 1.0, 4), [-1.0, -0.5, 0.0, 0.5, 1.0]);
        assert!(linear_ticks(1.0, 1.0, 5).is_empty());
        assert_eq!(log_ticks(1.0, 5000.0, 4), [1.0, 10.0, 100.0, 1000.0]);
        assert_eq!(log_ticks(1.0, 30.0, 6), [1.0, 2.0, 5.0, 10.0, 20.0]);
        assert!(log_ticks(0.0, 10.0, 5).is_empty());
    }

    #[test]
    fn a_domain_of_one_point_still_maps() {
        let scale = Scale::linear([0.7, 0.7], [0.0, 100.0]);
        assert!((scale.at(0.7).unwrap() - 50.0).abs() < 1e-9);
        assert_eq!(Scale::log([0.0, 0.0], [0.0, 1.0]).at(0.0), None);
        assert_eq!(scale.at(f64::NAN), None);
        assert_eq!(nice_domain([0.13, 0.87], 5), [0.0, 1.0]);
    }

    proptest! {
        #[test]
        fn linear_ticks_are_few_ascending_and_inside(a in -1e12..1e12f64, b in -1e12..1e12f64, wanted in 1usize..12) {
            let (low, high) = (a.min(b), a.max(b));
            let ticks = linear_ticks(low, high, wanted);
            prop_assert!(ticks.len() <= 2 * wanted + 6);
            prop_assert!(ticks.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(ticks.iter().all(|tick| *tick >= low && *tick <= high));
            prop_assert!(ticks.iter().all(|tick| *tick != 0.0 || tick.is_sign_positive()));
            if high - low > 1e-3 { prop_assert!(ticks.len() >= 2, "{low} {high} {ticks:?}"); }
        }

        #[test]
        fn log_ticks_are_few_ascending_and_inside(low in 1e-9..1e9f64, ratio in 1.1..1e12f64, wanted in 2usize..12) {
            let high = low * ratio;
            let ticks = log_ticks(low, high, wanted);
            prop_assert!(ticks.len() <= 3 * wanted + 3);
            prop_assert!(ticks.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(ticks.iter().all(|tick| *tick >= low && *tick <= high));
        }

        #[test]
        fn ticks_and_scales_accept_anything(
            a in proptest::num::f64::ANY, b in proptest::num::f64::ANY, value in proptest::num::f64::ANY
        ) {
            for scale in [Scale::linear([a, b], [10.0, 90.0]), Scale::log([a, b], [10.0, 90.0])] {
                prop_assert!(scale.ticks(5).len() <= 20);
                if let Some(pixel) = scale.at(value) { prop_assert!((10.0..=90.0).contains(&pixel), "{pixel}"); }
            }
            prop_assert!(nice_domain([a, b], 5).iter().all(|end| !end.is_nan()));
        }

        #[test]
        fn scales_keep_order(low in -1e6..1e6f64, width in 1e-3..1e6f64, s in 0.0..1.0f64, t in 0.0..1.0f64) {
            let scale = Scale::linear([low, low + width], [0.0, 300.0]);
            let (a, b) = (scale.at(low + s * width).unwrap(), scale.at(low + t * width).unwrap());
            prop_assert!((s < t) == (a < b) || (a - b).abs() < 1e-6);
        }
    }
}
