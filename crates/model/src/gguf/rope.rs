//! Rotary scalings: keys and tensors of a GGUF file, and `rope_scaling` of `config.json`.
//!
//! llama.cpp has keys for linear and YaRN scaling and tensors of divisors for LongRoPE. For Llama 3.1 it has divisors
//! only; they are recognised again here, so that the configuration says the same as the original's.

use serde_json::{Map, Value, json};

use super::word::{Reading, Writing, short};
use crate::Error;
use crate::config::Config;
use crate::rotary::{Rotary, Scaling};

const DIVISORS: &str = "rope_freqs.weight";
const LONG: &str = "rope_factors_long.weight";
const SHORT: &str = "rope_factors_short.weight";

/// Tensors that follow from the configuration: the divisors of rotary frequencies.
pub(crate) const ROTARY_TENSORS: [&str; 3] = [DIVISORS, LONG, SHORT];

/// `low_freq_factor` and `high_freq_factor` of every Llama since 3.1.
const LLAMA3_BAND: (f64, f64) = (1.0, 4.0);

/// Sets `rope_scaling` where the file scales; `base` is the base of the frequencies.
pub(crate) fn read(reading: &mut Reading<'_>, base: f64) -> Result<(), Error> {
    let context = reading.whole("context_length")?;
    let original = reading.whole("rope.scaling.original_context_length")?.or(context);
    let factor = match reading.real("rope.scaling.factor")? {
        Some(factor) => Some(factor),
        // The key's first name.
        None => reading.real("rope.scale_linear")?,
    };
    let factor = factor.filter(|factor| *factor != 0.0);
    let lists = (reading.tensors.values(SHORT)?, reading.tensors.values(LONG)?);
    if let Some(divisors) = reading.tensors.values(DIVISORS)? {
        if divisors.iter().any(|divisor| *divisor != 1.0) {
            let scaling = match llama3_of(&divisors, base) {
                Some((factor, original)) => json!({
                    "rope_type": "llama3",
                    "factor": short(f64::from(factor)),
                    "low_freq_factor": LLAMA3_BAND.0,
                    "high_freq_factor": LLAMA3_BAND.1,
                    "original_max_position_embeddings": original,
                }),
                // Other divisors: the same for short and for long texts.
                None => json!({
                    "rope_type": "longrope",
                    "short_factor": decimals(&divisors),
                    "long_factor": decimals(&divisors),
                    "attention_factor": 1.0,
                    "original_max_position_embeddings": context,
                }),
            };
            reading.set("rope_scaling", scaling);
        }
        return Ok(());
    }
    if let (Some(short_list), Some(long_list)) = lists {
        let mut scaling = Map::new();
        scaling.insert("rope_type".into(), "longrope".into());
        scaling.insert("short_factor".into(), decimals(&short_list));
        scaling.insert("long_factor".into(), decimals(&long_list));
        if let Some(magnitude) = reading.real("rope.scaling.attn_factor")? {
            let usual = long_rope_magnitude(context, original);
            if usual.is_none_or(|usual| usual as f32 != magnitude as f32) {
                scaling.insert("attention_factor".into(), short(magnitude));
            }
        }
        scaling.insert("original_max_position_embeddings".into(), original.into());
        reading.set("rope_scaling", scaling);
        reading.set("original_max_position_embeddings", original);
        return Ok(());
    }
    // Without a type, a factor stretches linearly.
    match reading.str("rope.scaling.type")?.unwrap_or("linear") {
        "none" => {}
        "linear" => {
            if let Some(factor) = factor.filter(|factor| *factor != 1.0) {
                reading.set("rope_scaling", json!({"rope_type": "linear", "factor": short(factor)}));
            }
        }
        "yarn" => {
            let scaling = yarn(reading, factor.unwrap_or(1.0), original)?;
            reading.set("rope_scaling", scaling);
        }
        // Files of models with one set of frequencies say so too; their divisors would be tensors.
        "longrope" => {}
        other => {
            let found = format!("{other:?}");
            return Err(reading.bad("rope.scaling.type", &found, "none, linear, yarn or longrope"));
        }
    }
    Ok(())
}

fn yarn(reading: &Reading<'_>, factor: f64, original: Option<u64>) -> Result<Map<String, Value>, Error> {
    let mut scaling = Map::new();
    scaling.insert("rope_type".into(), "yarn".into());
    scaling.insert("factor".into(), short(factor));
    scaling.insert("original_max_position_embeddings".into(), original.into());
    let magnitude = match reading.real("rope.scaling.yarn_attn_factor")? {
        Some(magnitude) => Some(magnitude),
        // This key multiplies the magnitude that follows from the factor.
        None => reading.real("rope.scaling.attn_factor")?.map(|times| times * yarn_magnitude(factor)),
    };
    if let Some(magnitude) = magnitude.filter(|x| *x as f32 != yarn_magnitude(factor) as f32) {
        scaling.insert("attention_factor".into(), short(magnitude));
    }
    for (key, field) in [("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")] {
        if let Some(beta) = reading.real(&format!("rope.scaling.{key}"))? {
            scaling.insert(field.into(), short(beta));
        }
    }
    Ok(scaling)
}

/// Puts the keys of a scaling and gives the tensors that it needs.
pub(crate) fn write(writing: &mut Writing<'_>) -> Result<Vec<(String, Vec<f32>)>, Error> {
    let Some(rotary) = writing.spec.rotary.first() else { return Ok(Vec::new()) };
    writing.whole("rope.dimension_count", rotary.dim);
    match &rotary.scaling {
        // The divisors of a file of this kind are read as one of the other scalings.
        Scaling::None | Scaling::Dynamic { .. } => {}
        Scaling::Linear { factor } => {
            writing.text("rope.scaling.type", "linear");
            writing.real("rope.scaling.factor", *factor);
        }
        Scaling::Llama3 { factor, low, high, original } => {
            return Ok(vec![(DIVISORS.into(), llama3(rotary, *factor, (*low, *high), *original))]);
        }
        Scaling::Yarn { factor, original, magnitude, .. } => write_yarn(writing, *factor, *original, *magnitude)?,
        Scaling::LongRope { short, long, original, magnitude, .. } => {
            let narrow = |list: &[f64]| list.iter().map(|x| *x as f32).collect::<Vec<f32>>();
            // One list and no magnitude: divisors of another kind.
            if short == long && *magnitude == 1.0 {
                return Ok(vec![(DIVISORS.into(), narrow(short))]);
            }
            writing.text("rope.scaling.type", "longrope");
            writing.whole("rope.scaling.original_context_length", *original);
            writing.real("rope.scaling.attn_factor", *magnitude);
            return Ok(vec![(LONG.into(), narrow(long)), (SHORT.into(), narrow(short))]);
        }
    }
    Ok(Vec::new())
}

/// The ramp of a specification does not say which betas it was made of: they are in the configuration.
fn write_yarn(writing: &mut Writing<'_>, factor: f64, original: f64, magnitude: f64) -> Result<(), Error> {
    let config = writing.config;
    let scaling = match config.object("rope_parameters")? {
        Some(parameters) => parameters.object("full_attention")?.or(Some(parameters)),
        None => config.object("rope_scaling")?,
    };
    let of = |field: &str| scaling.as_ref().map_or(Ok(None), |scaling: &Config| scaling.opt_f64(field));
    writing.text("rope.scaling.type", "yarn");
    writing.real("rope.scaling.factor", factor);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of tokens")]
    writing.whole("rope.scaling.original_context_length", original as usize);
    for (key, field) in [("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")] {
        if let Some(beta) = of(field)?.filter(|beta| *beta != 0.0) {
            writing.real(&format!("rope.scaling.{key}"), beta);
        }
    }
    let usual = yarn_magnitude(factor);
    if magnitude as f32 != usual as f32 {
        // The first is the converter's, the second is what llama.cpp computes with.
        writing.real("rope.scaling.yarn_attn_factor", magnitude);
        writing.real("rope.scaling.attn_factor", magnitude / usual);
    }
    Ok(())
}

fn yarn_magnitude(factor: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * factor.ln() + 1.0 }
}

fn long_rope_magnitude(context: Option<u64>, original: Option<u64>) -> Option<f64> {
    let (context, original) = (context? as f64, original? as f64);
    let factor = context / original;
    (original > 1.0).then(|| if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original.ln()).sqrt() })
}

fn decimals(values: &[f32]) -> Value {
    values.iter().map(|x| short(f64::from(*x))).collect()
}

/// Divisors of Llama 3.1's frequencies: 1 for short wavelengths, `factor` for long ones, a ramp between.
fn llama3(rotary: &Rotary, factor: f64, (low, high): (f64, f64), original: f64) -> Vec<f32> {
    let plain = Rotary { scaling: Scaling::None, ..rotary.clone() };
    let divisor = |frequency: f32| {
        let wavelength = std::f64::consts::TAU / f64::from(frequency);
        let smooth = ((original / wavelength - low) / (high - low)).clamp(0.0, 1.0);
        (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
    };
    plain.frequencies(1).0.into_iter().map(divisor).collect()
}

/// The factor and the original context that give these divisors.
fn llama3_of(divisors: &[f32], base: f64) -> Option<(f32, u64)> {
    /// Llama 3.1's first, then other powers of two: small models of tests have short contexts.
    const CONTEXTS: std::ops::Range<u32> = 4..21;
    let factor = divisors.iter().copied().fold(1.0, f32::max);
    let rotary = Rotary { dim: 2 * divisors.len(), base, scaling: Scaling::None };
    let fits = |original: &u64| {
        let ours = llama3(&rotary, f64::from(factor), LLAMA3_BAND, *original as f64);
        ours.iter().zip(divisors).all(|(ours, theirs)| (ours - theirs).abs() <= 1e-5 * theirs.abs())
    };
    if !factor.is_finite() || base <= 0.0 {
        return None;
    }
    let original = std::iter::once(8192).chain(CONTEXTS.map(|power| 1u64 << power)).find(fits)?;
    Some((factor, original))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divisors_of_llama_3_are_recognised() {
        for (base, factor, original) in [(5e5, 8.0, 8192u64), (5e5, 32.0, 8192), (1e4, 4.0, 1024)] {
            let rotary = Rotary { dim: 128, base, scaling: Scaling::None };
            let divisors = llama3(&rotary, factor, LLAMA3_BAND, original as f64);
            assert!(divisors.iter().any(|d| *d > 1.0 && f64::from(*d) < factor), "a ramp");
            assert_eq!(llama3_of(&divisors, base), Some((factor as f32, original)));
        }
        assert_eq!(llama3_of(&[1.0, 1.5, 1.25, 2.0], 1e4), None, "rising and falling");
    }
}
