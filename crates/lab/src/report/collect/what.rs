//! What a model is: from its headers and files, nothing is run.

use std::path::Path;

use lathe_model::reference::SourceRecord;
use lathe_model::spec::Part;
use lathe_tokenizer::TokenizerKind;

use super::Bench;
use crate::load::{licence, sha256_of};
use crate::report::data::{ElementType, FileRecord, ParameterPart, What};
use crate::{Error, Loaded};

/// Larger files of models that lathe did not fetch are not hashed: it would take as long as the rest of the report.
const HASHED_BYTES: u64 = 4 << 30;

pub(super) fn what(loaded: &Loaded, bench: &Bench<'_>) -> Result<What, Error> {
    let opened = &loaded.opened;
    let spec = loaded.decoder.spec();
    let parts = parts(loaded);
    // A decoder without layers cannot be loaded, yet nothing here should depend on that.
    let attention = spec.layers.first().map(|layer| &layer.attention);
    Ok(What {
        family: spec.family.clone(),
        parameters: parts.iter().map(|part| part.parameters).sum(),
        parts,
        layers: spec.layers.len() as u64,
        hidden_size: spec.hidden_size as u64,
        heads: attention.map_or(0, |attention| attention.heads as u64),
        kv_heads: attention.map_or(0, |attention| attention.kv_heads as u64),
        context: spec.context_length as u64,
        vocabulary: spec.vocab_size as u64,
        file_bytes: opened.checkpoint.files().iter().map(|file| file.bytes().len() as u64).sum(),
        element_types: element_types(loaded),
        tokenizer: loaded.tokenizer.as_ref().map_or("none".to_owned(), |tokenizer| kind(tokenizer.kind())),
        chat_template: opened.chat_template()?.is_some(),
        licence: licence(&loaded.resolved, &loaded.opened),
        files: files(loaded, bench)?,
    })
}

/// Parameters by part. A tied head has none of its own.
fn parts(loaded: &Loaded) -> Vec<ParameterPart> {
    let order = [Part::Embedding, Part::Attention, Part::FeedForward, Part::Experts, Part::Norm, Part::Head];
    let mut parts = loaded.decoder.spec().parameters_by_part();
    parts.sort_by_key(|(part, _)| order.iter().position(|known| known == part));
    let name = |part: Part| match part {
        Part::Embedding => "embedding",
        Part::Attention => "attention",
        Part::FeedForward => "feed-forward",
        Part::Experts => "experts",
        Part::Norm => "norms",
        Part::Head => "head",
    };
    parts.into_iter().map(|(part, parameters)| ParameterPart { part: name(part).to_owned(), parameters }).collect()
}

/// Tensors by element type, the most bytes first.
fn element_types(loaded: &Loaded) -> Vec<ElementType> {
    let checkpoint = &loaded.opened.checkpoint;
    let types = loaded.opened.element_types().into_iter();
    let types = types.map(|(element, tensors, bytes)| {
        let of_type = checkpoint.tensors().iter().filter(|info| info.element == element);
        ElementType {
            name: element.name().to_owned(),
            tensors: tensors as u64,
            values: of_type.map(|info| info.elements() as u64).sum(),
            bytes: bytes as u64,
        }
    });
    types.collect()
}

fn kind(kind: &TokenizerKind) -> String {
    let mut words = kind.model.clone();
    if kind.byte_fallback {
        words += " with byte fallback";
    }
    if kind.adds_bos {
        words += ", starts every text with a token of its own";
    }
    words
}

fn files(loaded: &Loaded, bench: &Bench<'_>) -> Result<Vec<FileRecord>, Error> {
    if let Some(folder) = bench.context.home.folder_of(&loaded.reference) {
        let read = |source| Error::Read { file: folder.clone(), source };
        if let Some(record) = SourceRecord::read(&folder).map_err(read)? {
            let files = record.files.into_iter();
            return Ok(files
                .map(|file| FileRecord { name: file.name, bytes: file.bytes, sha256: Some(file.sha256) })
                .collect());
        }
    }
    let mut sizes = Vec::with_capacity(loaded.resolved.files.len());
    for file in &loaded.resolved.files {
        let read = |source| Error::Read { file: file.clone(), source };
        sizes.push(std::fs::metadata(file).map_err(read)?.len());
    }
    let total = sizes.iter().sum();
    let hashed = total <= HASHED_BYTES;
    bench.stage("hashing files", if hashed { total } else { 0 }, "B", |watch| {
        let files = loaded.resolved.files.iter().zip(sizes);
        files
            .map(|(file, bytes)| {
                let sha256 = if hashed { Some(sha256_of(file, watch.advance)?) } else { None };
                Ok(FileRecord { name: name_within(file, &loaded.resolved.path), bytes, sha256 })
            })
            .collect()
    })
}

/// The name of a file inside its model.
fn name_within(file: &Path, model: &Path) -> String {
    let inside = file.strip_prefix(model).ok().filter(|inside| !inside.as_os_str().is_empty());
    let name = inside.or_else(|| file.file_name().map(Path::new)).unwrap_or(file);
    name.to_string_lossy().replace('\\', "/")
}
