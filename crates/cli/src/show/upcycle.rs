//! A mixture of experts that was made.

use lathe_lab::figure::{bytes, count, percent};
use lathe_lab::{LayerRouting, UpcycleResult};

use super::lines;
use crate::table::Align;

/// `lathe upcycle`
pub(crate) fn upcycled(result: &UpcycleResult) -> String {
    let columns = [
        ("layer", Align::Right),
        ("as clustered", Align::Right),
        ("first choice", Align::Right),
        ("used", Align::Right),
    ];
    let rows = result.layers.iter().map(|layer| {
        let LayerRouting { layer, first, used, as_clustered, .. } = layer;
        vec![layer.to_string(), percent(*as_clustered), range(first, result.tokens), range(used, result.tokens)]
    });
    let files = result.files.iter().map(|file| vec![file.file.clone(), bytes(file.bytes)]).collect();
    format!(
        "{}\nOf the {} tokens that the routers are made from — as clustered: those whose most probable expert is that of their\n\
         cluster; first choice: for how many an expert is the most probable one, of the experts that have the fewest and the\n\
         most; used: as one of {}. Even shares are {} and {}.\n\n{}\n\
         {} was written to {} as {}: {} experts in each of {} layers, copies and not trained;\n\
         {} parameters, {} of them used for a token (the dense model has {})\n",
        lines(&columns, rows.collect()),
        count(result.tokens as u64),
        result.top_k,
        percent(1.0 / result.experts as f64),
        percent(result.top_k as f64 / result.experts as f64),
        lines(&[("file", Align::Left), ("size", Align::Right)], files),
        result.model,
        result.out.display(),
        result.layout.model_type(),
        result.experts,
        result.layers.len(),
        count(result.parameters.all),
        count(result.parameters.active),
        count(result.dense_parameters),
    )
}

/// The smallest and the largest share of tokens.
fn range(counts: &[usize], tokens: usize) -> String {
    let share = |count: Option<&usize>| percent(count.map_or(0.0, |count| *count as f64 / tokens as f64));
    format!("{} to {}", share(counts.iter().min()), share(counts.iter().max()))
}
