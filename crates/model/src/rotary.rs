//! Rotary frequencies of a layer and their scalings, from either dialect of `config.json`.

use serde_json::Value;

use crate::config::Config;
use crate::Error;

/// Rotary positions: which frequencies, stretched how.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// Values of a head that are rotated; even, at most the head's width.
    pub dim: usize,
    /// Base of the frequencies `base^(-2i/dim)`.
    pub base: f64,
    /// How long contexts are reached.
    pub scaling: Scaling,
}

/// A scaling of the rotary frequencies.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    /// As trained.
    None,
    /// Every frequency divided by `factor` (position interpolation).
    Linear {
        /// Divisor.
        factor: f64,
    },
    /// Low frequencies divided by `factor`, high ones kept, a ramp between (Llama 3.1).
    Llama3 {
        /// Divisor of low frequencies.
        factor: f64,
        /// Wavelengths above `original / low` are divided.
        low: f64,
        /// Wavelengths below `original / high` are kept.
        high: f64,
        /// Context of the original training.
        original: f64,
    },
    /// One divisor per frequency (`rope_freqs.weight` of GGUF files).
    Divisors(Vec<f32>),
}

impl Rotary {
    /// Reads the rotary settings of a configuration.
    ///
    /// The newer dialect has `rope_parameters`, either one object or one per layer type; the older has `rope_theta`
    /// and `rope_scaling`. `layer_type` picks the object of the newer dialect, `old_base` the field of the older.
    ///
    /// # Errors
    /// A field is missing, malformed, or names a scaling that is not known.
    pub fn read(config: &Config, head_dim: usize, layer_type: Option<&str>, old_base: &str) -> Result<Self, Error> {
        let parameters = config.object("rope_parameters")?;
        let parameters = match (&parameters, layer_type) {
            (Some(all), Some(layer_type)) => all.object(layer_type)?.or_else(|| parameters.clone()),
            _ => parameters,
        };
        let (base, partial, scaling) = match &parameters {
            Some(p) => (p.opt_f64("rope_theta")?, p.opt_f64("partial_rotary_factor")?, Some(p.clone())),
            None => (None, None, config.object("rope_scaling")?),
        };
        let base = match base {
            Some(base) => base,
            None => config.opt_f64(old_base)?.unwrap_or(10_000.0),
        };
        if base <= 0.0 {
            return Err(config.bad(old_base, &Value::from(base), "a positive base"));
        }
        let partial = match partial {
            Some(partial) => partial,
            None => config.opt_f64("partial_rotary_factor")?.unwrap_or(1.0),
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a fraction of a head's width")]
        let dim = (head_dim as f64 * partial) as usize / 2 * 2;
        if dim == 0 || dim > head_dim {
            return Err(config.bad("partial_rotary_factor", &Value::from(partial), "between 0 and 1"));
        }
        let scaling = match &scaling {
            Some(scaling) => Scaling::read(scaling, config)?,
            None => Scaling::None,
        };
        Ok(Self { dim, base, scaling })
    }

    /// Frequencies in radians per position, `[dim / 2]`, rounded to f32 as the reference implementation does.
    #[must_use]
    pub fn inverse_frequencies(&self) -> Vec<f32> {
        let plain = (0..self.dim / 2).map(|i| (1.0 / self.base.powf(2.0 * i as f64 / self.dim as f64)) as f32);
        match &self.scaling {
            Scaling::None => plain.collect(),
            Scaling::Linear { factor } => plain.map(|f| (f64::from(f) / factor) as f32).collect(),
            Scaling::Divisors(divisors) => {
                plain.enumerate().map(|(i, f)| f / divisors.get(i).copied().unwrap_or(1.0)).collect()
            }
            Scaling::Llama3 { factor, low, high, original } => plain
                .map(|f| {
                    let wavelength = std::f64::consts::TAU / f64::from(f);
                    if wavelength < original / high {
                        f
                    } else if wavelength > original / low {
                        (f64::from(f) / factor) as f32
                    } else {
                        let smooth = (original / wavelength - low) / (high - low);
                        ((1.0 - smooth) * f64::from(f) / factor + smooth * f64::from(f)) as f32
                    }
                })
                .collect(),
        }
    }
}

impl Scaling {
    fn read(scaling: &Config, config: &Config) -> Result<Self, Error> {
        let kind = match scaling.opt_str("rope_type")? {
            Some(kind) => Some(kind),
            None => scaling.opt_str("type")?,
        };
        let factor = || {
            let factor = scaling.f64("factor")?;
            if factor > 0.0 { Ok(factor) } else { Err(scaling.bad("factor", &Value::from(factor), "a positive number")) }
        };
        match kind {
            None | Some("default") => Ok(Self::None),
            Some("linear") => Ok(Self::Linear { factor: factor()? }),
            Some("llama3") => Ok(Self::Llama3 {
                factor: factor()?,
                low: scaling.f64("low_freq_factor")?,
                high: scaling.f64("high_freq_factor")?,
                original: match scaling.opt_f64("original_max_position_embeddings")? {
                    Some(original) => original,
                    None => config.f64("max_position_embeddings")?,
                },
            }),
            Some(other) => Err(scaling.bad("rope_type", &Value::from(other), "default, linear or llama3")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn config(value: Value) -> Config {
        let Value::Object(fields) = value else { panic!("an object") };
        Config::new(Path::new("config.json"), fields)
    }

    #[test]
    fn both_dialects_mean_the_same() {
        let older = config(serde_json::json!({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0}}));
        let newer = config(
            serde_json::json!({"rope_parameters": {"rope_theta": 5e5, "rope_type": "linear", "factor": 4.0}}),
        );
        let read = |c: &Config| Rotary::read(c, 8, None, "rope_theta").expect("valid");
        assert_eq!(read(&older), read(&newer));
        assert_eq!(read(&older).inverse_frequencies()[0], 0.25);
    }

    #[test]
    fn llama3_keeps_high_frequencies_and_divides_low_ones() {
        let scaling = Scaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 32.0 };
        let scaled = Rotary { dim: 8, base: 5e5, scaling }.inverse_frequencies();
        let plain = Rotary { dim: 8, base: 5e5, scaling: Scaling::None }.inverse_frequencies();
        assert_eq!(scaled[0], plain[0]);
        assert_eq!(scaled[3], plain[3] / 8.0);
    }

    #[test]
    fn an_unknown_scaling_names_its_field() {
        let c = config(serde_json::json!({"rope_scaling": {"type": "spiral", "factor": 4.0}}));
        let error = Rotary::read(&c, 8, None, "rope_theta").expect_err("unknown");
        assert_eq!(
            error.to_string(),
            "config.json: field `rope_scaling.rope_type` is \"spiral\", expected default, linear or llama3"
        );
    }
}
