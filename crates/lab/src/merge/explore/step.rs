//! An exploration as a step of an experiment.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lathe_merge::config::{MergeConfig, ModelEntry, ModelRef, Parameter, Parameters};
use lathe_model::reference::ModelReference;
use serde::{Deserialize, Serialize};

use super::{Axis, ExploreSpec, Measure, Method};
use crate::Error;
use crate::export::ExportFormat;
use crate::merge::{MergeSpec, Nonfinite, Recipe};

/// What to try: methods over the same models, with what is varied.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExploreStep {
    /// The model that the others were tuned from.
    pub base: String,
    /// The models, in the order in which `models.0.weight` counts them.
    pub models: Vec<String>,
    /// The methods.
    pub methods: Vec<String>,
    /// Parameters that stay: for all methods that have them.
    #[serde(default)]
    pub parameters: BTreeMap<String, f64>,
    /// What is varied, as the command line has it: `share=0,0.5,1`.
    pub vary: Vec<String>,
    /// Draws in the place of all combinations.
    #[serde(default)]
    pub draws: Option<usize>,
    /// What is measured: two or more.
    pub measures: Vec<Measure>,
    /// Models that are measured too, by name.
    #[serde(default)]
    pub beside: BTreeMap<String, ModelReference>,
    /// How candidates are stored, `float32` or another type of configurations.
    #[serde(default)]
    pub dtype: Option<String>,
    /// Seed of draws and of random masks.
    #[serde(default)]
    pub seed: u64,
}

impl ExploreStep {
    /// The exploration, with its folder.
    ///
    /// # Errors
    /// A method, a parameter or a reference that does not exist.
    pub(crate) fn spec(&self, out: PathBuf) -> Result<ExploreSpec, Error> {
        let bad = |field, problem: String| Error::Spec { field, problem, hint: None };
        let method = |name: &String| {
            Method::named(name).ok_or_else(|| bad("methods", format!("`{name}` is no method of merging")))
        };
        let methods = self.methods.iter().map(method).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = methods.first() else { return Err(bad("methods", "there are none".into())) };
        let model =
            |text: &String| text.parse::<ModelRef>().map_err(|problem| bad("models", format!("`{text}`: {problem}")));
        let entries =
            self.models.iter().map(|text| Ok(ModelEntry::plain(model(text)?))).collect::<Result<_, Error>>()?;
        let mut config = MergeConfig::of_models(*first, entries);
        config.base_model = Some(model(&self.base)?);
        config.parameters = self.parameters.iter().try_fold(Parameters::none(), |all, (name, value)| {
            let parameter = Parameter::named(name);
            let parameter =
                parameter.ok_or_else(|| bad("parameters", format!("no method has a parameter `{name}`")))?;
            Ok::<_, Error>(all.with(parameter, *value))
        })?;
        config.seed = self.seed;
        let axis = |text: &String| text.parse::<Axis>().map_err(|problem| bad("vary", format!("{text}: {problem}")));
        Ok(ExploreSpec {
            merge: MergeSpec {
                config,
                recipe: Recipe::default(),
                folder: None,
                to: ExportFormat::Safetensors,
                dtype: self.dtype.clone(),
                shard_bytes: u64::MAX,
                nonfinite: Nonfinite::Refuse,
            },
            methods,
            axes: self.vary.iter().map(axis).collect::<Result<_, _>>()?,
            draws: self.draws,
            measures: self.measures.clone(),
            beside: self.beside.clone().into_iter().collect(),
            write: 0,
            seed: self.seed,
            out,
        })
    }
}
