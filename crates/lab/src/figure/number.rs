//! One way to write a number, for figures, tables and the terminal alike.

use lathe_measure::Number;
use lathe_measure::statistics::Spread;

/// Three significant digits, thousands separated by commas, a true minus sign; a dash for what is not finite.
#[must_use]
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let magnitude = value.abs();
    if magnitude == 0.0 {
        return "0".to_owned();
    }
    if !(1e-4..1e15).contains(&magnitude) {
        return scientific(value);
    }
    let decimals = match magnitude {
        m if m >= 99.95 => 0,
        m if m >= 9.995 => 1,
        m if m >= 0.9995 => 2,
        m if m >= 0.09995 => 3,
        m if m >= 0.009_995 => 4,
        _ => 5,
    };
    fixed(value, decimals)
}

/// A whole number with commas between the thousands.
#[must_use]
pub fn count(value: u64) -> String {
    separate(&value.to_string())
}

/// A share in 0–1 as a percentage with one decimal.
#[must_use]
pub fn percent(share: f64) -> String {
    if share.is_finite() { format!("{} %", fixed(share * 100.0, 1)) } else { "–".to_owned() }
}

/// A measured number as `write` writes it; a dash where it is undefined.
#[must_use]
pub fn measured(of: Number, write: impl FnOnce(f64) -> String) -> String {
    of.value().map_or("–".into(), write)
}

/// A measured [`number`], or a dash.
#[must_use]
pub fn value(of: Number) -> String {
    measured(of, number)
}

/// A measured share as [`percent`], or a dash.
#[must_use]
pub fn share(of: Number) -> String {
    measured(of, percent)
}

/// A mean with the standard deviation of what it is the mean of, where there is one: 3.14 ± 0.0200.
#[must_use]
pub fn mean_and_sd(of: Spread) -> String {
    match of.sd.value() {
        Some(sd) => format!("{} ± {}", value(of.mean), number(sd)),
        None => value(of.mean),
    }
}

/// A cosine, with the digits that tell it from 1: 0.998734, 1 − 3.0×10⁻⁸.
#[must_use]
pub fn cosine(value: f64) -> String {
    let missing = 1.0 - value;
    if missing > 0.0 && missing < 1e-5 { format!("1 \u{2212} {}", number(missing)) } else { fixed(value, 6) }
}

/// A count with a letter for its thousands: 134.5 M.
#[must_use]
pub fn compact(value: u64) -> String {
    with_prefix(value, &["", "k", "M", "B", "T"], "\u{a0}")
}

/// Bytes with a decimal prefix: 269 MB is 269,000,000 bytes.
#[must_use]
pub fn bytes(value: u64) -> String {
    let text = with_prefix(value, &["B", "kB", "MB", "GB", "TB"], "\u{a0}");
    text.trim_end().to_owned()
}

/// Labels of an axis: as many decimals as the smallest distance between neighbours needs.
#[must_use]
pub fn tick_labels(ticks: &[f64]) -> Vec<String> {
    let step =
        ticks.windows(2).map(|pair| (pair[1] - pair[0]).abs()).filter(|gap| *gap > 0.0).fold(f64::INFINITY, f64::min);
    let largest = ticks.iter().fold(0.0_f64, |most, tick| most.max(tick.abs()));
    if largest >= 1e9 || !step.is_finite() || step < 1e-6 {
        return ticks.iter().map(|tick| number(*tick)).collect();
    }
    // The step is 1, 2 or 5 times a power of ten, so its exponent says how many decimals separate two labels.
    let decimals = (-(step * 1.000_001).log10().floor()).max(0.0) as usize;
    ticks.iter().map(|tick| fixed(*tick, decimals)).collect()
}

fn with_prefix(value: u64, prefixes: &[&str], gap: &str) -> String {
    let mut scaled = value as f64;
    let mut index = 0;
    while scaled >= 999.5 && index + 1 < prefixes.len() {
        scaled /= 1000.0;
        index += 1;
    }
    let decimals = match (index, scaled) {
        (0, _) => 0,
        (_, s) if s >= 99.95 => 0,
        (_, s) if s >= 9.995 => 1,
        _ => 2,
    };
    let text = fixed(scaled, decimals);
    if prefixes[index].is_empty() { text } else { format!("{text}{gap}{}", prefixes[index]) }
}

fn fixed(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), None), |(w, f)| (w, Some(f)));
    let mut written = separate(whole);
    if let Some(fraction) = fraction {
        written.push('.');
        written.push_str(fraction);
    }
    // A value that rounds to zero has no sign.
    let negative = value < 0.0 && text.bytes().any(|byte| (b'1'..=b'9').contains(&byte));
    if negative { format!("\u{2212}{written}") } else { written }
}

fn scientific(value: f64) -> String {
    let text = format!("{:.1e}", value.abs());
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text.as_str(), "0"));
    let raised: String = exponent
        .chars()
        .map(|c| match c {
            '-' => '⁻',
            '0' => '⁰',
            '1' => '¹',
            '2' => '²',
            '3' => '³',
            '4' => '⁴',
            '5' => '⁵',
            '6' => '⁶',
            '7' => '⁷',
            '8' => '⁸',
            _ => '⁹',
        })
        .collect();
    let sign = if value < 0.0 { "\u{2212}" } else { "" };
    format!("{sign}{mantissa}×10{raised}")
}

fn separate(digits: &str) -> String {
    let mut written = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            written.push(',');
        }
        written.push(digit);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn three_significant_digits() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1.00"),
            (0.952_6, "0.953"),
            (9.996, "10.0"),
            (12.345, "12.3"),
            (1234.5, "1,234"),
            (-0.25, "−0.250"),
            (0.000_012, "1.2×10⁻⁵"),
            (f64::NAN, "–"),
            (f64::INFINITY, "–"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn prefixes_of_counts_and_bytes() {
        assert_eq!(compact(134_515_008), "135\u{a0}M");
        assert_eq!(compact(999), "999");
        assert_eq!(compact(999_600), "1.00\u{a0}M");
        assert_eq!(bytes(0), "0\u{a0}B");
        assert_eq!(bytes(1_536), "1.54\u{a0}kB");
        assert_eq!(bytes(u64::MAX), "18,446,744\u{a0}TB");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(percent(0.6213), "62.1 %");
    }

    #[test]
    fn cosines_are_told_from_one() {
        let shown = [1.0, 0.998_734_2, 1.0 - 3.04e-8, -0.5].map(cosine);
        assert_eq!(shown, ["1.000000", "0.998734", "1 − 3.0×10⁻⁸", "−0.500000"]);
    }

    #[test]
    fn tick_labels_share_their_decimals() {
        assert_eq!(tick_labels(&[0.0, 0.5, 1.0]), ["0.0", "0.5", "1.0"]);
        assert_eq!(tick_labels(&[-2.0, 0.0, 2.0]), ["−2", "0", "2"]);
        assert_eq!(tick_labels(&[0.0, 0.02, 0.04]), ["0.00", "0.02", "0.04"]);
    }

    proptest! {
        #[test]
        fn no_number_is_written_as_minus_zero_or_nan(value in proptest::num::f64::ANY) {
            let text = number(value);
            prop_assert!(!text.contains("NaN") && !text.contains("inf") && !text.contains('-'));
            let only_zero = !text.chars().any(|c| ('1'..='9').contains(&c));
            prop_assert!(!(only_zero && text.starts_with('\u{2212}')), "{text}");
        }
    }
}
