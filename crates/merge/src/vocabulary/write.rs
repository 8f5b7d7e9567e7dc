//! The tokenizer of a merge: the files of its first model with tokens taken out and put in.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::read::{Kind, Tokens, bad_field, unigram_piece};
use super::{Extra, Files, ModelTokenizer, Output, VocabularyError};

/// The files, and how many merges were added to those of the first model.
pub(super) fn files(
    models: &[ModelTokenizer],
    vocabularies: &[Tokens<'_>],
    first: usize,
    output: &Output<'_>,
    extras: &[Extra<'_>],
) -> Result<(Files, usize), VocabularyError> {
    let (model, vocabulary) = (&models[first], &vocabularies[first]);
    let mut tokenizer = model.tokenizer.clone();
    if vocabulary.unused > 0 {
        drop_unused(&mut tokenizer, vocabulary);
    }
    let (ordinary, added) = extras.split_at(extras.partition_point(|extra| extra.flags.is_none()));
    let mut merges = 0;
    if !ordinary.is_empty() {
        match vocabulary.family.kind {
            Kind::Unigram => add_pieces(&mut tokenizer, models, vocabularies, first, ordinary)?,
            _ => add_entries(&mut tokenizer, output, ordinary),
        }
        if vocabulary.family.kind == Kind::Bpe {
            merges = add_merges(&mut tokenizer, models, vocabularies, output, ordinary)?;
        }
    }
    add_added(&mut tokenizer, output, added);
    settle_ids(&mut tokenizer, vocabulary.family.kind)?;
    let merged =
        ModelTokenizer { name: "the merged vocabulary".to_owned(), tokenizer, beside: Vec::new(), rows: output.len() };
    check(&merged, output)?;
    let mut files = vec![("tokenizer.json".to_owned(), bytes(&merged.tokenizer))];
    for (name, value) in &model.beside {
        let mut value = value.clone();
        match name.as_str() {
            "tokenizer_config.json" => edit_config(&mut value, output, added),
            "added_tokens.json" => edit_added_list(&mut value, output, added),
            _ => {}
        }
        files.push((name.clone(), bytes(&value)));
    }
    Ok((Files::New(files), merges))
}

fn bytes(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

/// Takes out tokens without a row, and merges that would make them or need them.
fn drop_unused(tokenizer: &mut Value, used: &Tokens<'_>) {
    let is_used = |text: &str| used.ids.contains_key(text);
    match &mut tokenizer["model"]["vocab"] {
        Value::Object(vocab) => vocab.retain(|text, _| is_used(text)),
        Value::Array(pieces) => pieces.retain(|piece| unigram_piece(piece).is_some_and(|(text, _)| is_used(text))),
        _ => {}
    }
    if let Some(Value::Array(merges)) = tokenizer["model"].get_mut("merges") {
        merges.retain(|merge| match Merge::read(merge) {
            Some(merge) => is_used(merge.left) && is_used(merge.right) && is_used(&merge.result(&used.family.prefix)),
            None => true,
        });
    }
    if let Some(Value::Array(added)) = tokenizer.get_mut("added_tokens") {
        added.retain(|entry| entry.get("content").and_then(Value::as_str).is_some_and(is_used));
    }
}

/// New entries of a vocabulary that maps texts to ids.
fn add_entries(tokenizer: &mut Value, output: &Output<'_>, ordinary: &[Extra<'_>]) {
    if let Value::Object(vocab) = &mut tokenizer["model"]["vocab"] {
        for extra in ordinary {
            vocab.insert(extra.text.to_owned(), json!(output.ids[extra.text]));
        }
    }
}

/// New pieces of a vocabulary where positions are ids: what lies between them and the old pieces, added tokens of the
/// base, becomes pieces too, as unlikely as the most unlikely one.
fn add_pieces(
    tokenizer: &mut Value,
    models: &[ModelTokenizer],
    vocabularies: &[Tokens<'_>],
    first: usize,
    ordinary: &[Extra<'_>],
) -> Result<(), VocabularyError> {
    let Value::Array(pieces) = &mut tokenizer["model"]["vocab"] else { return Ok(()) };
    let lowest = pieces.iter().filter_map(unigram_piece).map(|(_, score)| score).fold(0.0, f64::min);
    for (id, text) in vocabularies[first].texts.iter().enumerate().skip(pieces.len()) {
        let Some(text) = text else {
            let reason = format!("the pieces of a Unigram vocabulary follow each other, but id {id} has no token");
            return Err(VocabularyError::Unloadable { reason });
        };
        pieces.push(json!([text, lowest]));
    }
    // An ordinary token of a Unigram model is the piece at the place of its id.
    pieces.extend(ordinary.iter().map(|extra| {
        let place = vocabularies[extra.model].ids[extra.text] as usize;
        models[extra.model].tokenizer["model"]["vocab"][place].clone()
    }));
    Ok(())
}

/// Two tokens that BPE joins.
#[derive(Clone, Copy)]
struct Merge<'a> {
    left: &'a str,
    right: &'a str,
}

impl<'a> Merge<'a> {
    /// An entry of `merges`: a line or a pair. The line that names a version is none.
    fn read(entry: &'a Value) -> Option<Self> {
        match entry {
            Value::String(line) if line.starts_with("#version") => None,
            Value::String(line) => line.split_once(' ').map(|(left, right)| Self { left, right }),
            Value::Array(pair) => match pair.as_slice() {
                [left, right] => Some(Self { left: left.as_str()?, right: right.as_str()? }),
                _ => None,
            },
            _ => None,
        }
    }

    /// The token that it makes: what continues a word loses its mark.
    fn result(self, prefix: &str) -> String {
        self.left.to_owned() + self.right.strip_prefix(prefix).unwrap_or(self.right)
    }

    fn as_pair(self) -> Value {
        json!([self.left, self.right])
    }

    fn as_line(self) -> Value {
        json!(format!("{} {}", self.left, self.right))
    }
}

/// The merges of each model that make its new tokens, in its order, after those of the base and in their form.
fn add_merges(
    tokenizer: &mut Value,
    models: &[ModelTokenizer],
    vocabularies: &[Tokens<'_>],
    output: &Output<'_>,
    ordinary: &[Extra<'_>],
) -> Result<usize, VocabularyError> {
    let mut new = Vec::new();
    for (index, model) in models.iter().enumerate() {
        let texts =
            ordinary.iter().filter(|extra| extra.model == index).map(|extra| extra.text).collect::<HashSet<_>>();
        if texts.is_empty() {
            continue;
        }
        let prefix = &vocabularies[index].family.prefix;
        let merges = model.tokenizer["model"].get("merges").and_then(Value::as_array);
        new.extend(merges.into_iter().flatten().filter_map(Merge::read).filter(|merge| {
            output.ids.contains_key(merge.left)
                && output.ids.contains_key(merge.right)
                && texts.contains(merge.result(prefix).as_str())
        }));
    }
    let merges = &mut tokenizer["model"]["merges"];
    if merges.is_null() {
        *merges = json!([]);
    }
    let Value::Array(merges) = merges else {
        return Err(VocabularyError::Unloadable { reason: "model.merges is no list".to_owned() });
    };
    let has_space = |merge: &Merge<'_>| merge.left.contains(' ') || merge.right.contains(' ');
    if merges.iter().any(Value::is_string) && new.iter().any(has_space) {
        // A line cannot say where such tokens end.
        *merges = merges.iter().filter_map(Merge::read).map(Merge::as_pair).collect();
    }
    let in_lines = merges.iter().any(Value::is_string);
    merges.extend(new.iter().map(|merge| if in_lines { merge.as_line() } else { merge.as_pair() }));
    Ok(new.len())
}

/// New entries of `added_tokens`, with the flags that their model gives them.
fn add_added(tokenizer: &mut Value, output: &Output<'_>, added: &[Extra<'_>]) {
    if added.is_empty() {
        return;
    }
    let list = &mut tokenizer["added_tokens"];
    if !list.is_array() {
        *list = json!([]);
    }
    if let Value::Array(list) = list {
        list.extend(added.iter().map(|extra| {
            let mut entry = extra.flags.cloned().unwrap_or_default();
            entry.insert("id".to_owned(), json!(output.ids[extra.text]));
            Value::Object(entry)
        }));
    }
}

/// Makes sure that added tokens get their ids when the file is read: the library that does it looks for them in
/// `model.vocab` and numbers those that it does not find there from the size of that, whatever their entry says.
fn settle_ids(tokenizer: &mut Value, kind: Kind) -> Result<(), VocabularyError> {
    let mut entries = Vec::new();
    for entry in tokenizer.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
        if let (Some(text), Some(id)) = (entry["content"].as_str(), entry["id"].as_u64()) {
            entries.push((text.to_owned(), id));
        }
    }
    let missing = match &tokenizer["model"]["vocab"] {
        Value::Object(vocab) => entries.into_iter().filter(|(text, _)| !vocab.contains_key(text)).collect::<Vec<_>>(),
        Value::Array(pieces) => {
            let texts = pieces.iter().filter_map(unigram_piece).map(|(text, _)| text).collect::<HashSet<_>>();
            entries.into_iter().filter(|(text, _)| !texts.contains(text.as_str())).collect()
        }
        _ => return Ok(()),
    };
    let next = match &tokenizer["model"]["vocab"] {
        Value::Object(vocab) => vocab.len(),
        Value::Array(pieces) => pieces.len(),
        _ => 0,
    } as u64;
    if missing.iter().zip(next..).all(|((_, id), next)| *id == next) {
        return Ok(());
    }
    match &mut tokenizer["model"]["vocab"] {
        Value::Object(vocab) if kind != Kind::Unigram => {
            vocab.extend(missing.into_iter().map(|(text, id)| (text, json!(id))));
            Ok(())
        }
        _ => Err(VocabularyError::Unloadable {
            reason: "the added tokens of a Unigram vocabulary do not follow its pieces".to_owned(),
        }),
    }
}

/// Reads what was made as any other tokenizer is read, and compares it with what it should be.
fn check(merged: &ModelTokenizer, output: &Output<'_>) -> Result<(), VocabularyError> {
    let tokens = Tokens::read(merged)?;
    if tokens.unused > 0 || tokens.texts != output.texts {
        let differs = (0..output.len()).find(|&id| tokens.texts.get(id) != output.texts.get(id));
        let reason = format!("the token of id {} is another one", differs.unwrap_or(output.len()));
        return Err(VocabularyError::Unloadable { reason });
    }
    if tokens.family.kind != Kind::Bpe {
        return Ok(());
    }
    for entry in merged.tokenizer["model"].get("merges").and_then(Value::as_array).into_iter().flatten() {
        let is_version = entry.as_str().is_some_and(|line| line.starts_with("#version"));
        let is_known = |merge: Merge<'_>| {
            [merge.left, merge.right, &merge.result(&tokens.family.prefix)]
                .iter()
                .all(|text| tokens.ids.contains_key(text))
        };
        if !is_version && !Merge::read(entry).is_some_and(is_known) {
            return Err(bad_field(merged, "model.merges", &format!("has {entry}, whose tokens are not all there")));
        }
    }
    Ok(())
}

/// `added_tokens_decoder` says again what `added_tokens` says; transformers adds what it alone has.
fn edit_config(config: &mut Value, output: &Output<'_>, added: &[Extra<'_>]) {
    let Some(Value::Object(decoder)) = config.get_mut("added_tokens_decoder") else { return };
    let is_kept =
        |entry: &Value| entry.get("content").and_then(Value::as_str).is_some_and(|text| output.ids.contains_key(text));
    decoder.retain(|_, entry| is_kept(entry));
    for extra in added {
        let mut flags: Map<String, Value> = extra.flags.cloned().unwrap_or_default();
        flags.retain(|key, _| key != "id");
        decoder.insert(output.ids[extra.text].to_string(), Value::Object(flags));
    }
}

/// `added_tokens.json` maps the texts of added tokens to ids.
fn edit_added_list(list: &mut Value, output: &Output<'_>, added: &[Extra<'_>]) {
    let Value::Object(list) = list else { return };
    list.retain(|text, _| output.ids.contains_key(text.as_str()));
    for extra in added {
        list.insert(extra.text.to_owned(), json!(output.ids[extra.text]));
    }
}
