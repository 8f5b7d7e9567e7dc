//! The header of a GGUF target.

use lathe_formats::{ElementType, GgufValue};
use lathe_model::Opened;
use lathe_tokenizer::export::gguf_metadata;

use super::plan::Plan;
use crate::Error;

const NAME: &str = "general.name";
const FILE_TYPE: &str = "general.file_type";
const QUANTISATION: &str = "general.quantization_version";
const TOKENIZER: &str = "tokenizer.ggml.model";

/// Keys of a source's `general.*` that speak of its file and not of the model.
const OF_THE_FILE: [&str; 4] = ["general.architecture", FILE_TYPE, QUANTISATION, "general.alignment"];

/// All keys: the architecture's, those of the source that say what it is, the tokenizer's.
///
/// # Errors
/// The tokenizer cannot be read, or has no place in a GGUF header.
pub(super) fn entries(
    opened: &Opened,
    plan: &Plan,
    wanted: Option<ElementType>,
) -> Result<Vec<(String, GgufValue)>, Error> {
    let source = opened.checkpoint.gguf();
    let of_source = |prefix: &'static str| {
        source.into_iter().flat_map(|header| header.entries()).filter(move |(key, _)| key.starts_with(prefix)).cloned()
    };
    let (mut general, architecture): (Vec<_>, Vec<_>) =
        plan.target.metadata.iter().cloned().partition(|(key, _)| key.starts_with("general."));
    let told = |general: &[(String, GgufValue)], key: &str| general.iter().any(|(known, _)| known == key);
    if source.is_none() {
        general.push(("general.type".into(), GgufValue::Str("model".into())));
    }
    for (key, value) in of_source("general.") {
        if !OF_THE_FILE.contains(&key.as_str()) && !told(&general, &key) {
            general.push((key, value));
        }
    }
    if !told(&general, NAME)
        && let Some(name) = name_of_folder(opened)
    {
        general.push((NAME.into(), GgufValue::Str(name)));
    }
    // Where types stay as they are, so does their name: it may be that of a mixture.
    let stated = source.and_then(|header| header.get(FILE_TYPE)).filter(|_| wanted.is_none()).cloned();
    let number = || wanted.or_else(|| plan.main_element()).and_then(file_type).map(GgufValue::U32);
    general.extend(stated.or_else(number).map(|value| (FILE_TYPE.to_owned(), value)));
    if plan.stored.iter().any(|tensor| tensor.element.is_quantised()) {
        general.push((QUANTISATION.into(), GgufValue::U32(2)));
    }
    let mut tokenizer: Vec<_> = match source {
        Some(_) => of_source("tokenizer.").collect(),
        None if opened.has_tokenizer() => gguf_metadata(opened.folder(), opened.spec.vocab_size)?,
        None => Vec::new(),
    };
    if !told(&tokenizer, TOKENIZER) {
        tokenizer.push((TOKENIZER.into(), GgufValue::Str("none".into())));
    }
    Ok([general, architecture, tokenizer].concat())
}

/// The name of a folder is the model's, as far as anything says.
fn name_of_folder(opened: &Opened) -> Option<String> {
    let folder = opened.folder().canonicalize().ok()?;
    Some(folder.file_name()?.to_string_lossy().into_owned())
}

/// llama.cpp's number for a file whose matrices are mostly of a type.
fn file_type(element: ElementType) -> Option<u32> {
    Some(match element {
        ElementType::F32 => 0,
        ElementType::F16 => 1,
        ElementType::Q4_0 => 2,
        ElementType::Q4_1 => 3,
        ElementType::Q8_0 => 7,
        ElementType::Q5_0 => 8,
        ElementType::Q5_1 => 9,
        // The "small" mixtures are those that come nearest to one type throughout.
        ElementType::Q4_K => 14,
        ElementType::Q5_K => 16,
        ElementType::Q6_K => 18,
        ElementType::BF16 => 32,
        _ => return None,
    })
}
