//! What is varied, and the candidates that follow.

use std::collections::HashSet;
use std::str::FromStr;

use lathe_merge::config::{BaseUse, Form, METHODS, MergeConfig, ModelEntry, Parameter, Parameters};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::ExploreSpec;
use crate::Error;
pub use lathe_merge::config::Method;

/// A parameter that is varied: `t=0,0.5,1`, `models.1.weight=0..1`, `share=0,0.5,1`.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    place: Place,
    /// As the user wrote it.
    name: String,
    /// Its values.
    pub values: Values,
}

/// The values of an axis.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// These.
    Listed(Vec<f64>),
    /// Any number from the first to the second; only for draws.
    Range(f64, f64),
}

/// Where a value goes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// For the whole merge, whatever models say themselves.
    Everywhere(Parameter),
    /// For one model of the list.
    Model(usize, Parameter),
    /// The weight of the first of two models; the second one's is what is left to 1.
    Share,
}

/// A configuration to be tried.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) name: String,
    pub(super) config: MergeConfig,
}

impl FromStr for Axis {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, values) = text.split_once('=').ok_or("write it as NAME=VALUE,VALUE or NAME=LOW..HIGH")?;
        let place = match name.split('.').collect::<Vec<_>>()[..] {
            ["share"] => Place::Share,
            [name] => Place::Everywhere(parameter(name)?),
            ["models", index, name] => {
                let index = index.parse().map_err(|_| format!("`{index}` is no index of a model, counted from 0"))?;
                Place::Model(index, parameter(name)?)
            }
            _ => return Err(format!("`{name}` is no place of a parameter: write t, share, or models.1.weight")),
        };
        let number = |text: &str| {
            let number = text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
            number.ok_or_else(|| format!("`{text}` is no number"))
        };
        let values = match values.split_once("..") {
            Some((low, high)) => match (number(low)?, number(high)?) {
                (low, high) if low < high => Values::Range(low, high),
                (low, high) => return Err(format!("{low} is not below {high}")),
            },
            None => Values::Listed(values.split(',').map(number).collect::<Result<_, _>>()?),
        };
        Ok(Self { place, name: name.to_owned(), values })
    }
}

fn parameter(name: &str) -> Result<Parameter, String> {
    Parameter::named(name).ok_or_else(|| {
        let mut names: Vec<&str> =
            METHODS.iter().flat_map(|row| row.parameters).map(|row| row.parameter.name()).collect();
        names.sort_unstable();
        names.dedup();
        format!("no method has a parameter `{name}`; there are share, {}", names.join(", "))
    })
}

/// More candidates than anybody waits for.
const MOST: usize = 10_000;

/// All candidates, each once: of every method in turn, combinations of values or draws.
///
/// # Errors
/// There are none or too many; a parameter belongs to no method; a configuration cannot be right.
pub(super) fn candidates(spec: &ExploreSpec) -> Result<Vec<Candidate>, Error> {
    let wrong = |problem: String, hint: &str| Error::Spec { field: "--vary", problem, hint: Some(hint.to_owned()) };
    let mut methods = vec![spec.merge.config.merge_method];
    methods.extend(spec.methods.iter().filter(|method| **method != spec.merge.config.merge_method));
    let points = match spec.draws {
        None => grid(&spec.axes)?,
        Some(0) => return Err(wrong("0 draws are no candidates".into(), "give --draws 20, or leave it out")),
        Some(draws) if draws > MOST => return Err(wrong(format!("{draws} draws"), "at most 10,000")),
        Some(draws) => random(&spec.axes, draws, spec.seed),
    };
    let (mut all, mut seen) = (Vec::new(), HashSet::new());
    for method in methods {
        for point in &points {
            let mut config = with_method(&spec.merge.config, method);
            let mut parts = vec![method.name().to_owned()];
            for (axis, value) in spec.axes.iter().zip(point) {
                if axis.set(&mut config, *value)? {
                    parts.push(format!("{} {}", axis.name, shown(*value)));
                }
            }
            if seen.insert(config.to_yaml()) {
                config.check()?;
                all.push(Candidate { name: parts.join(", "), config });
            }
        }
    }
    for axis in &spec.axes {
        if !all.iter().any(|candidate| candidate.name.contains(&format!(", {} ", axis.name))) {
            let problem = format!("`{}` is a parameter of none of the methods", axis.name);
            return Err(wrong(
                problem,
                "`lathe merge --help` names the methods, docs/methods/merging.md their parameters",
            ));
        }
    }
    Ok(all)
}

/// A value with at most four digits after the point.
fn shown(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn grid(axes: &[Axis]) -> Result<Vec<Vec<f64>>, Error> {
    let mut points = vec![Vec::new()];
    for axis in axes {
        let Values::Listed(values) = &axis.values else {
            let problem = format!("`{}` has a range of values, of which there are too many to try all", axis.name);
            let hint = Some("add --draws 20, or list values: 0,0.5,1".to_owned());
            return Err(Error::Spec { field: "--vary", problem, hint });
        };
        points = points
            .iter()
            .flat_map(|point| {
                values.iter().map(move |value| {
                    let mut longer: Vec<f64> = point.clone();
                    longer.push(*value);
                    longer
                })
            })
            .collect();
        if points.len() > MOST {
            let problem = format!("more than {MOST} combinations");
            return Err(Error::Spec { field: "--vary", problem, hint: Some("use --draws".to_owned()) });
        }
    }
    Ok(points)
}

/// Points whose values are independent: uniform in a range, one of a list.
fn random(axes: &[Axis], draws: usize, seed: u64) -> Vec<Vec<f64>> {
    let draw = |index: usize| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // Each point has a stream of its own: more draws leave the first ones as they were.
        rng.set_stream(index as u64);
        let value = |axis: &Axis| match &axis.values {
            Values::Listed(values) => values[rng.random_range(0..values.len())],
            Values::Range(low, high) => rng.random_range(*low..*high),
        };
        axes.iter().map(value).collect()
    };
    (0..draws).map(draw).collect()
}

impl Axis {
    /// Puts a value into a configuration; false where its method has no such parameter.
    fn set(&self, config: &mut MergeConfig, value: f64) -> Result<bool, Error> {
        let method = config.merge_method;
        let has = |parameter| method.parameter(parameter).is_some();
        match self.place {
            Place::Everywhere(parameter) if has(parameter) => {
                config.parameters.set(parameter, value);
                entries(config).for_each(|parameters| parameters.remove(parameter));
                Ok(true)
            }
            Place::Model(index, parameter) if has(parameter) => {
                let problem = || format!("`{}`: there is no model {index} in the list", self.name);
                let wrong =
                    || Error::Spec { field: "--vary", problem: problem(), hint: Some("they count from 0".into()) };
                let Form::Models(models) = &mut config.form else { return Err(wrong()) };
                models.get_mut(index).ok_or_else(wrong)?.parameters.set(parameter, value);
                Ok(true)
            }
            Place::Everywhere(_) | Place::Model(..) => Ok(false),
            Place::Share => {
                let base = config.base_model.clone();
                let has_weight = has(Parameter::Weight);
                let has_t = config.merge_method == Method::Slerp;
                let Form::Models(models) = &mut config.form else { return Ok(false) };
                let mut others: Vec<&mut ModelEntry> =
                    models.iter_mut().filter(|entry| has_t || Some(&entry.model) != base.as_ref()).collect();
                let [first, second] = &mut others[..] else {
                    let problem = format!("`share` is for two models, not {}", others.len());
                    return Err(Error::Spec { field: "--vary", problem, hint: Some("vary models.0.weight".into()) });
                };
                if has_t {
                    config.parameters.set(Parameter::T, 1.0 - value);
                } else if has_weight {
                    first.parameters.set(Parameter::Weight, value);
                    second.parameters.set(Parameter::Weight, 1.0 - value);
                } else {
                    return Ok(false);
                }
                Ok(true)
            }
        }
    }
}

fn entries(config: &mut MergeConfig) -> Box<dyn Iterator<Item = &mut Parameters> + '_> {
    match &mut config.form {
        Form::Models(models) => Box::new(models.iter_mut().map(|entry| &mut entry.parameters)),
        Form::Slices(slices) => Box::new(slices.iter_mut().flat_map(|slice| {
            std::iter::once(&mut slice.parameters).chain(slice.sources.iter_mut().map(|source| &mut source.parameters))
        })),
    }
}

/// A configuration with another method: parameters that it does not have are left out, and where it interpolates between
/// two models the first one takes the place of the base.
fn with_method(config: &MergeConfig, method: Method) -> MergeConfig {
    let mut config = config.clone();
    if config.merge_method == method {
        return config;
    }
    config.merge_method = method;
    let row = method.row();
    let has = |parameter| method.parameter(parameter).is_some();
    config.parameters.0.retain(|(parameter, _)| has(*parameter));
    entries(&mut config).for_each(|parameters| parameters.0.retain(|(parameter, _)| has(*parameter)));
    let is_between_two = row.base == BaseUse::Needed && row.models.most == Some(1);
    if let (true, Form::Models(models)) = (is_between_two, &config.form)
        && models.len() == 2
        && !models.iter().any(|entry| Some(&entry.model) == config.base_model.as_ref())
    {
        config.base_model = Some(models[0].model.clone());
    }
    config
}
