//! `lathe upcycle`: a mixture of experts made out of a dense model.
//!
//! Every layer's feed-forward part is copied to each expert, with a little noise; the router of a layer is made from
//! clusters of what its feed-forward part reads ([`router`]). Without noise all experts are one function, and as the weights
//! of the chosen ones sum to 1, the result computes what the dense model computes. Nothing is trained. The target is
//! a complete safetensors folder of an architecture that has experts ([`layout`]).

mod card;
mod copies;
mod layout;
mod router;

use std::path::PathBuf;

use lathe_formats::{ElementType, Format};
use lathe_model::Opened;
use lathe_model::reference::ModelReference;
use serde::{Deserialize, Serialize};

use self::copies::Copies;
pub use self::copies::Counts;
pub use self::layout::ExpertLayout;
pub use self::router::LayerRouting;
use crate::export::files::{pretty, tokenizer_and_terms};
use crate::export::{ExportFormat, FLOATS, Numbers, check_target, element_named, write_new_folder};
use crate::inspect::ElementCount;
use crate::{Context, DataReference, Error, WrittenFile, load};

/// What to make experts of, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpcycleSpec {
    /// The dense model.
    pub model: ModelReference,
    /// Experts of every layer, at least 2.
    pub experts: usize,
    /// Experts that a token uses.
    pub top_k: usize,
    /// Architecture of the target; none for the one that suits the model.
    #[serde(default)]
    pub layout: Option<ExpertLayout>,
    /// Standard deviation of the noise in the experts' matrices, relative to that of the matrix.
    pub noise: f64,
    /// Root mean square of the router's logits over the tokens that it is made from.
    pub router_scale: f64,
    /// Texts whose states the routers are made from.
    pub data: Vec<DataReference>,
    /// Field of records that holds the text.
    pub field: String,
    /// Tokens of these texts that are read at most. Their states are held: tokens x layers x width numbers.
    pub tokens: usize,
    /// Element type of the target, `f32`, `bf16` or `f16`; none for that of the model, or `f32` where it has another.
    #[serde(default)]
    pub dtype: Option<String>,
    /// Seed of noise and clusters.
    pub seed: u64,
    /// The folder to write; it must not exist, and the folder above it must. A step of an experiment has its own.
    #[serde(default)]
    pub out: PathBuf,
}

/// A mixture of experts that was written.
#[derive(Clone, Debug, Serialize)]
pub struct UpcycleResult {
    /// The dense model.
    pub model: String,
    /// The folder.
    pub out: PathBuf,
    /// `model_type` of the target.
    pub layout: ExpertLayout,
    /// Experts of every layer.
    pub experts: usize,
    /// Experts that a token uses.
    pub top_k: usize,
    /// Numbers of the target.
    pub parameters: Counts,
    /// Numbers of the dense model.
    pub dense_parameters: u64,
    /// Tokens that the routers are made from.
    pub tokens: usize,
    /// What the router of each layer does with them.
    pub layers: Vec<LayerRouting>,
    /// Every file, by name.
    pub files: Vec<WrittenFile>,
    /// Tensors and bytes of each element type.
    pub elements: Vec<ElementCount>,
}

/// Makes a mixture of experts.
///
/// # Errors
/// A setting makes no sense; the model or a text cannot be read; the model has experts already, or is of an architecture
/// that no layout with experts can hold; the folder exists or cannot be written.
pub fn upcycle(spec: &UpcycleSpec, context: &Context<'_>) -> Result<UpcycleResult, Error> {
    check(spec)?;
    let wanted = spec.dtype.as_deref().map(|word| element_named(word, ExportFormat::Safetensors)).transpose()?;
    check_target(&spec.out)?;
    let loaded = load(&spec.model, context)?;
    let dense = &loaded.opened;
    let layout = layout::suitable(dense, spec.layout)?;
    let draft = layout::draft(dense, layout, spec)?;
    let target = draft.target(Format::Safetensors)?;
    let element = wanted.unwrap_or_else(|| main_element(dense));

    let inputs = router::inputs(&loaded, spec, context)?;
    let (routers, layers) = router::routers(&inputs, spec, context)?;
    let tokens = inputs.tokens;
    drop(inputs);
    let copies = Copies::new(dense, routers, spec, context)?;
    let mut result = UpcycleResult {
        model: spec.model.to_string(),
        out: spec.out.clone(),
        layout,
        experts: spec.experts,
        top_k: spec.top_k,
        parameters: Counts::of(&draft.spec, spec.top_k),
        dense_parameters: Counts::of(&dense.spec, spec.top_k).all,
        tokens,
        layers,
        files: Vec::new(),
        elements: Vec::new(),
    };
    let mut small = tokenizer_and_terms(&loaded.resolved, dense)?;
    // Card and code of the dense model speak of another one.
    small.retain(|(name, _)| name != card::CARD && !name.ends_with(".py"));
    small.push(("config.json".into(), pretty(&layout::config(dense, layout, spec, element).into())?));
    small.extend(card::files(spec, &result, &loaded, context)?);
    let numbers = Numbers::Other(&copies, &dense.path);
    (result.elements, result.files) = write_new_folder(&spec.out, target, element, &small, numbers, context)?;
    Ok(result)
}

/// What can be said before anything is read.
fn check(spec: &UpcycleSpec) -> Result<(), Error> {
    let refuse = |field, problem, hint: &str| Err(Error::Spec { field, problem, hint: Some(hint.to_owned()) });
    if spec.experts < 2 {
        let problem = format!("with {} there is nothing for a router to choose", spec.experts);
        return refuse("--experts", problem, "take 2 or more");
    }
    if spec.top_k == 0 || spec.top_k > spec.experts {
        let problem = format!("a token cannot use {} of {} experts", spec.top_k, spec.experts);
        return refuse("--top-k", problem, "take 1 to the number of experts");
    }
    if !(spec.noise.is_finite() && spec.noise >= 0.0) {
        return refuse("--noise", format!("{} is no spread", spec.noise), "0 for none; 0.01 is a hundredth");
    }
    if !(spec.router_scale.is_finite() && spec.router_scale > 0.0) {
        return refuse("--router-scale", format!("{} is no size of logits", spec.router_scale), "a number above 0");
    }
    if spec.tokens == 0 {
        return refuse("--tokens", "without tokens there are no clusters".into(), "some hundred for each expert");
    }
    Ok(())
}

/// The type that holds most of a model, where a safetensors folder can hold it.
fn main_element(dense: &Opened) -> ElementType {
    let stored = dense.element_types().into_iter().next().map(|(element, ..)| element);
    stored.filter(|element| FLOATS.contains(element)).unwrap_or(ElementType::F32)
}
