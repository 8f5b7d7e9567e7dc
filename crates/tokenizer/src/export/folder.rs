//! A GGUF vocabulary as the files that transformers' AutoTokenizer opens.

use std::collections::HashMap;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::joins::{Joins, Unspellable};
use crate::chat_template::{ChatTemplate, DEFAULT};
use crate::error::Error;
use crate::gguf::{GgufVocabulary, find_pre_tokenizer, key};
use crate::pre_tokenizer::{Normalization, PreTokenizer, WholeWords, spelled_out};
use crate::sentencepiece::SpacePrefix;
use crate::tokenizer::{SpecialTokens, Tokenizer};
use crate::vocabulary::{Role, SPACE_MARK, Spelling, Vocabulary};

/// What a model folder needs beside its weights and `config.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderFiles {
    /// Path inside the folder and content: `tokenizer.json`, `tokenizer_config.json`, and where the model has
    /// templates `chat_template.jinja` and `additional_chat_templates/*.jinja`.
    pub files: Vec<(String, Vec<u8>)>,
    /// For `generation_config.json`, which holds other things too.
    pub generation: GenerationIds,
}

/// The ids that `generation_config.json` names, serialised under its names; what there is not is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GenerationIds {
    /// Begin of sequence.
    #[serde(rename = "bos_token_id", skip_serializing_if = "Option::is_none")]
    pub bos: Option<u32>,
    /// Every token that ends a text or a turn.
    #[serde(rename = "eos_token_id", skip_serializing_if = "Vec::is_empty")]
    pub eos: Vec<u32>,
    /// Padding of batches.
    #[serde(rename = "pad_token_id", skip_serializing_if = "Option::is_none")]
    pub pad: Option<u32>,
}

/// Writes a GGUF vocabulary as the files of a model folder.
///
/// `templates` are the model's chat templates, `longest` is the largest number of tokens that it was made for. Every
/// token keeps its id and every text its tokens, but for two things. An unused id has no entry in tokenizer.json,
/// whatever its name was. And where a space goes before a text (`add_space_prefix`), one goes before the text behind
/// a user-defined token too, as in the files that transformers converts; SentencePiece puts only one.
///
/// # Errors
/// The vocabulary is damaged or not supported ([`Tokenizer::from_gguf_vocabulary`]); its scores cannot be written as a
/// list of merges; or the name of a template is no file name.
pub fn folder_files(
    vocabulary: &GgufVocabulary,
    templates: &[ChatTemplate],
    longest: Option<usize>,
) -> Result<FolderFiles, Error> {
    let tokenizer = Tokenizer::from_gguf_vocabulary(vocabulary.clone())?;
    let special = &tokenizer.special;
    let search = match (tokenizer.vocabulary.spelling, vocabulary.space_prefix()) {
        (Spelling::SentencePiece, SpacePrefix::Omit) => Search::Marked,
        _ => Search::AsItIs,
    };
    let written = written(&vocabulary.origin, &tokenizer.vocabulary, special, search)?;
    let parts = match written.spelling {
        Spelling::SentencePiece => sentencepiece(vocabulary, &written, special)?,
        Spelling::ByteLevel | Spelling::Plain => byte_level(vocabulary, &written, find_pre_tokenizer(vocabulary)?)?,
    };
    let json = TokenizerJson {
        version: "1.0",
        truncation: (),
        padding: (),
        added_tokens: added_tokens(&written, search),
        normalizer: parts.normalizer,
        pre_tokenizer: parts.pre_tokenizer,
        post_processor: post_processor(&tokenizer, &written),
        decoder: parts.decoder,
        model: parts.model,
    };
    let mut files = vec![
        in_json("tokenizer.json", &json)?,
        in_json("tokenizer_config.json", &configuration(&tokenizer, &written, longest))?,
    ];
    for template in templates {
        files.push((template_path(template)?, template.source().as_bytes().to_vec()));
    }
    let generation = GenerationIds { bos: special.bos, eos: special.eos.clone(), pad: special.pad };
    Ok(FolderFiles { files, generation })
}

/// Where a user-defined token is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Search {
    /// In the text with `▁` for spaces, as SentencePiece does. Not possible where a space goes before the text: the
    /// library would put one before the token's name too.
    Marked,
    AsItIs,
}

/// The vocabulary as tokenizer.json spells it. Unused ids have no name.
fn written(
    origin: &str,
    vocabulary: &Vocabulary,
    special: &SpecialTokens,
    search: Search,
) -> Result<Vocabulary, Error> {
    let is_special = |id: u32| {
        let SpecialTokens { bos, eos, pad, unk } = special;
        eos.contains(&id) || [bos, pad, unk].into_iter().any(|named| *named == Some(id))
    };
    let mut written = vocabulary.clone();
    let rows = written.tokens.iter_mut().zip(&mut written.roles);
    for (id, (token, role)) in rows.enumerate() {
        match (*role, vocabulary.spelling) {
            // A file may pad with an id that it calls unused; only a token can be named as the padding.
            (Role::Unused, _) if is_special(id as u32) && !token.is_empty() => *role = Role::Control,
            (Role::Unused, _) => token.clear(),
            (Role::Byte(byte), _) => *token = format!("<0x{byte:02X}>"),
            (Role::Text, Spelling::SentencePiece) => *token = marked(token),
            (Role::UserDefined, Spelling::SentencePiece) => {
                *token = match search {
                    Search::Marked => marked(token),
                    Search::AsItIs => token.replace(SPACE_MARK, " "),
                }
            }
            (Role::Text | Role::UserDefined | Role::Control, _) => {}
        }
    }
    let mut ids: HashMap<&str, u32> = HashMap::with_capacity(written.tokens.len());
    for (id, token) in written.tokens.iter().enumerate().filter(|(_, token)| !token.is_empty()) {
        let second = id as u32;
        if let Some(first) = ids.insert(token, second) {
            return Err(Error::DuplicateToken { origin: origin.to_owned(), token: token.clone(), first, second });
        }
    }
    Ok(written)
}

fn marked(token: &str) -> String {
    token.replace(' ', SPACE_MARK.encode_utf8(&mut [0; 4]))
}

/// tokenizer.json as the `tokenizers` library reads it.
#[derive(Serialize)]
struct TokenizerJson<'a> {
    version: &'static str,
    truncation: (),
    padding: (),
    added_tokens: Vec<AddedToken<'a>>,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
    model: Model<'a>,
}

/// What differs between byte-level and SentencePiece tokenizers.
struct Parts<'a> {
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    model: Model<'a>,
}

#[derive(Serialize)]
struct Model<'a> {
    r#type: &'static str,
    dropout: (),
    unk_token: Option<&'a str>,
    continuing_subword_prefix: (),
    end_of_word_suffix: (),
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    vocab: ById<'a>,
    merges: Vec<(&'a str, &'a str)>,
}

/// Tokens by id, as an object from name to id.
struct ById<'a>(&'a [String]);

impl Serialize for ById<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (id, token) in self.0.iter().enumerate().filter(|(_, token)| !token.is_empty()) {
            map.serialize_entry(token, &id)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct AddedToken<'a> {
    id: usize,
    content: &'a str,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

fn byte_level<'a>(file: &'a GgufVocabulary, written: &'a Vocabulary, cut: &PreTokenizer) -> Result<Parts<'a>, Error> {
    let splits = cut.patterns.iter().map(|pattern| {
        json!({
            "type": "Split", "pattern": {"Regex": spelled_out(pattern)}, "behavior": "Isolated", "invert": false,
        })
    });
    let to_bytes = |use_regex| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let steps: Vec<_> = splits.chain([to_bytes(false)]).collect();
    Ok(Parts {
        normalizer: match cut.normalization {
            Normalization::None => Value::Null,
            Normalization::Nfc => json!({"type": "NFC"}),
        },
        pre_tokenizer: json!({"type": "Sequence", "pretokenizers": steps}),
        decoder: to_bytes(true),
        model: Model {
            r#type: "BPE",
            dropout: (),
            unk_token: None,
            continuing_subword_prefix: (),
            end_of_word_suffix: (),
            fuse_unk: false,
            byte_fallback: false,
            ignore_merges: cut.whole_words == WholeWords::Taken,
            vocab: ById(&written.tokens),
            merges: merges_in_order(file, written)?,
        },
    })
}

/// The file's own merges, which may need an id that the file calls unused.
fn merges_in_order<'a>(file: &'a GgufVocabulary, written: &Vocabulary) -> Result<Vec<(&'a str, &'a str)>, Error> {
    let joins = Joins::of(written);
    let pairs = file.merges.iter().flatten().filter_map(|merge| merge.split_once(' '));
    let check = |(index, (left, right)): (usize, (&'a str, &'a str))| {
        let joined = [left, right].concat();
        match [left, right, &joined].into_iter().find(|token| joins.role(token).is_none()) {
            None => Ok((left, right)),
            Some(unused) => Err(Error::Merge {
                origin: file.origin.clone(),
                index,
                merge: format!("{left} {right}"),
                reason: format!("'{unused}' is of type unused"),
            }),
        }
    };
    pairs.enumerate().map(check).collect()
}

fn sentencepiece<'a>(
    file: &GgufVocabulary,
    written: &'a Vocabulary,
    special: &SpecialTokens,
) -> Result<Parts<'a>, Error> {
    let mark = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE_MARK});
    let unmark = json!({"type": "Replace", "pattern": {"String": SPACE_MARK}, "content": " "});
    let (normalizer, strip) = match file.space_prefix() {
        SpacePrefix::Omit => (mark, None),
        SpacePrefix::Add => {
            let prepend = json!({"type": "Prepend", "prepend": SPACE_MARK});
            let strip = json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
            (json!({"type": "Sequence", "normalizers": [prepend, mark]}), Some(strip))
        }
    };
    let decoders: Vec<_> =
        [unmark, json!({"type": "ByteFallback"}), json!({"type": "Fuse"})].into_iter().chain(strip).collect();
    Ok(Parts {
        normalizer,
        pre_tokenizer: Value::Null,
        decoder: json!({"type": "Sequence", "decoders": decoders}),
        model: Model {
            r#type: "BPE",
            dropout: (),
            unk_token: special.unk.and_then(|id| name(written, id)),
            continuing_subword_prefix: (),
            end_of_word_suffix: (),
            fuse_unk: true,
            byte_fallback: written.roles.iter().any(|role| matches!(role, Role::Byte(_))),
            ignore_merges: false,
            vocab: ById(&written.tokens),
            merges: merges_by_score(file, written)?,
        },
    })
}

/// Every split of a text token in two, the highest score first.
fn merges_by_score<'a>(file: &GgufVocabulary, written: &'a Vocabulary) -> Result<Vec<(&'a str, &'a str)>, Error> {
    let refuse = |reason| Error::Key { origin: file.origin.clone(), key: key::SCORES, reason };
    let joins = Joins::of(written);
    let scores = file.scores.as_deref().unwrap_or_default();
    let mut joined = Vec::new();
    for (id, token) in written.with_role(Role::Text) {
        let splits = joins.splits(token).map_err(|Unspellable { token, character }| {
            refuse(format!(
                "no list of merges can say that '{token}' is joined from parts, as no token spells '{character}'"
            ))
        })?;
        if let (false, Some(&score)) = (splits.is_empty(), scores.get(id as usize)) {
            // Adding 0 makes -0.0 and 0.0 the same score.
            joined.push((score + 0.0, token, splits));
        }
    }
    joined.sort_by(|(a, ..), (b, ..)| b.total_cmp(a));
    let same = joined.iter().zip(joined.iter().skip(1)).find(|((a, ..), (b, ..))| a == b);
    if let Some(((score, first, _), (_, second, _))) = same {
        return Err(refuse(format!(
            "tokens '{first}' and '{second}' both have {score}, so no order of merges joins them as the scores do"
        )));
    }
    Ok(joined.into_iter().flat_map(|(_, _, splits)| splits).collect())
}

fn added_tokens(written: &Vocabulary, search: Search) -> Vec<AddedToken<'_>> {
    let rows = written.tokens.iter().zip(&written.roles).enumerate();
    let added = rows.filter(|(_, (_, role))| matches!(role, Role::Control | Role::UserDefined));
    added
        .map(|(id, (content, role))| AddedToken {
            id,
            content,
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: *role == Role::UserDefined && search == Search::Marked,
            special: *role == Role::Control,
        })
        .collect()
}

/// Puts BOS and EOS around a text, or around each of a pair.
fn post_processor(tokenizer: &Tokenizer, written: &Vocabulary) -> Value {
    let around = tokenizer.before.iter().chain(&tokenizer.after);
    let mut records = Map::new();
    for &id in around {
        if let Some(name) = name(written, id) {
            records.insert(name.to_owned(), json!({"id": name, "ids": [id], "tokens": [name]}));
        }
    }
    if records.is_empty() {
        return Value::Null;
    }
    let template = |sequence: &str, type_id: u32| -> Vec<Value> {
        let token = |&id: &u32| Some(json!({"SpecialToken": {"id": name(written, id)?, "type_id": type_id}}));
        let text = json!({"Sequence": {"id": sequence, "type_id": type_id}});
        let (before, after) = (tokenizer.before.iter().filter_map(token), tokenizer.after.iter().filter_map(token));
        before.chain([text]).chain(after).collect()
    };
    let pair = [template("A", 0), template("B", 1)].concat();
    json!({
        "type": "TemplateProcessing",
        "single": template("A", 0),
        "pair": pair,
        "special_tokens": records,
    })
}

fn configuration(tokenizer: &Tokenizer, written: &Vocabulary, longest: Option<usize>) -> Value {
    let special = &tokenizer.special;
    let mut fields = Map::new();
    // The class that takes tokenizer.json as it is; the others rebuild it from its vocabulary and what they know.
    fields.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    fields.insert("add_bos_token".into(), (!tokenizer.before.is_empty()).into());
    fields.insert("add_eos_token".into(), (!tokenizer.after.is_empty()).into());
    let named = [
        ("bos_token", special.bos),
        ("eos_token", special.eos.first().copied()),
        ("pad_token", special.pad),
        ("unk_token", special.unk),
    ];
    for (field, id) in named {
        if let Some(name) = id.and_then(|id| name(written, id)) {
            fields.insert(field.into(), name.into());
        }
    }
    if let Some(longest) = longest {
        fields.insert("model_max_length".into(), longest.into());
    }
    // Both differ from the defaults of the class: decoders have no token types, and text is not to be changed.
    fields.insert("model_input_names".into(), json!(["input_ids", "attention_mask"]));
    fields.insert("clean_up_tokenization_spaces".into(), false.into());
    Value::Object(fields)
}

/// The name comes from a file and goes into a path.
fn template_path(template: &ChatTemplate) -> Result<String, Error> {
    let name = template.name();
    if name == DEFAULT {
        return Ok("chat_template.jinja".to_owned());
    }
    let is_plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if is_plain {
        return Ok(format!("additional_chat_templates/{name}.jinja"));
    }
    Err(Error::Template {
        name: name.to_owned(),
        line: 0,
        reason: "the name cannot be that of a file: only letters, digits, '_' and '-' are written".to_owned(),
    })
}

fn name(written: &Vocabulary, id: u32) -> Option<&str> {
    written.entry(id).map(|(token, _)| token).filter(|token| !token.is_empty())
}

fn in_json<T: Serialize>(name: &str, content: &T) -> Result<(String, Vec<u8>), Error> {
    let bytes = serde_json::to_vec(content);
    let bytes = bytes.map_err(|error| Error::Json { path: name.into(), reason: error.to_string() })?;
    Ok((name.to_owned(), bytes))
}
