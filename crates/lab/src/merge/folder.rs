//! The files of a merged model beside its weights: configuration, tokenizer, template, licence, card.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lathe_formats::ElementType;
use lathe_merge::config::{ChatTemplate as Choice, MergeConfig};
use lathe_merge::plan::Plan;
use lathe_merge::vocabulary::{Files, Vocabulary};
use lathe_tokenizer::ChatTemplate;
use serde_json::{Map, Value};

use super::source::{LAYERS, Source, language_model};
use crate::Error;
use crate::export;
use crate::export::files::{COPIED, NamedFile, TERMS, copied, pretty, tokenizer_files};

/// What the small files of a merge are made from.
pub(super) struct Parts<'a> {
    pub(super) config: &'a MergeConfig,
    pub(super) sources: &'a [Arc<Source>],
    pub(super) plan: &'a Plan,
    pub(super) vocabulary: Option<&'a Vocabulary>,
    /// The input whose tokenizer is taken, as far as the vocabulary has none of its own.
    pub(super) tokenizer: usize,
    /// The input whose chat template is taken, if a recipe says so.
    pub(super) template: Option<usize>,
    /// How matrices are stored; none where they differ.
    pub(super) element: Option<ElementType>,
}

/// All files but weights, card and manifest, sorted by name.
///
/// # Errors
/// A file of an input cannot be read or is no JSON.
pub(super) fn files(parts: &Parts<'_>) -> Result<Vec<NamedFile>, Error> {
    let mut files: BTreeMap<String, Vec<u8>> =
        tokenizer_files_of(&parts.sources[parts.tokenizer])?.into_iter().collect();
    if let Some(Files::New(new)) = parts.vocabulary.map(|vocabulary| &vocabulary.files) {
        // They describe another vocabulary than tokenizer.json now does.
        for stale in ["vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "added_tokens.json"] {
            files.remove(stale);
        }
        files.extend(new.iter().cloned());
    }
    if let Some(template) = template(parts)? {
        set_template(&mut files, &template)?;
    }
    files.extend(terms(&parts.sources[parts.plan.config_donor])?);
    files.insert("config.json".to_owned(), config(parts)?);
    Ok(files.into_iter().collect())
}

/// Tokenizer and generation settings of an input, as files of a folder.
pub(super) fn tokenizer_files_of(source: &Source) -> Result<Vec<NamedFile>, Error> {
    match (source.checkpoint().gguf(), &source.opened) {
        (Some(header), Some(opened)) if opened.has_tokenizer() => tokenizer_files(opened, header),
        (Some(_), _) => Ok(Vec::new()),
        (None, _) => {
            let has_code = source.config.contains_key("auto_map");
            // The card of an input is not the card of the merge.
            let is_wanted =
                |name: &str| COPIED.contains(&name) && name != "README.md" || has_code && name.ends_with(".py");
            copied(source.folder(), is_wanted)
        }
    }
}

/// The licence and its like of the configuration's donor, where it is a folder of its own.
fn terms(source: &Source) -> Result<Vec<NamedFile>, Error> {
    if source.is_gguf() {
        return Ok(Vec::new());
    }
    copied(source.folder(), |name| TERMS.iter().any(|start| name.to_lowercase().starts_with(start)))
}

/// `config.json` of the merge.
fn config(parts: &Parts<'_>) -> Result<Vec<u8>, Error> {
    let donor = &parts.sources[parts.plan.config_donor];
    let mut whole = donor.config.clone();
    whole.remove("_name_or_path");
    let dtype = match parts.element {
        Some(ElementType::F16) => "float16",
        Some(ElementType::BF16) => "bfloat16",
        _ => "float32",
    };
    // The older dialect's word for it is read by old and new loaders; classes have defaults of their own for the other.
    whole.insert("torch_dtype".into(), dtype.into());
    whole.insert("tie_word_embeddings".into(), parts.plan.tied.into());
    whole.remove("dtype");
    let layers = donor.layers();
    let tokenizer_donor = language_model(&parts.sources[parts.tokenizer].config).clone();
    let fields = language_fields(&mut whole);
    for (word, value) in [("torch_dtype", Value::from(dtype)), ("tie_word_embeddings", parts.plan.tied.into())] {
        if fields.contains_key(word) {
            fields.insert(word.into(), value);
        }
    }
    fields.remove("dtype");
    if let Some(map) = &parts.plan.layer_map {
        slice_layers(fields, layers, map, parts.sources);
    }
    if let Some(vocabulary) = parts.vocabulary {
        fields.insert("vocab_size".into(), vocabulary.rows.into());
    }
    if parts.tokenizer != parts.plan.config_donor {
        for word in ["bos_token_id", "eos_token_id", "pad_token_id"] {
            match tokenizer_donor.get(word) {
                Some(id) => fields.insert(word.into(), id.clone()),
                None => fields.remove(word),
            };
        }
    }
    pretty(&Value::Object(whole))
}

fn language_fields(whole: &mut Map<String, Value>) -> &mut Map<String, Value> {
    let is_nested = whole.get("text_config").is_some_and(Value::is_object);
    if !is_nested {
        return whole;
    }
    whole.get_mut("text_config").and_then(Value::as_object_mut).expect("looked at above")
}

/// Numbers of layers, and every list that has an entry for each layer, as the slices say.
fn slice_layers(fields: &mut Map<String, Value>, layers: usize, map: &[(usize, usize)], sources: &[Arc<Source>]) {
    for word in LAYERS {
        if fields.contains_key(word) {
            fields.insert(word.into(), map.len().into());
        }
    }
    for (word, value) in fields.iter_mut() {
        let Value::Array(items) = value else { continue };
        if items.len() != layers || layers == 0 {
            continue;
        }
        let of_layer = |(input, layer): &(usize, usize)| {
            let theirs = language_model(&sources[*input].config).get(word).and_then(Value::as_array);
            theirs.and_then(|items| items.get(*layer)).or_else(|| items.get(*layer)).cloned().unwrap_or(Value::Null)
        };
        *items = map.iter().map(of_layer).collect();
    }
}

/// The chat template that the configuration or a recipe asks for; none leaves the tokenizer's own.
fn template(parts: &Parts<'_>) -> Result<Option<String>, Error> {
    if let Some(input) = parts.template {
        return template_of(&parts.sources[input]);
    }
    Ok(match &parts.config.chat_template {
        None => None,
        Some(Choice::Jinja(text)) => Some(text.clone()),
        Some(Choice::Named(name)) => Some(super::templates::named(*name).to_owned()),
        Some(Choice::Auto) => {
            let all: Vec<String> =
                parts.sources.iter().filter_map(|source| template_of(source).transpose()).collect::<Result<_, _>>()?;
            most_common(&all)
        }
    })
}

/// The most frequent text; of equally frequent ones the first.
fn most_common(texts: &[String]) -> Option<String> {
    let count = |text: &String| texts.iter().filter(|other| *other == text).count();
    let most = texts.iter().map(count).max()?;
    texts.iter().find(|text| count(text) == most).cloned()
}

fn template_of(source: &Source) -> Result<Option<String>, Error> {
    let templates = match source.checkpoint().gguf() {
        Some(header) => ChatTemplate::from_gguf(header)?,
        None => ChatTemplate::from_folder(source.folder())?,
    };
    Ok(templates.first().map(|template| template.source().to_owned()))
}

/// Writes a template where old loaders and new ones look for it.
fn set_template(files: &mut BTreeMap<String, Vec<u8>>, template: &str) -> Result<(), Error> {
    const CONFIG: &str = "tokenizer_config.json";
    if let Some(bytes) = files.get(CONFIG) {
        let mut value: Value = serde_json::from_slice(bytes)?;
        if let Value::Object(fields) = &mut value {
            fields.insert("chat_template".into(), template.into());
        }
        files.insert(CONFIG.to_owned(), pretty(&value)?);
    }
    files.insert("chat_template.jinja".to_owned(), template.as_bytes().to_vec());
    Ok(())
}

/// Writes files into a folder.
pub(super) fn put(folder: &Path, files: &[NamedFile]) -> Result<(), Error> {
    for (name, bytes) in files {
        export::put(&folder.join(name), bytes)?;
    }
    Ok(())
}
