//! The tokenizer of a model folder as the `tokenizer.*` keys of a GGUF file.

use std::collections::HashSet;
use std::path::Path;

use lathe_formats::{GgufArray, GgufValue};
use serde::Deserialize;
use serde_json::Value;

use super::joins::{Joins, Unspellable};
use crate::chat_template::{ChatTemplate, DEFAULT, TEMPLATE_KEY};
use crate::error::Error;
use crate::folder::{Merge, described, kind_of, parse, read_if_there, steps};
use crate::gguf::key;
use crate::pre_tokenizer::{self, Normalization, WholeWords};
use crate::sentencepiece::SpacePrefix;
use crate::tokenizer::{Tokenizer, all_end_tokens};
use crate::vocabulary::{Role, SPACE_MARK, Spelling, Vocabulary};

/// The keys and values that describe a folder's tokenizer and its chat templates, in the order of writing.
///
/// `rows` is the number of rows of the embedding, and the number of tokens that the keys list, as llama.cpp demands:
/// ids without a token become unused ones (`[PAD7]`). Added tokens beyond the last row, which no model can read, are
/// left out.
///
/// GGUF files have no words for the white space that an added token takes with it (`lstrip`, `rstrip`), nor for more
/// than three ends of a turn; both are dropped. Where `▁` stands for a space, the file speaks of SentencePiece, and two
/// things are as SentencePiece does them: a user-defined token such as `▁▁` is found before anything is joined, though
/// tokenizer.json may make it by merges (Gemma; seen in text with a `▁` of its own), and a text that begins with a space
/// gets another one, which a Metaspace step leaves out.
///
/// # Errors
/// The folder's tokenizer cannot be read ([`Tokenizer::from_folder`]); it is no BPE, or one that GGUF files cannot
/// describe or cannot name; a token of the text has no row.
pub fn gguf_metadata(folder: &Path, rows: usize) -> Result<Vec<(String, GgufValue)>, Error> {
    let tokenizer = Tokenizer::from_folder(folder)?;
    let templates = ChatTemplate::from_folder(folder)?;
    let path = folder.join("tokenizer.json");
    let source = Source { path: &path, file: read(folder, &path)?, vocabulary: &tokenizer.vocabulary, rows };
    source.check_model()?;
    source.check_rows()?;
    let mut keys = Keys::default();
    match tokenizer.vocabulary.spelling {
        Spelling::ByteLevel => byte_level(&source, &mut keys)?,
        Spelling::SentencePiece => sentencepiece(&source, tokenizer.special.unk, &mut keys)?,
        Spelling::Plain => return Err(source.refuse("its tokens are neither bytes nor SentencePiece's".into())),
    }
    special(&source, &tokenizer, &mut keys)?;
    for template in templates {
        let key = match template.name() {
            DEFAULT => TEMPLATE_KEY.to_owned(),
            name => format!("{TEMPLATE_KEY}.{name}"),
        };
        keys.0.push((key, GgufValue::Str(template.source().to_owned())));
    }
    Ok(keys.0)
}

/// What is being written.
#[derive(Default)]
struct Keys(Vec<(String, GgufValue)>);

impl Keys {
    fn push(&mut self, key: &str, value: GgufValue) {
        self.0.push((key.to_owned(), value));
    }

    fn push_id(&mut self, key: &str, id: Option<u32>) {
        if let Some(id) = id {
            self.push(key, GgufValue::U32(id));
        }
    }
}

/// What is being read.
struct Source<'a> {
    path: &'a Path,
    file: File,
    vocabulary: &'a Vocabulary,
    rows: usize,
}

/// The parts of tokenizer.json that decide how text becomes tokens.
#[derive(Deserialize)]
struct File {
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    dropout: Option<f64>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    merges: Option<Vec<Merge>>,
}

/// The first look at the file is at its kind alone: the other kinds have their fields in other shapes.
fn read(folder: &Path, path: &Path) -> Result<File, Error> {
    #[derive(Deserialize)]
    struct Kind {
        model: ModelKind,
    }
    #[derive(Deserialize)]
    struct ModelKind {
        r#type: Option<String>,
    }
    let bytes = read_if_there(path)?
        .ok_or_else(|| Error::NoTokenizerFile { folder: folder.to_owned(), file: "tokenizer.json" })?;
    let kind: Kind = parse(path, &bytes)?;
    match kind.model.r#type.as_deref() {
        // Old files have no model type: they are BPE.
        None | Some("BPE") => parse(path, &bytes),
        Some(other) => Err(Error::NotForGguf {
            path: path.to_owned(),
            reason: format!("its model is '{other}', and only BPE is written"),
        }),
    }
}

impl Source<'_> {
    fn merges(&self) -> impl Iterator<Item = (&str, &str)> {
        self.file.model.merges.iter().flatten().filter_map(Merge::pair)
    }

    fn refuse(&self, reason: String) -> Error {
        Error::NotForGguf { path: self.path.to_owned(), reason }
    }

    fn check_model(&self) -> Result<(), Error> {
        let model = &self.file.model;
        let is_set = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        if is_set(&model.continuing_subword_prefix) || is_set(&model.end_of_word_suffix) {
            return Err(
                self.refuse("it marks the parts of words (continuing_subword_prefix, end_of_word_suffix)".into())
            );
        }
        if model.dropout.is_some_and(|dropout| dropout > 0.0) {
            return Err(self.refuse("it leaves out merges at random (dropout)".into()));
        }
        Ok(())
    }

    fn check_rows(&self) -> Result<(), Error> {
        let rows = self.vocabulary.tokens.iter().zip(&self.vocabulary.roles).enumerate().skip(self.rows);
        for (id, (token, role)) in rows {
            if matches!(role, Role::Text | Role::Byte(_)) {
                let (path, token) = (self.path.to_owned(), token.clone());
                return Err(Error::TooFewRows { path, token, id: id as u32, rows: self.rows });
            }
        }
        Ok(())
    }

    /// The token and type of each row.
    fn tokens(&self, unknown: Option<u32>) -> (Vec<String>, Vec<i32>) {
        let names: HashSet<&str> = self.vocabulary.tokens.iter().map(String::as_str).collect();
        let mut tokens = Vec::new();
        let mut types = Vec::new();
        for id in 0..self.rows {
            let (token, role) = self.vocabulary.entry(id as u32).unwrap_or(("", Role::Unused));
            let (token, kind) = match (role, self.vocabulary.spelling) {
                (Role::Text, _) => (token.to_owned(), 1),
                (Role::Control, Spelling::SentencePiece) if unknown == Some(id as u32) => (token.to_owned(), 2),
                (Role::Control, _) => (token.to_owned(), 3),
                // Looked for in the text as it is.
                (Role::UserDefined, Spelling::SentencePiece) => (token.replace(SPACE_MARK, " "), 4),
                (Role::UserDefined, _) => (token.to_owned(), 4),
                (Role::Unused, _) => (unused(id, &names), 5),
                (Role::Byte(_), _) => (token.to_owned(), 6),
            };
            tokens.push(token);
            types.push(kind);
        }
        (tokens, types)
    }

    fn push_tokens(&self, unknown: Option<u32>, keys: &mut Keys) {
        let (tokens, types) = self.tokens(unknown);
        keys.push(key::TOKENS, GgufValue::Array(GgufArray::Str(tokens)));
        keys.push(key::TOKEN_TYPES, GgufValue::Array(GgufArray::I32(types)));
    }
}

/// The name that converters give to an unused id, with underscores where a token has it.
fn unused(id: usize, names: &HashSet<&str>) -> String {
    let mut name = format!("[PAD{id}]");
    while names.contains(name.as_str()) {
        name.push('_');
    }
    name
}

fn byte_level(source: &Source, keys: &mut Keys) -> Result<(), Error> {
    keys.push(key::MODEL, GgufValue::Str("gpt2".into()));
    keys.push(key::PRE, GgufValue::Str(pre_tokenizer_name(source)?.into()));
    source.push_tokens(None, keys);
    let kept: HashSet<&str> = source.vocabulary.tokens.iter().take(source.rows).map(String::as_str).collect();
    let mut merges = Vec::new();
    for (left, right) in source.merges() {
        if left.contains(' ') || right.contains(' ') {
            return Err(source.refuse(format!("the merge of '{left}' and '{right}' holds a space")));
        }
        let is_kept = [left, right].iter().all(|part| kept.contains(part)) && kept.contains(&*[left, right].concat());
        if is_kept {
            merges.push(format!("{left} {right}"));
        }
    }
    keys.push(key::MERGES, GgufValue::Array(GgufArray::Str(merges)));
    Ok(())
}

/// The name whose split expressions, normalisation and treatment of whole words are those of the file.
fn pre_tokenizer_name(source: &Source) -> Result<&'static str, Error> {
    let File { normalizer, pre_tokenizer, model } = &source.file;
    let whole_words = if model.ignore_merges { WholeWords::Taken } else { WholeWords::Merged };
    let row = split_expressions(pre_tokenizer.as_ref())
        .zip(normalization(normalizer.as_ref()))
        .and_then(|(patterns, normalization)| pre_tokenizer::matching(&patterns, normalization, whole_words));
    let name = row.and_then(|row| row.names.first().copied());
    name.ok_or_else(|| {
        let part = |part: &Option<Value>| part.as_ref().map_or_else(|| "none".to_owned(), described);
        let description = format!(
            "normalizer {}; pre_tokenizer {}; ignore_merges {}",
            part(normalizer),
            part(pre_tokenizer),
            model.ignore_merges
        );
        Error::UnnamedPreTokenizer { path: source.path.to_owned(), description }
    })
}

/// The steps before the bytes are spelled, as split expressions; none where a step does something else.
fn split_expressions(pre_tokenizer: Option<&Value>) -> Option<Vec<String>> {
    let mut patterns = Vec::new();
    let mut steps = steps(pre_tokenizer?).peekable();
    while let Some(step) = steps.next() {
        let is_last = steps.peek().is_none();
        match kind_of(step) {
            "Split" if !is_last => {
                let pattern = step["pattern"]["Regex"].as_str()?;
                let is_isolated = step["behavior"] == "Isolated";
                let keeps_matches = step["behavior"] == "Removed" && step["invert"] == true;
                if !(is_isolated || keeps_matches && pre_tokenizer::covers_every_text(pattern)) {
                    return None;
                }
                patterns.push(pattern.to_owned());
            }
            "Digits" if !is_last => {
                let pattern = if step["individual_digits"] == true { r"\p{N}" } else { r"\p{N}+" };
                patterns.push(pattern.to_owned());
            }
            "ByteLevel" if is_last && step["add_prefix_space"] == false => {
                if step["use_regex"] != false {
                    patterns.push(pre_tokenizer::GPT2.to_owned());
                }
                return Some(patterns);
            }
            _ => return None,
        }
    }
    None
}

fn normalization(normalizer: Option<&Value>) -> Option<Normalization> {
    let steps: Vec<_> = normalizer.into_iter().flat_map(steps).map(kind_of).collect();
    match steps[..] {
        [] => Some(Normalization::None),
        ["NFC"] => Some(Normalization::Nfc),
        _ => None,
    }
}

fn sentencepiece(source: &Source, unknown: Option<u32>, keys: &mut Keys) -> Result<(), Error> {
    let File { normalizer, pre_tokenizer, model } = &source.file;
    let prefix = space_prefix(normalizer.as_ref(), pre_tokenizer.as_ref()).ok_or_else(|| {
        let part = |part: &Option<Value>| part.as_ref().map_or_else(|| "none".to_owned(), described);
        source.refuse(format!(
            "SentencePiece does not prepare text like this: normalizer {}; pre_tokenizer {}",
            part(normalizer),
            part(pre_tokenizer)
        ))
    })?;
    if model.ignore_merges {
        return Err(source.refuse("it takes whole words whatever the merges say (ignore_merges)".into()));
    }
    let bytes = source.vocabulary.roles.iter().filter(|role| matches!(role, Role::Byte(_))).count();
    if !(model.fuse_unk || model.byte_fallback && bytes == 256) {
        return Err(source.refuse("each unknown character is a token of its own (fuse_unk is false)".into()));
    }
    let scores = scores_by_merge(source)?;
    keys.push(key::MODEL, GgufValue::Str("llama".into()));
    keys.push(key::PRE, GgufValue::Str("default".into()));
    source.push_tokens(unknown, keys);
    keys.push(key::SCORES, GgufValue::Array(GgufArray::F32(scores)));
    keys.push(key::ADD_SPACE_PREFIX, GgufValue::Bool(prefix == SpacePrefix::Add));
    Ok(())
}

/// Whether a space goes before the text; none where something else happens to it.
fn space_prefix(normalizer: Option<&Value>, pre_tokenizer: Option<&Value>) -> Option<SpacePrefix> {
    let mark = SPACE_MARK.to_string();
    let marks = |step: &Value| {
        kind_of(step) == "Replace" && step["pattern"]["String"] == " " && step["content"] == mark.as_str()
    };
    let prepends = |step: &Value| kind_of(step) == "Prepend" && step["prepend"] == mark.as_str();
    let normalizer: Vec<_> = normalizer.into_iter().flat_map(steps).collect();
    let pre_tokenizer: Vec<_> = pre_tokenizer.into_iter().flat_map(steps).collect();
    match (&normalizer[..], &pre_tokenizer[..]) {
        ([], [step]) if kind_of(step) == "Metaspace" => {
            let is_whole = step["split"] == false && step["replacement"] == mark.as_str();
            // The step puts no space before one that is there, and "first" none behind a control token. The flag of GGUF
            // files knows no such difference, and is what the same tokenizers have there.
            let prefix = match step["prepend_scheme"].as_str()? {
                "never" => SpacePrefix::Omit,
                "always" | "first" => SpacePrefix::Add,
                _ => return None,
            };
            is_whole.then_some(prefix)
        }
        (normalizer, pre_tokenizer) => {
            // Gemma's files split at spaces, of which the normalizer leaves none.
            let splits_nothing = |step: &Value| kind_of(step) == "Split" && step["pattern"]["String"] == " ";
            if !pre_tokenizer.iter().all(|step| splits_nothing(step)) {
                return None;
            }
            match normalizer {
                [step] if marks(step) => Some(SpacePrefix::Omit),
                [first, second] if prepends(first) && marks(second) => Some(SpacePrefix::Add),
                _ => None,
            }
        }
    }
}

/// A score for each row, such that joining by scores does what the merges do: 0, -1, -2, … for the tokens in the order
/// of their merges, then the texts that no merge makes. The merges must be those of one score per token: every split of
/// a token is there, and they follow each other.
fn scores_by_merge(source: &Source) -> Result<Vec<f32>, Error> {
    let vocabulary = source.vocabulary;
    let joins = Joins::of(vocabulary);
    let mut order: Vec<u32> = Vec::new();
    let mut is_ordered = vec![false; vocabulary.tokens.len()];
    // Splits of the last token of `order` that have been seen.
    let mut splits: HashSet<usize> = HashSet::new();
    for (left, right) in source.merges() {
        // Added tokens are found in the text before it comes to merges.
        let Some(id) = joins.text(&[left, right].concat()) else { continue };
        if joins.text(left).is_none() || joins.text(right).is_none() {
            check_unused(source, &joins, left, right)?;
            continue;
        }
        if order.last() != Some(&id) {
            check_complete(source, &joins, order.last().copied(), splits.len())?;
            if std::mem::replace(&mut is_ordered[id as usize], true) {
                return Err(not_by_score(source, id, "its merges do not follow each other"));
            }
            order.push(id);
            splits.clear();
        }
        splits.insert(left.len());
    }
    check_complete(source, &joins, order.last().copied(), splits.len())?;
    for (id, _) in vocabulary.with_role(Role::Text).filter(|(id, _)| !is_ordered[*id as usize]) {
        check_complete(source, &joins, Some(id), 0)?;
        order.push(id);
    }
    let mut scores = vec![0.0; source.rows];
    for (rank, id) in order.into_iter().enumerate() {
        if let Some(score) = scores.get_mut(id as usize) {
            *score = 0.0 - rank as f32;
        }
    }
    Ok(scores)
}

/// A merge of a part that is no text token can be left out if the part is never there to be merged: added tokens are
/// found first, but for those that hold the mark of a space, which is not in the text yet.
fn check_unused(source: &Source, joins: &Joins, left: &str, right: &str) -> Result<(), Error> {
    let can_be_there = |part: &&str| match joins.role(part) {
        Some(Role::Byte(_)) => true,
        Some(Role::UserDefined | Role::Control) => part.contains(SPACE_MARK),
        Some(Role::Text | Role::Unused) | None => false,
    };
    match [left, right].iter().find(|part| can_be_there(part)) {
        None => Ok(()),
        Some(part) => Err(source.refuse(format!("a merge of '{left}' and '{right}', where '{part}' is no text"))),
    }
}

/// All splits of a token must be merges.
fn check_complete(source: &Source, joins: &Joins, id: Option<u32>, found: usize) -> Result<(), Error> {
    let Some((id, (token, _))) = id.and_then(|id| Some((id, source.vocabulary.entry(id)?))) else {
        return Ok(());
    };
    match joins.splits(token) {
        Ok(splits) if splits.len() == found => Ok(()),
        Ok(splits) => {
            let reason = format!("it has {found} of the {} merges that could make it", splits.len());
            Err(not_by_score(source, id, &reason))
        }
        Err(Unspellable { character, .. }) => {
            Err(not_by_score(source, id, &format!("no token spells its character '{character}'")))
        }
    }
}

fn not_by_score(source: &Source, id: u32, reason: &str) -> Error {
    let token = source.vocabulary.entry(id).map_or("", |(token, _)| token);
    source.refuse(format!("no scores do what its merges do: token '{token}': {reason}"))
}

/// The special tokens and what is put around a text.
fn special(source: &Source, tokenizer: &Tokenizer, keys: &mut Keys) -> Result<(), Error> {
    let has_row = |id: &u32| (*id as usize) < source.rows;
    let named = &tokenizer.special;
    let (bos, eos) = (named.bos.filter(has_row), named.eos.first().copied().filter(has_row));
    // Other ends with a well-known name need no key.
    let by_name = all_end_tokens(&tokenizer.vocabulary, []);
    let mut others = named.eos.iter().copied().skip(1).filter(|id| has_row(id) && !by_name.contains(id));
    keys.push_id(key::BOS, bos);
    keys.push_id(key::EOS, eos);
    keys.push_id(key::EOT, others.next());
    keys.push_id(key::EOM, others.next());
    keys.push_id(key::UNKNOWN, named.unk.filter(has_row));
    keys.push_id(key::PADDING, named.pad.filter(has_row));
    for (key, ids, token) in [(key::ADD_BOS, &tokenizer.before, bos), (key::ADD_EOS, &tokenizer.after, eos)] {
        let adds = match ids[..] {
            [] => false,
            [id] if Some(id) == token => true,
            _ => {
                let names: Vec<_> = ids.iter().filter_map(|&id| tokenizer.token_str(id)).collect();
                return Err(source
                    .refuse(format!("it puts '{}' around a text, and only BOS and EOS can be", names.join("', '"))));
            }
        };
        keys.push(key, GgufValue::Bool(adds));
    }
    Ok(())
}
