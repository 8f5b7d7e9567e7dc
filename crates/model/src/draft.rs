//! A model of which there is only a configuration: one that is about to be written.

use std::path::Path;
use std::sync::Arc;

use lathe_formats::Format;
use serde_json::{Map, Value};

use crate::Error;
use crate::adapter::Selection;
use crate::config::Config;
use crate::decoder::{Decoder, Weights};
use crate::family::{self, Family};
use crate::parameters::RandomSource;
use crate::spec::DecoderSpec;
use crate::target::{self, Target};

/// What a `config.json` says of a model, before there are weights.
pub struct Draft {
    /// What its decoder is made of.
    pub spec: DecoderSpec,
    /// The architecture's row of the table.
    pub family: &'static Family,
    config: Config,
}

impl Draft {
    /// Translates the fields of a configuration; `file` is named in errors.
    ///
    /// # Errors
    /// The architecture is unknown, or a field cannot be used.
    pub fn new(file: &Path, fields: Map<String, Value>) -> Result<Self, Error> {
        let config = Config::new(file, fields);
        let family = family::of(&config)?;
        let config = family::with_defaults(config, family);
        Ok(Self { spec: (family.translate)(&config)?, family, config })
    }

    /// A decoder to be trained from the beginning: all parameters are trainable, with the seeded random weights of
    /// [`RandomSource`] (matrices from N(0, `initializer_range`²), norms 1, biases 0). The same seed gives the same bits on
    /// any number of threads. `weights` says how they are multiplied.
    ///
    /// # Errors
    /// `initializer_range` is no standard deviation, or a tensor operation fails.
    pub fn initialised(&self, weights: Weights, seed: u64) -> Result<Decoder, Error> {
        let source = Arc::new(RandomSource::new(self.spec.clone(), seed));
        Decoder::load_training(self.spec.clone(), source, weights, Selection::All, None)
    }

    /// What a checkpoint of it in `format` is made of.
    ///
    /// # Errors
    /// The format has no names for the architecture or for some of its parameters.
    pub fn target(&self, format: Format) -> Result<Target, Error> {
        target::target(format, &self.config, &self.spec, self.family)
    }
}
