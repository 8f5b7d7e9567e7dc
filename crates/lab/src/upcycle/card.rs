//! What an upcycled model says of itself: a model card, and the settings with which it can be made again.

use std::fmt::Write as _;

use serde_json::json;

use super::{UpcycleResult, UpcycleSpec};
use crate::export::files::{NamedFile, pretty};
use crate::load::{fingerprint, licence};
use crate::{Context, Error, Loaded};

/// The model card.
pub(super) const CARD: &str = "README.md";
/// Settings, source and clusters.
const MANIFEST: &str = "upcycle.json";
/// What made it.
const PROGRAM: &str = concat!("lathe ", env!("CARGO_PKG_VERSION"));

/// Card and manifest.
///
/// # Errors
/// The source cannot be read.
pub(super) fn files(
    spec: &UpcycleSpec,
    result: &UpcycleResult,
    loaded: &Loaded,
    context: &Context<'_>,
) -> Result<Vec<NamedFile>, Error> {
    let licence = licence(&loaded.resolved, &loaded.opened);
    // The place where it was written says nothing of what it is.
    let mut settings = serde_json::to_value(spec)?;
    if let Some(settings) = settings.as_object_mut() {
        settings.remove("out");
    }
    let manifest = json!({
        "schema": 1,
        "program": PROGRAM,
        "settings": settings,
        "source": { "model": result.model, "architecture": loaded.opened.family.model_type, "sha256": fingerprint(&spec.model, context)?, "licence": licence },
        "layout": result.layout,
        "parameters": result.parameters,
        "tokens": result.tokens,
        "layers": result.layers,
    });
    let card = card(spec, result, licence.as_deref().unwrap_or("not stated"));
    Ok(vec![(CARD.to_owned(), card.into_bytes()), (MANIFEST.to_owned(), pretty(&manifest)?)])
}

fn card(spec: &UpcycleSpec, result: &UpcycleResult, licence: &str) -> String {
    let mut text = String::from("---\nlibrary_name: transformers\ntags:\n- moe\n- upcycled\n- lathe\n");
    if !result.model.starts_with(['/', '.']) {
        _ = writeln!(text, "base_model:\n- {}", json!(result.model));
    }
    _ = write!(text, "---\n\n# {} as {} experts\n\n", result.model, result.experts);
    _ = writeln!(
        text,
        "**Upcycled by `lathe upcycle` from a dense model, and not trained as a mixture of experts.** Every expert of a layer is a \
         copy of that layer's feed-forward part{}. The routers are made from clusters of {} tokens' states. What the experts \
         and routers of trained mixtures learn is not in here.\n",
        if spec.noise == 0.0 {
            ", so that it computes what the dense model computes".to_owned()
        } else {
            format!(", with noise of {} of each matrix's standard deviation", spec.noise)
        },
        result.tokens,
    );
    let active = format!("{}, of which a token uses {}", result.parameters.all, result.parameters.active);
    let rows = [
        ("dense model", result.model.clone()),
        ("its licence, whose terms hold for this one", licence.to_owned()),
        ("architecture", result.layout.model_type().to_owned()),
        ("experts in a layer", result.experts.to_string()),
        ("experts that a token uses, their weights summing to 1", result.top_k.to_string()),
        ("parameters", active),
        ("parameters of the dense model", result.dense_parameters.to_string()),
        ("root mean square of the router's logits", spec.router_scale.to_string()),
        ("seed", spec.seed.to_string()),
    ];
    text.push_str("| | |\n|---|---|\n");
    rows.iter().for_each(|(what, value)| _ = writeln!(text, "| {what} | {} |", value.replace('|', "\\|")));
    _ = writeln!(
        text,
        "\n`{MANIFEST}` has the settings, the hash of the source, and what each router does with the tokens."
    );
    text
}
