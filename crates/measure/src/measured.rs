//! Numbers that may be undefined, and averages with their interval.

use serde::{Deserialize, Serialize};

/// A value, or the reason why there is none.
///
/// Serialises as `{"value": 0.57}` or `{"value": null, "reason": "one_token"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    into = "Written<T>",
    try_from = "Written<T>",
    bound(serialize = "T: Clone + Serialize", deserialize = "T: Deserialize<'de>")
)]
pub enum Measured<T> {
    /// The value.
    Value(T),
    /// Why there is none.
    Undefined(Reason),
}

/// A finite number, or the reason why there is none. Built from an `f64` with `Number::from`, which
/// turns an infinity or NaN into [`Reason::Overflow`].
pub type Number = Measured<f64>;

/// Why a value is undefined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The caller did not ask for this metric.
    #[error("not asked for")]
    NotRequested,
    /// The caller did not supply what this number needs, for every item.
    #[error("the input it needs was not given")]
    NotGiven,
    /// There is nothing to measure.
    #[error("no tokens")]
    NoTokens,
    /// One token has no spread.
    #[error("a single token")]
    OneToken,
    /// Tokens equal to the mean were dropped and fewer than two remain.
    #[error("fewer than 2 tokens differ from their mean")]
    DegenerateTokens,
    /// A division by ln d with d = 1.
    #[error("hidden states of width 1")]
    WidthOfOne,
    /// All values are zero.
    #[error("all values are zero")]
    AllZero,
    /// The null value that it would be divided by is zero (two tokens always have entropy 0, for example).
    #[error("the null value is zero")]
    NullIsZero,
    /// An average over nothing.
    #[error("nothing to average")]
    Empty,
    /// An interval over documents or windows needs at least two.
    #[error("an interval needs at least 2 documents or windows")]
    OneUnit,
    /// Fewer than half of the bootstrap resamples gave a value.
    #[error("too few resamples had a value")]
    TooFewResamples,
    /// A test of right and wrong needs items that are one or the other.
    #[error("items can be right in part")]
    NotWhole,
    /// Two texts that begin with one token cannot be told apart by the next one.
    #[error("both begin with the same token")]
    SameToken,
    /// A division by zero bytes of text.
    #[error("no bytes of text")]
    NoBytes,
    /// Constant values have no skewness, kurtosis or speed.
    #[error("all values are equal")]
    Constant,
    /// A ranking without a relevant item has no precision.
    #[error("no item is relevant")]
    NothingRelevant,
    /// A best match of clusters takes the cube of their number.
    #[error("too many clusters to match")]
    TooManyClusters,
    /// All attention of this head falls on excluded positions.
    #[error("all attention mass is on excluded positions")]
    AllMassExcluded,
    /// The text is too short for enough control spans.
    #[error("too few control spans fit into the text")]
    TooFewControls,
    /// The result is not a finite 64-bit number.
    #[error("the result is not a finite number")]
    Overflow,
}

/// An average with its 95 % bootstrap interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The value on the full sample; the unit is that of the field holding the estimate.
    pub value: Number,
    /// Units (documents or windows) that the interval resamples.
    pub n: usize,
    /// 95 % percentile bootstrap interval, same unit; undefined with fewer than two units.
    pub interval: Measured<Interval>,
}

/// Ends of a 95 % interval, of percentiles of resamples where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// 2.5th percentile of the resampled values.
    pub low: f64,
    /// 97.5th percentile of the resampled values.
    pub high: f64,
    /// Resamples in which the value was defined; 0 where the interval follows from a formula.
    pub resamples: usize,
}

impl<T> Measured<T> {
    /// The value if there is one.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Undefined(_) => None,
        }
    }

    /// The reason if there is no value.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Value(_) => None,
            Self::Undefined(reason) => Some(*reason),
        }
    }
}

impl Number {
    /// `f` of the value; an undefined number stays undefined for its own reason.
    #[must_use]
    pub fn map(self, f: impl FnOnce(f64) -> f64) -> Self {
        match self {
            Self::Value(value) => Self::from(f(value)),
            undefined => undefined,
        }
    }

    /// `f` of both values; the first undefined one decides the reason.
    #[must_use]
    pub fn zip(self, other: Self, f: impl FnOnce(f64, f64) -> f64) -> Self {
        match (self, other) {
            (Self::Value(a), Self::Value(b)) => Self::from(f(a, b)),
            (Self::Undefined(reason), _) | (_, Self::Undefined(reason)) => Self::Undefined(reason),
        }
    }

    /// `numerator / denominator`, undefined for `reason` when the denominator is zero.
    #[must_use]
    pub fn ratio(numerator: f64, denominator: f64, reason: Reason) -> Self {
        if denominator == 0.0 {
            return Self::Undefined(reason);
        }
        Self::from(numerator / denominator)
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        if value.is_finite() { Self::Value(value) } else { Self::Undefined(Reason::Overflow) }
    }
}

/// How a [`Measured`] is written.
#[derive(Serialize, Deserialize)]
struct Written<T> {
    value: Option<T>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
}

impl<T> From<Measured<T>> for Written<T> {
    fn from(measured: Measured<T>) -> Self {
        match measured {
            Measured::Value(value) => Self { value: Some(value), reason: None },
            Measured::Undefined(reason) => Self { value: None, reason: Some(reason) },
        }
    }
}

impl<T> TryFrom<Written<T>> for Measured<T> {
    type Error = &'static str;

    fn try_from(written: Written<T>) -> Result<Self, Self::Error> {
        match (written.value, written.reason) {
            (Some(value), None) => Ok(Self::Value(value)),
            (None, Some(reason)) => Ok(Self::Undefined(reason)),
            _ => Err("a number needs either a value or a reason"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_value_or_null_with_a_reason() -> Result<(), serde_json::Error> {
        assert_eq!(serde_json::to_string(&Number::from(0.5))?, r#"{"value":0.5}"#);
        let undefined = Number::Undefined(Reason::OneToken);
        assert_eq!(serde_json::to_string(&undefined)?, r#"{"value":null,"reason":"one_token"}"#);
        for number in [Number::from(0.1 + 0.2), undefined] {
            let read: Number = serde_json::from_str(&serde_json::to_string(&number)?)?;
            assert_eq!(read, number);
        }
        assert!(serde_json::from_str::<Number>(r#"{"value":null}"#).is_err());
        Ok(())
    }

    #[test]
    fn infinities_are_undefined() {
        assert_eq!(Number::from(f64::NAN), Number::Undefined(Reason::Overflow));
        assert_eq!(Number::from(800.0).map(f64::exp), Number::Undefined(Reason::Overflow));
        assert_eq!(Number::ratio(1.0, 0.0, Reason::NoBytes), Number::Undefined(Reason::NoBytes));
        let two = Number::from(2.0);
        assert_eq!(two.zip(Number::Undefined(Reason::Empty), f64::powf).reason(), Some(Reason::Empty));
    }
}
