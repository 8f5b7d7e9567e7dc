//! Rotary frequencies of a layer and their scalings, from either dialect of `config.json`.

use serde_json::Value;

use crate::Error;
use crate::config::Config;

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
    /// The base grows with the sequence once it exceeds the trained context (dynamic NTK).
    Dynamic {
        /// How fast.
        factor: f64,
        /// Context of the training.
        original: f64,
    },
    /// Low frequencies divided by `factor`, high ones kept, a ramp over dimensions between (YaRN, section 3.2), and
    /// cosine and sine scaled by `magnitude`.
    Yarn {
        /// Divisor of low frequencies.
        factor: f64,
        /// Context of the original training.
        original: f64,
        /// First and last dimension of the ramp.
        ramp: (f64, f64),
        /// Factor of cosine and sine.
        magnitude: f64,
    },
    /// One divisor per frequency for short sequences and another for long ones (LongRoPE, Phi-3).
    LongRope {
        /// Divisors up to the original context.
        short: Vec<f64>,
        /// Divisors beyond it.
        long: Vec<f64>,
        /// Context of the original training.
        original: usize,
        /// Factor of cosine and sine.
        magnitude: f64,
        /// What becomes of a cached text that grows beyond `original`.
        outgrown: Outgrown,
    },
}

/// Names of scalings in configurations.
pub const SCALINGS: &[&str] = &["default", "linear", "dynamic", "llama3", "yarn", "longrope"];

/// Positions beyond which f32 no longer counts in ones: no context is longer, whatever a file says.
const MOST_POSITIONS: f64 = 16_777_216.0;

/// What becomes of cached keys when a text grows beyond the context of the original training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outgrown {
    /// They stay rotated by the frequencies of the shorter text.
    Kept,
    /// The text is run once more (Phi-3): through the cache it is the same as at once.
    RunAgain,
}

impl Rotary {
    /// Reads the rotary settings of a configuration.
    ///
    /// The newer dialect has `rope_parameters`, either one object or one per layer type; the older has `rope_theta`
    /// and `rope_scaling`, which wins where somebody added it to a newer file. `layer_type` picks the object of the
    /// newer dialect, `old_base` the field of the older.
    ///
    /// # Errors
    /// A field is missing, malformed, or names a scaling that is not known.
    pub fn read(config: &Config, head_dim: usize, layer_type: Option<&str>, old_base: &str) -> Result<Self, Error> {
        let parameters = match config.object("rope_scaling")? {
            Some(scaling) => Some(scaling),
            None => config.object("rope_parameters")?,
        };
        let parameters = match (&parameters, layer_type) {
            (Some(all), Some(layer_type)) => all.object(layer_type)?.or_else(|| parameters.clone()),
            _ => parameters,
        };
        let (base, partial) = match &parameters {
            Some(p) => (p.opt_f64("rope_theta")?, p.opt_f64("partial_rotary_factor")?),
            None => (None, None),
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
            None => match config.opt_f64("partial_rotary_factor")? {
                Some(partial) => partial,
                None => config.opt_f64("rotary_pct")?.unwrap_or(1.0),
            },
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a fraction of a head's width")]
        let dim = (head_dim as f64 * partial) as usize / 2 * 2;
        if dim == 0 || dim > head_dim {
            return Err(config.bad("partial_rotary_factor", &Value::from(partial), "between 0 and 1"));
        }
        let scaling = match &parameters {
            Some(parameters) => Scaling::read(parameters, config, dim, base)?,
            None => Scaling::None,
        };
        Ok(Self { dim, base, scaling })
    }

    /// Positions that are reached, where a configuration that speaks of `trained` positions may mean those before
    /// stretching.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded below, a number of tokens")]
    pub fn context(&self, trained: usize) -> usize {
        match &self.scaling {
            Scaling::Dynamic { factor, original } | Scaling::Yarn { factor, original, .. } => {
                trained.max((factor * original).min(MOST_POSITIONS) as usize)
            }
            _ => trained,
        }
    }

    /// Length beyond which a cached text is run once more, if there is one.
    #[must_use]
    pub fn runs_again_beyond(&self) -> Option<usize> {
        match &self.scaling {
            Scaling::LongRope { original, outgrown: Outgrown::RunAgain, .. } => Some(*original),
            _ => None,
        }
    }

    /// Frequencies in radians per position of a sequence of `len` tokens, `[dim / 2]`, rounded to f32 as the
    /// reference implementation does, and the factor of cosine and sine.
    #[must_use]
    pub fn frequencies(&self, len: usize) -> (Vec<f32>, f32) {
        let with_base =
            |base: f64| (0..self.dim / 2).map(move |i| (1.0 / base.powf(2.0 * i as f64 / self.dim as f64)) as f32);
        let plain = with_base(self.base);
        match &self.scaling {
            Scaling::None => (plain.collect(), 1.0),
            Scaling::Linear { factor } => (plain.map(|f| (f64::from(f) / factor) as f32).collect(), 1.0),
            Scaling::Llama3 { factor, low, high, original } => {
                let scaled = plain.map(|f| {
                    let wavelength = std::f64::consts::TAU / f64::from(f);
                    if wavelength < original / high {
                        f
                    } else if wavelength > original / low {
                        (f64::from(f) / factor) as f32
                    } else {
                        let smooth = (original / wavelength - low) / (high - low);
                        ((1.0 - smooth) * f64::from(f) / factor + smooth * f64::from(f)) as f32
                    }
                });
                (scaled.collect(), 1.0)
            }
            Scaling::Dynamic { factor, original } => {
                let (dim, stretch) = (self.dim as f64, (len as f64).max(*original) / original);
                let base = self.base * (factor * stretch - (factor - 1.0)).powf(dim / (dim - 2.0));
                (with_base(base).collect(), 1.0)
            }
            Scaling::Yarn { factor, ramp: (first, last), magnitude, .. } => {
                let scaled = plain.enumerate().map(|(i, f)| {
                    let ramp = ((i as f64 - first) / (last - first)).clamp(0.0, 1.0);
                    (f64::from(f) / factor * ramp + f64::from(f) * (1.0 - ramp)) as f32
                });
                (scaled.collect(), *magnitude as f32)
            }
            Scaling::LongRope { short, long, original, magnitude, .. } => {
                let divisors = if len > *original { long } else { short };
                let scaled = plain.zip(divisors).map(|(f, divisor)| (f64::from(f) / divisor) as f32);
                (scaled.collect(), *magnitude as f32)
            }
        }
    }
}

impl Scaling {
    fn read(scaling: &Config, config: &Config, dim: usize, base: f64) -> Result<Self, Error> {
        let kind = match scaling.opt_str("rope_type")? {
            Some(kind) => Some(kind),
            None => scaling.opt_str("type")?,
        };
        let factor = || {
            let factor = scaling.f64("factor")?;
            if factor > 0.0 {
                Ok(factor)
            } else {
                Err(scaling.bad("factor", &Value::from(factor), "a positive number"))
            }
        };
        match kind {
            None | Some("default") => Ok(Self::None),
            Some("linear") => Ok(Self::Linear { factor: factor()? }),
            Some("llama3") => Ok(Self::Llama3 {
                factor: factor()?,
                low: scaling.f64("low_freq_factor")?,
                high: scaling.f64("high_freq_factor")?,
                original: Self::original(scaling, config)?,
            }),
            Some("dynamic") => {
                Ok(Self::Dynamic { factor: factor()?, original: config.f64("max_position_embeddings")? })
            }
            // Names that early Phi-3 files use.
            Some("longrope" | "su") => Self::long_rope(scaling, config, dim),
            Some("yarn") if scaling.get("long_factor").is_some() => Self::long_rope(scaling, config, dim),
            Some("yarn") => Self::yarn(scaling, config, dim, base),
            Some(other) => Err(scaling.bad("rope_type", &Value::from(other), &SCALINGS.join(", "))),
        }
    }

    /// The context before stretching: of the configuration (Phi-3), of the scaling, or the whole context.
    fn original(scaling: &Config, config: &Config) -> Result<f64, Error> {
        const FIELD: &str = "original_max_position_embeddings";
        let original = match config.opt_f64(FIELD)? {
            Some(original) => original,
            None => match scaling.opt_f64(FIELD)? {
                Some(original) => original,
                None => config.f64("max_position_embeddings")?,
            },
        };
        if original > 1.0 { Ok(original) } else { Err(scaling.bad(FIELD, &Value::from(original), "more than 1")) }
    }

    fn yarn(scaling: &Config, config: &Config, dim: usize, base: f64) -> Result<Self, Error> {
        let original = Self::original(scaling, config)?;
        let factor = match scaling.opt_f64("factor")? {
            Some(factor) if factor > 0.0 => factor,
            Some(factor) => return Err(scaling.bad("factor", &Value::from(factor), "a positive number")),
            None => config.f64("max_position_embeddings")? / original,
        };
        let magnitude_of = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
        let magnitude = match (
            scaling.opt_f64("attention_factor")?,
            scaling.opt_f64("mscale")?.filter(|x| *x != 0.0),
            scaling.opt_f64("mscale_all_dim")?.filter(|x| *x != 0.0),
        ) {
            (Some(given), ..) => given,
            (None, Some(one), Some(all)) => magnitude_of(one) / magnitude_of(all),
            _ => magnitude_of(1.0),
        };
        // The dimension whose wave turns `turns` times within the original context.
        let dimension = |turns: f64| dim as f64 * (original / (turns * std::f64::consts::TAU)).ln() / (2.0 * base.ln());
        let fast = dimension(scaling.opt_f64("beta_fast")?.filter(|x| *x != 0.0).unwrap_or(32.0));
        let slow = dimension(scaling.opt_f64("beta_slow")?.filter(|x| *x != 0.0).unwrap_or(1.0));
        let (fast, slow) = if scaling.bool_or("truncate", true)? { (fast.floor(), slow.ceil()) } else { (fast, slow) };
        let (first, mut last) = (fast.max(0.0), slow.min(dim as f64 - 1.0));
        if first == last {
            last += 0.001;
        }
        Ok(Self::Yarn { factor, original, ramp: (first, last), magnitude })
    }

    fn long_rope(scaling: &Config, config: &Config, dim: usize) -> Result<Self, Error> {
        let original = Self::original(scaling, config)?;
        let divisors = |field: &str| {
            let list = scaling.opt_f64s(field)?.ok_or_else(|| scaling.missing(field))?;
            if list.len() == dim / 2 && list.iter().all(|x| *x > 0.0) {
                return Ok(list);
            }
            Err(scaling.bad(field, &Value::from(list.len()), &format!("{} positive numbers", dim / 2)))
        };
        let factor = match scaling.opt_f64("factor")? {
            Some(factor) => factor,
            None => config.f64("max_position_embeddings")? / original,
        };
        let magnitude = match scaling.opt_f64("attention_factor")? {
            Some(given) => given,
            None if factor <= 1.0 => 1.0,
            None => (1.0 + factor.ln() / original.ln()).sqrt(),
        };
        let (short, long) = (divisors("short_factor")?, divisors("long_factor")?);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of tokens")]
        Ok(Self::LongRope { short, long, original: original as usize, magnitude, outgrown: Outgrown::Kept })
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
        let newer =
            config(serde_json::json!({"rope_parameters": {"rope_theta": 5e5, "rope_type": "linear", "factor": 4.0}}));
        let read = |c: &Config| Rotary::read(c, 8, None, "rope_theta").expect("valid");
        assert_eq!(read(&older), read(&newer));
        assert_eq!(read(&older).frequencies(1).0[0], 0.25);
    }

    #[test]
    fn llama3_keeps_high_frequencies_and_divides_low_ones() {
        let scaling = Scaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 32.0 };
        let scaled = Rotary { dim: 8, base: 5e5, scaling }.frequencies(1).0;
        let plain = Rotary { dim: 8, base: 5e5, scaling: Scaling::None }.frequencies(1).0;
        assert_eq!(scaled[0], plain[0]);
        assert_eq!(scaled[3], plain[3] / 8.0);
    }

    #[test]
    fn the_configuration_says_first_what_the_original_context_was() {
        let scaling = serde_json::json!({
            "type": "su", "short_factor": [1.0, 1.0], "long_factor": [2.0, 4.0], "original_max_position_embeddings": 99
        });
        let c = config(serde_json::json!({
            "rope_scaling": scaling, "original_max_position_embeddings": 16, "max_position_embeddings": 256
        }));
        let rotary = Rotary::read(&c, 4, None, "rope_theta").expect("valid");
        let (short, magnitude) = rotary.frequencies(16);
        let (long, _) = rotary.frequencies(17);
        assert_eq!((short[0], long[0]), (1.0, 0.5));
        // sqrt(1 + ln(256 / 16) / ln 16)
        assert_eq!(magnitude, std::f32::consts::SQRT_2);
    }

    #[test]
    fn a_factor_that_is_given_decides_the_magnitude() {
        let scaling = serde_json::json!({
            "rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0], "factor": 1.0,
            "original_max_position_embeddings": 16
        });
        let c = config(serde_json::json!({"rope_parameters": scaling, "max_position_embeddings": 256}));
        assert_eq!(Rotary::read(&c, 2, None, "rope_theta").expect("valid").frequencies(1).1, 1.0);
    }

    #[test]
    fn a_scaling_added_to_a_newer_file_wins() {
        let c = config(serde_json::json!({
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "rope_theta": 1e4,
            "rope_scaling": {"type": "linear", "factor": 2.0}
        }));
        let rotary = Rotary::read(&c, 4, None, "rope_theta").expect("valid");
        assert_eq!((rotary.base, rotary.scaling), (1e4, Scaling::Linear { factor: 2.0 }));
    }

    #[test]
    fn stretched_contexts_are_as_long_as_they_say() {
        let context = |scaling: Value| {
            let c = config(serde_json::json!({"rope_scaling": scaling, "max_position_embeddings": 32}));
            Rotary::read(&c, 8, None, "rope_theta").expect("valid").context(32)
        };
        assert_eq!(context(serde_json::json!({"type": "dynamic", "factor": 2.0})), 64);
        assert_eq!(context(serde_json::json!({"type": "yarn", "factor": 4.0})), 128);
        let yarn = serde_json::json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8});
        assert_eq!(context(yarn), 32);
        assert_eq!(context(serde_json::json!({"type": "linear", "factor": 4.0})), 32);
        assert_eq!(context(serde_json::json!({"type": "dynamic", "factor": 1e300})), 16_777_216);
    }

    #[test]
    fn an_unknown_scaling_names_its_field() {
        let c = config(serde_json::json!({"rope_scaling": {"type": "spiral", "factor": 4.0}}));
        let error = Rotary::read(&c, 8, None, "rope_theta").expect_err("unknown");
        assert_eq!(
            error.to_string(),
            "config.json: field `rope_scaling.rope_type` is \"spiral\", expected default, linear, dynamic, llama3, yarn, longrope"
        );
        for name in SCALINGS {
            let c = config(serde_json::json!({"rope_scaling": {"type": name}, "max_position_embeddings": 32}));
            let read = Rotary::read(&c, 8, None, "rope_theta");
            assert!(read.err().is_none_or(|error| !error.to_string().contains("rope_type")), "{name}");
        }
    }
}
