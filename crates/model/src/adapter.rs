//! What is trained of a model: some of its parameters, or factors of low rank beside frozen ones (LoRA).
//!
//! Modules are called as PEFT calls them: `q_proj`, `mlp.down_proj`, or a full name. A module is a tensor of the
//! checkpoint's format, and lathe's parameters are found in it through the family's table of names. Where one module holds
//! several parameters (`qkv_proj`), their factors share `A`, and `B` is cut into their rows: exactly one adapted module.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use lathe_formats::Format;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::decoder::Weights;
use crate::open::Opened;
use crate::spec::{Parameter, Part};
use crate::target::TargetTensor;

/// The word for every linear layer of the layers; the head stays as it is.
const ALL_LINEAR: &str = "all-linear";

/// Factors of low rank beside frozen weights: `y = W x + s · B (A (D(x)))` (LoRA, 2106.09685).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraSpec {
    /// Rows of `A` and columns of `B`.
    pub rank: usize,
    /// What the product is multiplied by, before it is divided.
    pub alpha: f64,
    /// What `alpha` is divided by.
    #[serde(default)]
    pub scaling: LoraScaling,
    /// Share of the input's values that is dropped in training, `0 ≤ dropout < 1`; nothing is outside of it.
    #[serde(default)]
    pub dropout: f32,
    /// Modules: the last parts of their names (`q_proj`), whole names, or `all-linear`.
    pub targets: Vec<String>,
    /// Seed of `A` and of dropout. `B` begins at zero.
    #[serde(default)]
    pub seed: u64,
}

/// What `alpha` is divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoraScaling {
    /// The rank.
    #[default]
    Classic,
    /// The root of the rank (rsLoRA, 2312.03732).
    RankStabilised,
}

impl LoraSpec {
    /// What `B A` is multiplied by.
    #[must_use]
    pub fn scale(&self) -> f32 {
        let rank = self.rank as f64;
        let scale = match self.scaling {
            LoraScaling::Classic => self.alpha / rank,
            LoraScaling::RankStabilised => self.alpha / rank.sqrt(),
        };
        scale as f32
    }

    /// Refuses numbers that make no sense.
    fn check(&self) -> Result<(), Error> {
        if self.rank == 0 {
            return Err(refuse("rank", "0 leaves nothing to train", "8 and 16 are usual"));
        }
        if !self.alpha.is_finite() || self.alpha == 0.0 {
            return Err(refuse("alpha", format!("{} is no scale", self.alpha), "the rank or twice the rank is usual"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(refuse("dropout", format!("{} is no share below 1", self.dropout), "0 for none"));
        }
        if self.targets.is_empty() {
            return Err(refuse("targets", "no module is named", "for example q_proj,v_proj, or all-linear"));
        }
        Ok(())
    }
}

/// Which parameters of a model are trained; the others stay as they are, bit for bit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trainable {
    /// Every one.
    #[default]
    All,
    /// Those whose name one of these is: lathe's own name, in which `*` stands for anything
    /// (`layers.*.attention.query.weight`), or a module or tensor of the checkpoint by the last parts of its name
    /// (`q_proj`, `self_attn.q_proj.weight`).
    Matching(Vec<String>),
}

pub(crate) fn refuse(field: &'static str, problem: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::Training { field, problem: problem.into(), hint: Some(hint.into()) }
}

/// # Errors
/// There is no way back through weights that stay in their files.
pub(crate) fn check_weights(weights: Weights) -> Result<(), Error> {
    if weights == Weights::Streamed {
        let problem = "what is trained stands beside weights that are in memory";
        return Err(refuse("weights", problem, "leave out --low-memory"));
    }
    Ok(())
}

/// A module of the checkpoint that has factors, and where lathe's parameters are in it.
#[derive(Clone, Debug)]
pub(crate) struct AdaptedModule {
    /// The tensor that the factors belong to, `….weight`.
    pub(crate) tensor: String,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) parts: Vec<AdaptedPart>,
}

/// A parameter of an adapted module.
#[derive(Clone, Debug)]
pub(crate) struct AdaptedPart {
    pub(crate) parameter: String,
    /// The output of the module that each of its rows is.
    pub(crate) rows: Vec<usize>,
}

/// The factors of a module, as a file stores them.
#[derive(Clone, Debug, PartialEq)]
pub struct ModuleFactors {
    /// Name of the tensor that they change, as the model's class calls it (`model.layers.0.self_attn.q_proj.weight`).
    pub tensor: String,
    /// `A`, `[rank, in]`.
    pub a: Vec<f32>,
    /// `B`, `[out, rank]`.
    pub b: Vec<f32>,
}

/// The modules that a specification means.
///
/// # Errors
/// A number makes no sense; a target means no module, or one that can have no factors.
pub(crate) fn modules(opened: &Opened, spec: &LoraSpec) -> Result<Vec<AdaptedModule>, Error> {
    spec.check()?;
    let tensors = opened.target(Format::Safetensors)?.tensors;
    let (mut modules, mut met) = (Vec::new(), HashSet::new());
    for tensor in &tensors {
        let Some(module) = tensor.name.strip_suffix(".weight") else { continue };
        let named = spec.targets.iter().filter(|target| is_end(module, target));
        let named: Vec<&String> = named.collect();
        let problem = unfit(tensor);
        // What `all-linear` means in PEFT has experts in it, which would be left out without a word.
        let all = spec.targets.iter().filter(|target| *target == ALL_LINEAR && problem != Some(Unfit::NoLayer));
        let meant: Vec<&String> = named.into_iter().chain(all).collect();
        if meant.is_empty() {
            continue;
        }
        if let Some(problem) = problem {
            let hint = format!("the modules that can be adapted are {}", names(&tensors).join(", "));
            return Err(refuse("targets", format!("`{}` means `{module}`, {}", meant[0], problem.text()), hint));
        }
        met.extend(meant);
        modules.push(adapted(tensor));
    }
    if let Some(target) = spec.targets.iter().find(|target| !met.contains(target)) {
        let hint = format!("its modules are {}; all of them are all-linear", names(&tensors).join(", "));
        return Err(refuse("targets", format!("{} has no module `{target}`", opened.spec.family), hint));
    }
    Ok(modules)
}

fn adapted(tensor: &TargetTensor) -> AdaptedModule {
    let mut parts = Vec::new();
    let (mut inputs, mut outputs) = (0, 0);
    for (parameter, row) in tensor.rows_of_parameters() {
        inputs = parameter.shape[1];
        outputs += parameter.shape[0];
        parts.push(AdaptedPart { parameter: parameter.name.clone(), rows: row });
    }
    AdaptedModule { tensor: tensor.name.clone(), inputs, outputs, parts }
}

/// Whether `name` is `end`, or ends with it after a point.
fn is_end(name: &str, end: &str) -> bool {
    name.strip_suffix(end).is_some_and(|rest| !end.is_empty() && (rest.is_empty() || rest.ends_with('.')))
}

/// Why a module can have no factors.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unfit {
    /// An embedding, the head, a norm.
    NoLayer,
    /// A part of a mixture of experts.
    Experts,
}

impl Unfit {
    fn text(self) -> &'static str {
        match self {
            Self::NoLayer => "which is no linear layer of the model's layers",
            Self::Experts => "which belongs to a mixture of experts: those are not adapted",
        }
    }
}

fn unfit(tensor: &TargetTensor) -> Option<Unfit> {
    let is_linear = |parameter: &Parameter| {
        parameter.shape.len() == 2 && matches!(parameter.part, Part::Attention | Part::FeedForward)
    };
    if tensor.parameters().any(|parameter| parameter.part == Part::Experts) {
        return Some(Unfit::Experts);
    }
    (!tensor.parameters().all(is_linear)).then_some(Unfit::NoLayer)
}

/// The last parts of the names of modules that can be adapted.
fn names(tensors: &[TargetTensor]) -> Vec<String> {
    let fit = tensors.iter().filter(|tensor| unfit(tensor).is_none());
    let names = fit.filter_map(|tensor| tensor.name.strip_suffix(".weight")?.rsplit('.').next());
    let mut seen = BTreeSet::new();
    names.filter(|name| seen.insert(*name)).map(str::to_owned).collect()
}

/// The parameters that are trained.
///
/// # Errors
/// A pattern matches nothing.
pub(crate) fn selection(opened: &Opened, which: &Trainable) -> Result<Selection, Error> {
    let Trainable::Matching(patterns) = which else { return Ok(Selection::All) };
    if patterns.is_empty() {
        return Err(refuse("train", "no parameter is named", "for example q_proj,k_proj"));
    }
    let tensors = opened.target(Format::Safetensors)?.tensors;
    let mut stored: HashMap<&str, &str> = HashMap::new();
    for tensor in &tensors {
        stored.extend(tensor.parameters().map(|parameter| (parameter.name.as_str(), tensor.name.as_str())));
    }
    let mut chosen = BTreeMap::new();
    let parameters = opened.spec.parameters();
    for pattern in patterns {
        let matches = parameters.iter().filter(|parameter| {
            let tensor = stored.get(parameter.name.as_str()).copied().unwrap_or_default();
            let module = tensor.strip_suffix(".weight").or_else(|| tensor.strip_suffix(".bias")).unwrap_or(tensor);
            is_like(&parameter.name, pattern) || is_end(tensor, pattern) || is_end(module, pattern)
        });
        let before = chosen.len();
        let matches: Vec<&Parameter> = matches.collect();
        if matches.is_empty() {
            let hint =
                "modules are named as in the checkpoint (q_proj), parameters as `lathe inspect --tensors` shows them";
            return Err(refuse("train", format!("{} has no parameter `{pattern}`", opened.spec.family), hint));
        }
        chosen.extend(matches.into_iter().map(|parameter| (parameter.name.clone(), before)));
    }
    Ok(Selection::Some(chosen.into_keys().collect()))
}

/// Whether `name` is `pattern`, in which `*` stands for any characters.
fn is_like(name: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let (mut rest, mut last) = (rest, None);
    for part in parts {
        if let Some(before) = last.replace(part) {
            let Some(at) = rest.find(before) else { return false };
            rest = &rest[at + before.len()..];
        }
    }
    last.map_or(rest.is_empty(), |last: &str| rest.ends_with(last))
}

/// Which parameters are variables.
#[derive(Clone, Debug)]
pub(crate) enum Selection {
    None,
    All,
    Some(HashSet<String>),
}

impl Selection {
    pub(crate) fn has(&self, parameter: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Some(names) => names.contains(parameter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_patterns() {
        assert!(is_end("model.layers.0.self_attn.q_proj", "q_proj"));
        assert!(is_end("model.layers.0.self_attn.q_proj", "self_attn.q_proj"));
        assert!(is_end("lm_head", "lm_head"));
        assert!(!is_end("model.layers.0.self_attn.q_proj", "proj"));
        assert!(!is_end("q_proj", ""));
        for (pattern, expected) in [
            ("layers.*.attention.query.weight", true),
            ("*", true),
            ("*query*", true),
            ("layers.1*.weight", true),
            ("layers.12.attention.query.weight", true),
            ("layers.*.attention.query", false),
            ("*.bias", false),
            ("layers.12.*.query.*.weight", false),
        ] {
            assert_eq!(is_like("layers.12.attention.query.weight", pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn scales_are_those_of_the_papers() {
        let spec =
            |scaling| LoraSpec { rank: 16, alpha: 8.0, scaling, dropout: 0.0, targets: vec!["q_proj".into()], seed: 0 };
        assert_eq!(spec(LoraScaling::Classic).scale(), 0.5);
        assert_eq!(spec(LoraScaling::RankStabilised).scale(), 2.0);
    }
}
