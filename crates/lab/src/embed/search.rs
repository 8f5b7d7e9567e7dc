//! `lathe embed search`: the texts of an embedded file that are nearest to a query, by the cosine with every one of them.
//!
//! A query gets its vector by the file's manifest: model, prompt, layers, statistics and α are those of the file. Cosines are
//! products of vectors of length 1, in f32, a block of rows at a time; of equal ones the earlier row comes first.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use lathe_kernels::matmul::{Left, Packed, Start, Threads, matmul};
use lathe_measure::embedding::{Vectors, normalised};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::embedder::Embedder;
use super::file::{Embedded, read};
use super::kinds::{Kind, Scaling, Standardise, combined, scaled, with_length};
use super::manifest::{Manifest, read_statistics};
use super::texts::EmbedTexts;
use super::{no_router, read_manifest};
use crate::load::fingerprint;
use crate::{Context, Error};

/// Rows whose products are made at once.
const BLOCK: usize = 4096;

/// What to look for, and where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchSpec {
    /// A file of vectors.
    pub embedded: PathBuf,
    /// What to look for.
    pub queries: Queries,
    /// What stands before a query, where it is not what stands before the file's texts.
    #[serde(default)]
    pub instruction: Option<String>,
    /// Texts to find for each.
    pub top: usize,
}

/// What to look for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Queries {
    /// Texts.
    Texts(EmbedTexts),
    /// A file of vectors of the same width.
    Vectors(PathBuf),
    /// Rows of the file itself, which do not find themselves.
    Rows(Vec<usize>),
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct SearchResult {
    /// The file.
    pub embedded: PathBuf,
    /// Vectors in it.
    pub vectors: usize,
    /// For each query, in order.
    pub queries: Vec<QueryResult>,
}

/// What was found for a query.
#[derive(Clone, Debug, Serialize)]
pub struct QueryResult {
    /// The text, or which row it is.
    pub query: String,
    /// The nearest ones, the nearest first.
    pub found: Vec<Found>,
}

/// A text that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Found {
    /// Its row, from 0.
    pub index: usize,
    /// Cosine with the query.
    pub cosine: f64,
    /// The text, where the file has it.
    pub text: Option<String>,
}

/// Finds texts.
///
/// # Errors
/// The file or its manifest cannot be read; the model is another one by now; widths differ.
pub fn search(spec: &SearchSpec, context: &Context<'_>) -> Result<SearchResult, Error> {
    if spec.top == 0 {
        let hint = Some("1 or more".into());
        return Err(Error::Spec { field: "--top", problem: "0 texts are found by nobody".into(), hint });
    }
    let embedded = read(&spec.embedded)?;
    let (names, queries, own_rows) = match &spec.queries {
        Queries::Texts(texts) => {
            let texts = texts.read()?;
            let vectors = of_texts(&texts, spec, context)?;
            (texts, vectors, Vec::new())
        }
        Queries::Vectors(file) => {
            let Embedded { vectors, texts } = read(file)?;
            let names = texts.unwrap_or_else(|| (0..vectors.len()).map(|row| format!("vector {row}")).collect());
            (names, vectors, Vec::new())
        }
        Queries::Rows(rows) => {
            if let Some(row) = rows.iter().find(|row| **row >= embedded.vectors.len()) {
                let hint = Some(format!("rows are 0 to {}", embedded.vectors.len().saturating_sub(1)));
                return Err(Error::Spec { field: "--row", problem: format!("there is no row {row}"), hint });
            }
            let name = |row: &usize| match &embedded.texts {
                Some(texts) => texts[*row].clone(),
                None => format!("row {row}"),
            };
            (rows.iter().map(name).collect(), embedded.vectors.selected(rows), rows.clone())
        }
    };
    if queries.width() != embedded.vectors.width() {
        let problem = format!("queries of {} numbers and vectors of {}", queries.width(), embedded.vectors.width());
        return Err(Error::Embedded { file: spec.embedded.clone(), problem });
    }
    // A row that looks for its neighbours finds itself first.
    let found = nearest(&queries, &embedded.vectors, &own_rows, spec.top);
    let queries = names.into_iter().zip(found).map(|(query, found)| {
        let found = found.into_iter().map(|(index, cosine)| {
            let text = embedded.texts.as_ref().map(|texts| texts[index].clone());
            Found { index, cosine: f64::from(cosine), text }
        });
        QueryResult { query, found: found.collect() }
    });
    Ok(SearchResult { embedded: spec.embedded.clone(), vectors: embedded.vectors.len(), queries: queries.collect() })
}

/// Vectors of queries, as the manifest says.
fn of_texts(texts: &[String], spec: &SearchSpec, context: &Context<'_>) -> Result<Vectors, Error> {
    let manifest = read_manifest(&spec.embedded)?;
    if matches!(manifest.vectors.standardise, Standardise::Batch { .. }) {
        return Err(Error::Spec {
            field: "EMBEDDED",
            problem: "its vectors were scaled by their batch, which a query is not part of".into(),
            hint: Some("embed with --standardise corpus, or look for --row or --vectors".into()),
        });
    }
    check_model(&manifest, &spec.embedded, context)?;
    let embedder = Embedder::open(&manifest.model, manifest.features.compute, context)?;
    if manifest.vectors.kind.needs_router() && !embedder.has_router() {
        return Err(no_router(manifest.vectors.kind, embedder.family()));
    }
    let mut asked = manifest.features.clone();
    if let Some(instruction) = &spec.instruction {
        asked.instruction.clone_from(instruction);
    }
    let features = embedder.features(texts, &asked, context)?;
    let statistics = match (&manifest.vectors.standardise, &manifest.statistics) {
        (Standardise::No, _) => None,
        (_, Some(file)) => {
            // Files that were moved together are still together.
            let beside = file.file_name().map(|name| spec.embedded.with_file_name(name));
            let statistics = read_statistics(beside.as_ref().filter(|beside| beside.exists()).unwrap_or(file))?;
            statistics.check(manifest.model_sha256.as_deref(), &manifest.features)?;
            Some(statistics)
        }
        (_, None) => {
            let problem = "its manifest names no statistics".into();
            return Err(Error::Embedded { file: spec.embedded.clone(), problem });
        }
    };
    let scaling = statistics.as_ref().map_or(Scaling::No, |statistics| Scaling::Moments(&statistics.moments));
    let features = scaled(features, &scaling)?;
    let alpha = match (manifest.vectors.kind, manifest.alpha) {
        (Kind::Sum, Some(chosen)) => chosen.alpha,
        (Kind::Sum, None) => {
            let problem = "its manifest has no alpha".into();
            return Err(Error::Embedded { file: spec.embedded.clone(), problem });
        }
        (Kind::Hs | Kind::Rw | Kind::Concat, _) => 0.0,
    };
    Ok(with_length(combined(&features, manifest.vectors.kind, alpha)?, manifest.vectors.length))
}

fn check_model(manifest: &Manifest, file: &Path, context: &Context<'_>) -> Result<(), Error> {
    if manifest.model_sha256.as_deref() == Some(&fingerprint(&manifest.model, context)?) {
        return Ok(());
    }
    let problem = format!("its vectors are of another {} than the one that is here", manifest.model);
    Err(Error::Embedded { file: file.to_owned(), problem })
}

/// For each query the `top` rows with the largest cosines, and these; `own` is the row that each query is, if it is one.
pub(super) fn nearest(queries: &Vectors, rows: &Vectors, own: &[usize], top: usize) -> Vec<Vec<(usize, f32)>> {
    let (queries, rows) = (normalised(queries), normalised(rows));
    let width = queries.width();
    let mut best: Vec<Vec<(usize, f32)>> = vec![Vec::new(); queries.len()];
    let left = Left { data: queries.values(), m: queries.len(), row_stride: width };
    for first in (0..rows.len()).step_by(BLOCK) {
        let count = BLOCK.min(rows.len() - first);
        let mut packed = Packed::zeros(width, count);
        let Ok(()) = packed.fill_columns(|column, columns, out| {
            out.copy_from_slice(&rows.values()[(first + column) * width..(first + column + columns) * width]);
            Ok::<(), Infallible>(())
        });
        let mut products = vec![0.0; queries.len() * count];
        matmul(left, packed.view(), Start::Zero, &mut products, count, Threads::Pool);
        best.par_iter_mut().zip(products.par_chunks_exact(count)).enumerate().for_each(|(query, (best, cosines))| {
            let other = |(row, _): &(usize, f32)| own.get(query) != Some(row);
            best.extend(cosines.iter().enumerate().map(|(row, cosine)| (first + row, *cosine)).filter(other));
            best.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            best.truncate(top);
        });
    }
    best
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use lathe_measure::embedding::cosine;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_nearest_are_those_of_all_cosines(
            width in 1usize..40, count in 1usize..60, values in prop::collection::vec(-1.0f32..1.0, 40 * 64), top in 1usize..70
        ) {
            let rows = Vectors::new(width, values[..width * count].to_vec()).unwrap();
            let queries = Vectors::new(width, values[width * count..width * (count + 3)].to_vec()).unwrap();
            let found = nearest(&queries, &rows, &[], top);
            for (query, found) in queries.rows().zip(&found) {
                prop_assert_eq!(found.len(), top.min(count));
                let mut all: Vec<f64> = rows.rows().map(|row| cosine(query, row)).collect();
                for (row, similarity) in found {
                    prop_assert!((all[*row] - f64::from(*similarity)).abs() < 1e-5);
                }
                all.sort_by(|a, b| b.total_cmp(a));
                for ((_, found), expected) in found.iter().zip(all) {
                    prop_assert!((f64::from(*found) - expected).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn rows_of_several_blocks_and_equal_ones() {
        let count = 2 * BLOCK + 3;
        let values: Vec<f32> = (0..count).flat_map(|row| [1.0, (row % 5) as f32]).collect();
        let rows = Vectors::new(2, values).unwrap();
        let found = nearest(&Vectors::new(2, vec![1.0, 0.0]).unwrap(), &rows, &[], 3);
        let found: Vec<usize> = found[0].iter().map(|(row, _)| *row).collect();
        assert_eq!(found, [0, 5, 10]);
        // A row does not find itself.
        let found = nearest(&rows.selected(&[5]), &rows, &[5], 2);
        let found: Vec<usize> = found[0].iter().map(|(row, _)| *row).collect();
        assert_eq!(found, [0, 10]);
    }
}
