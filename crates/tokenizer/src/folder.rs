//! Tokenizers from model folders: `tokenizer.json` and the small files beside it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::error::Error;
use crate::library::{self, Library};
use crate::tokenizer::{Engine, LeadingSpace, SpecialTokens, Tokenizer, TokenizerKind, all_end_tokens, model_name};
use crate::vocabulary::{Role, SPACE_MARK, Spelling, Vocabulary, parse_byte_token};

/// Reads the tokenizer of a model folder.
pub(crate) fn tokenizer(folder: &Path) -> Result<Tokenizer, Error> {
    let path = folder.join("tokenizer.json");
    let bytes = read_if_there(&path)?
        .ok_or_else(|| Error::NoTokenizerFile { folder: folder.to_owned(), file: "tokenizer.json" })?;
    let shape: Shape = parse(&path, &bytes)?;
    check_merges(&path, &shape.model)?;
    let library =
        library::parsed(&bytes).map_err(|error| Error::Json { path: path.clone(), reason: error.to_string() })?;
    let vocabulary = vocabulary(&path, &shape, &library)?;
    let (before, after) = added_around(&path, &library)?;
    let settings = Settings::read(folder)?;
    let mut special = settings.special_tokens(&vocabulary)?;
    // What the post-processor puts around a text begins and ends it, whether or not a file names it.
    if let (None, &[first]) = (special.bos, &before[..]) {
        special.bos = Some(first);
    }
    if let &[last] = &after[..]
        && !special.eos.contains(&last)
    {
        special.eos.push(last);
    }
    let before =
        settings.config.value.add_bos_token.map_or(Some(before.clone()), |adds| around(adds, before, special.bos));
    let after = settings
        .config
        .value
        .add_eos_token
        .map_or(Some(after.clone()), |adds| around(adds, after, special.eos.first().copied()));
    let (Some(before), Some(after)) = (before, after) else {
        return Err(Error::Json {
            path: settings.config.path,
            reason: "'add_bos_token' or 'add_eos_token' is true, but no such token is named".into(),
        });
    };
    let kind = TokenizerKind {
        model: model_name(&shape.model.kind, vocabulary.spelling),
        pre_tokenizer: shape.pre_tokenizer.as_ref().map(described),
        normalizer: shape.normalizer.as_ref().map(described),
        merges: shape.model.merges.as_ref().map(Vec::len),
        control_tokens: vocabulary.with_role(Role::Control).count(),
        adds_bos: special.bos.is_some_and(|bos| before.contains(&bos)),
        adds_eos: after.iter().any(|id| special.eos.contains(id)),
        byte_fallback: shape.model.byte_fallback,
    };
    let library = Library::new(library).map_err(|reason| Error::Json { path: path.clone(), reason })?;
    Ok(Tokenizer {
        leading_space: leading_space(shape.decoder.as_ref()),
        vocabulary,
        engine: Engine::Library(Box::new(library)),
        special,
        kind,
        before,
        after,
    })
}

/// The parts of tokenizer.json that the library does not give out again.
#[derive(Deserialize)]
struct Shape {
    model: ModelShape,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    decoder: Option<Value>,
}

#[derive(Deserialize)]
struct ModelShape {
    #[serde(rename = "type", default = "bpe")]
    kind: String,
    #[serde(default)]
    byte_fallback: bool,
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    vocab: Names,
    merges: Option<Vec<Merge>>,
}

/// Old files have no model type: they are BPE.
fn bpe() -> String {
    "BPE".to_owned()
}

/// An entry of `merges`: two tokens as a list, or in older files as a line.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Merge {
    Pair((String, String)),
    Line(String),
}

impl Merge {
    /// The two tokens; none for the first line of an old merges.txt, which names its version.
    pub(crate) fn pair(&self) -> Option<(&str, &str)> {
        match self {
            Self::Pair((left, right)) => Some((left, right)),
            Self::Line(line) if line.starts_with("#version") => None,
            Self::Line(line) => Some(line.split_once(' ').unwrap_or((line, ""))),
        }
    }
}

/// The tokens of a vocabulary that is an object; empty for one that is a list (Unigram).
#[derive(Default)]
struct Names(HashSet<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NamesVisitor;
        impl<'de> Visitor<'de> for NamesVisitor {
            type Value = Names;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a vocabulary: an object or a list")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                let mut names = HashSet::new();
                while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
                    names.insert(name);
                }
                Ok(Names(names))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Names, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Names::default())
            }
        }
        deserializer.deserialize_any(NamesVisitor)
    }
}

/// The library panics on some merges that its vocabulary lacks, so they are checked before it sees them.
fn check_merges(path: &Path, model: &ModelShape) -> Result<(), Error> {
    let names = &model.vocab.0;
    let prefix = model.continuing_subword_prefix.as_deref().unwrap_or_default();
    for (index, merge) in model.merges.iter().flatten().enumerate() {
        let Some((left, right)) = merge.pair() else {
            continue;
        };
        let joined = right.get(prefix.len()..).map(|tail| format!("{left}{tail}"));
        let is_known = |token: &str| names.contains(token);
        if !(is_known(left) && is_known(right) && joined.as_deref().is_some_and(is_known)) {
            return Err(Error::Merge {
                origin: path.display().to_string(),
                index,
                merge: format!("{left} {right}"),
                reason: "the two tokens and their joined text must all be in the vocabulary".into(),
            });
        }
    }
    Ok(())
}

fn vocabulary(path: &Path, shape: &Shape, library: &tokenizers::Tokenizer) -> Result<Vocabulary, Error> {
    let by_name = library.get_vocab(true);
    let highest = by_name.values().copied().max();
    let highest =
        highest.ok_or_else(|| Error::Json { path: path.to_owned(), reason: "the vocabulary is empty".into() })?;
    // Room for every id up to the highest must stay in proportion to the file.
    if highest as usize > 16 * by_name.len() + 65_536 {
        let reason = format!("the highest token id is {highest}, with only {} tokens", by_name.len());
        return Err(Error::Json { path: path.to_owned(), reason });
    }
    let mut tokens = vec![String::new(); highest as usize + 1];
    let mut roles = vec![Role::Unused; tokens.len()];
    for (token, id) in by_name {
        let byte = shape.model.byte_fallback.then(|| parse_byte_token(&token)).flatten();
        let index = id as usize;
        if !tokens[index].is_empty() {
            // Which of the two names stands must not depend on the order of a hash map.
            let (token, other) = (token.clone().min(tokens[index].clone()), token.max(tokens[index].clone()));
            let reason = format!("tokens '{token}' and '{other}' have the same id {id}");
            return Err(Error::Json { path: path.to_owned(), reason });
        }
        roles[index] = byte.map_or(Role::Text, Role::Byte);
        tokens[index] = token;
    }
    for (id, token) in library.get_added_tokens_decoder() {
        let index = id as usize;
        roles[index] = if token.special { Role::Control } else { Role::UserDefined };
    }
    Ok(Vocabulary { spelling: spelling(shape), tokens, roles })
}

/// The decoder says how tokens spell text; a tokenizer without one may say it in the pre-tokeniser.
fn spelling(shape: &Shape) -> Spelling {
    let parts = [&shape.decoder, &shape.pre_tokenizer, &shape.normalizer].into_iter().flatten();
    for part in parts {
        if steps(part).any(|step| kind_of(step) == "ByteLevel") {
            return Spelling::ByteLevel;
        }
        let marks_spaces = |step: &Value| match kind_of(step) {
            "Metaspace" | "ByteFallback" => true,
            "Replace" => step["pattern"]["String"] == SPACE_MARK.to_string().as_str(),
            _ => false,
        };
        if steps(part).any(marks_spaces) {
            return Spelling::SentencePiece;
        }
    }
    Spelling::Plain
}

fn leading_space(decoder: Option<&Value>) -> LeadingSpace {
    let drops = |step: &Value| match kind_of(step) {
        "Strip" => step["content"] == " " && step["start"].as_u64().is_some_and(|count| count > 0),
        "Metaspace" => step["prepend_scheme"] != "never" && step["add_prefix_space"] != false,
        _ => false,
    };
    if decoder.is_some_and(|decoder| steps(decoder).any(drops)) { LeadingSpace::Drop } else { LeadingSpace::Keep }
}

/// The steps of a sequence of normalizers, pre-tokenisers or decoders; of a single one, itself.
pub(crate) fn steps(part: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["normalizers", "pretokenizers", "decoders"].map(|key| part[key].as_array());
    let list = lists.into_iter().flatten().next();
    list.into_iter().flatten().chain(list.is_none().then_some(part))
}

pub(crate) fn kind_of(step: &Value) -> &str {
    step["type"].as_str().unwrap_or_default()
}

pub(crate) fn described(part: &Value) -> String {
    let steps: Vec<_> = steps(part)
        .map(|step| match step["pattern"]["Regex"].as_str() {
            Some(regex) => format!("{}({regex})", kind_of(step)),
            None => kind_of(step).to_owned(),
        })
        .collect();
    steps.join(", ")
}

/// The ids that the file's post-processor puts before and after a text, found by looking at one.
fn added_around(path: &Path, library: &tokenizers::Tokenizer) -> Result<(Vec<u32>, Vec<u32>), Error> {
    const PROBE: &str = "a";
    let encode = |special| {
        let encoding = library.encode_fast(PROBE, special);
        encoding.map(|encoding| encoding.get_ids().to_vec())
    };
    let failed = |error: tokenizers::Error| Error::Json { path: path.to_owned(), reason: error.to_string() };
    let (bare, full) = (encode(false).map_err(failed)?, encode(true).map_err(failed)?);
    let at = if bare.is_empty() { None } else { full.windows(bare.len()).position(|window| window == bare) };
    // Where the probe has no token, everything counts as put before.
    let (start, end) = at.map_or((full.len(), full.len()), |at| (at, at + bare.len()));
    Ok((full[..start].to_vec(), full[end..].to_vec()))
}

/// `ids` with or without `token`, as the configuration wants it; none where it wants a token that has no name.
fn around(adds: bool, ids: Vec<u32>, token: Option<u32>) -> Option<Vec<u32>> {
    match (adds, token) {
        (true, None) => (!ids.is_empty()).then_some(ids),
        (true, Some(token)) if ids.contains(&token) => Some(ids),
        (true, Some(token)) => Some([&[token], &ids[..]].concat()),
        (false, token) => Some(ids.into_iter().filter(|id| Some(*id) != token).collect()),
    }
}

/// The small files beside tokenizer.json, each empty where it does not exist.
struct Settings {
    config: Sourced<TokenizerConfig>,
    map: Sourced<TokenizerConfig>,
    generation: Sourced<ModelConfig>,
    model: Sourced<ModelConfig>,
}

/// What was read and from where, for error messages.
struct Sourced<T> {
    path: PathBuf,
    value: T,
}

/// `tokenizer_config.json` or `special_tokens_map.json`.
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    bos_token: Option<TokenName>,
    eos_token: Option<TokenName>,
    pad_token: Option<TokenName>,
    unk_token: Option<TokenName>,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TokenName {
    Name(String),
    Record { content: String },
}

/// The ids in `generation_config.json` or `config.json`.
#[derive(Default, Deserialize)]
struct ModelConfig {
    eos_token_id: Option<Ids>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u64),
    Many(Vec<u64>),
}

impl Settings {
    fn read(folder: &Path) -> Result<Self, Error> {
        Ok(Self {
            config: sourced(folder, "tokenizer_config.json")?,
            map: sourced(folder, "special_tokens_map.json")?,
            generation: sourced(folder, "generation_config.json")?,
            model: sourced(folder, "config.json")?,
        })
    }

    /// BOS and EOS must be in the vocabulary; a padding or unknown token that is not there does not exist.
    fn special_tokens(&self, vocabulary: &Vocabulary) -> Result<SpecialTokens, Error> {
        let id_of = |name: &str| vocabulary.tokens.iter().position(|token| token == name).map(|id| id as u32);
        let optional = |field: fn(&TokenizerConfig) -> &Option<TokenName>| {
            let named = [&self.config, &self.map].into_iter().find_map(|file| field(&file.value).as_ref());
            named.map(TokenName::as_str).and_then(id_of)
        };
        let required = |label: &str, field: fn(&TokenizerConfig) -> &Option<TokenName>| {
            let named = [&self.config, &self.map]
                .into_iter()
                .find_map(|file| Some((&file.path, field(&file.value).as_ref()?.as_str())));
            let Some((path, name)) = named else {
                return Ok(None);
            };
            id_of(name).map(Some).ok_or_else(|| Error::Json {
                path: path.clone(),
                reason: format!("'{label}' is '{name}', which is not in the vocabulary"),
            })
        };
        let mut ends: Vec<u32> = required("eos_token", |config| &config.eos_token)?.into_iter().collect();
        // generation_config.json was made from config.json and is the one that people mend.
        let ids = [&self.generation, &self.model]
            .into_iter()
            .find_map(|file| Some((&file.path, file.value.eos_token_id.as_ref()?.as_slice())));
        for (path, &id) in ids.iter().flat_map(|(path, ids)| ids.iter().map(move |id| (path, id))) {
            let in_range = u32::try_from(id).ok().filter(|&id| (id as usize) < vocabulary.tokens.len());
            ends.push(in_range.ok_or_else(|| Error::IdOutOfRange {
                origin: path.display().to_string(),
                field: "eos_token_id".into(),
                id,
                tokens: vocabulary.tokens.len(),
            })?);
        }
        Ok(SpecialTokens {
            bos: required("bos_token", |config| &config.bos_token)?,
            eos: all_end_tokens(vocabulary, ends),
            pad: optional(|config| &config.pad_token),
            unk: optional(|config| &config.unk_token),
        })
    }
}

impl TokenName {
    fn as_str(&self) -> &str {
        match self {
            Self::Name(name) | Self::Record { content: name } => name,
        }
    }
}

impl Ids {
    fn as_slice(&self) -> &[u64] {
        match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }
}

fn sourced<T: DeserializeOwned + Default>(folder: &Path, name: &str) -> Result<Sourced<T>, Error> {
    let path = folder.join(name);
    let value = match read_if_there(&path)? {
        Some(bytes) => parse(&path, &bytes)?,
        None => T::default(),
    };
    Ok(Sourced { path, value })
}

/// The content of a file; none where there is no such file.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

/// JSON of a known shape; the error names file and line.
pub(crate) fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::Json { path: path.to_owned(), reason: error.to_string() })
}
