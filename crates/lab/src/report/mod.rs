//! What `lathe report` says of one or more models: the data, and its three faces.
//!
//! [`collect()`] runs models and fills a [`Report`], which is plain data. From it follow, as pure functions, the page
//! ([`page()`]), the JSON file ([`to_json`]), and the terminal summary ([`summary()`]). No face computes a
//! measurement: the page and the summary only choose, format and compare what the data hold, and the plain words of
//! [`verdict()`] are derived from the same numbers.

mod collect;
mod data;
pub(crate) mod page;
mod summary;
mod verdict;

#[cfg(test)]
mod sample;
#[cfg(test)]
pub(crate) mod tests;

pub use collect::{Environment, ReportSpec, collect, write_report};
pub use data::{
    Attention, Comparison, ElementType, Extent, Feasibility, FertilityRow, FileRecord, FrequencyBin, GeneratedToken,
    Generation, HeadMatrix, LayerSpectrum, Machine, ModelPair, ModelReport, NotMeasured, Overall, Panel, ParameterPart,
    Quantity, Report, SCHEMA, Settings, Spectrum, Speed, TextKind, TextLoss, VocabularyOverlap, What,
};
pub use page::page;
pub use summary::summary;
pub use verdict::verdict;

/// The report as JSON text, indented, keys in the order of the data model, ending in a newline.
///
/// # Errors
/// Only if the data cannot be written as JSON at all; numbers that are not finite are written as `null`.
pub fn to_json(report: &Report) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string_pretty(report)?;
    text.push('\n');
    Ok(text)
}

/// Short names of the models, for labels: the last part of each reference without its extension, numbered where two
/// are equal.
#[must_use]
pub fn short_names(models: &[ModelReport]) -> Vec<String> {
    numbered_names(models.iter().map(|model| model.reference.as_str()))
}

/// Short names of references.
pub(crate) fn numbered_names<'a>(references: impl Iterator<Item = &'a str>) -> Vec<String> {
    let short: Vec<String> = references.map(short_name).collect();
    let mut names = Vec::with_capacity(short.len());
    for (index, name) in short.iter().enumerate() {
        let same_before = short[..index].iter().filter(|other| *other == name).count();
        let same = short.iter().filter(|other| *other == name).count();
        names.push(if same > 1 { format!("{name} ({})", same_before + 1) } else { name.clone() });
    }
    names
}

fn short_name(reference: &str) -> String {
    let trimmed = reference.trim_end_matches(['/', '\\']);
    let last = trimmed.rsplit(['/', '\\']).next().unwrap_or(trimmed);
    let last = last.strip_suffix(".gguf").unwrap_or(last);
    let name = last.rsplit_once("pypi:").map_or(last, |(_, package)| package);
    if name.is_empty() { "unnamed model".to_owned() } else { name.to_owned() }
}
