use std::ops::Range;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// A tokenizer of whole words, with ids in order.
fn words(name: &str, texts: &[&str], rows: usize) -> ModelTokenizer {
    let vocab = texts.iter().enumerate().map(|(id, text)| ((*text).to_owned(), json!(id))).collect::<Map<_, _>>();
    let tokenizer = json!({"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": vocab}});
    ModelTokenizer { name: name.to_owned(), tokenizer, beside: Vec::new(), rows }
}

fn flags(id: u32, content: &str) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": true, "rstrip": false, "normalized": false,
           "special": true})
}

fn spec(source: Source) -> VocabularySpec {
    VocabularySpec { source, tokens: Vec::new(), pad_to_multiple_of: None, missing: Missing::AsMerge }
}

/// All rows of a model's matrix of one column in the order of the result.
fn column(vocabulary: &Vocabulary, model: usize, matrices: &[&[f32]]) -> Vec<f32> {
    let Some(from) = &vocabulary.from else { return matrices[model].to_vec() };
    let read = |model: usize, rows: Range<usize>, out: &mut [f32]| {
        out.copy_from_slice(&matrices[model][rows]);
        Ok(())
    };
    let padding = from[model].padding_row(1, &read).expect("read");
    let mut out = vec![f32::NAN; vocabulary.rows];
    from[model].read(0..vocabulary.rows, 1, &padding, &read, &mut out).expect("read");
    out
}

fn file(vocabulary: &Vocabulary, name: &str) -> Value {
    let Files::New(files) = &vocabulary.files else { panic!("files of {:?}", vocabulary.files) };
    let (_, bytes) = files.iter().find(|(file, _)| file == name).expect(name);
    serde_json::from_slice(bytes).expect("JSON")
}

#[test]
fn the_example_of_the_method_page() {
    let models = [words("one", &["<s>", "a", "b"], 3), words("two", &["<s>", "b", "c"], 3)];
    let matrices: [&[f32]; 2] = [&[1.0, 2.0, 3.0], &[5.0, 7.0, 9.0]];
    for base in [None, Some(0)] {
        let vocabulary = build(&spec(Source::Union), &models, base).expect("union");
        assert_eq!((vocabulary.rows, vocabulary.tokens), (4, 4));
        assert_eq!(file(&vocabulary, "tokenizer.json")["model"]["vocab"].to_string(), r#"{"<s>":0,"a":1,"b":2,"c":3}"#);
        let (one, two) = (column(&vocabulary, 0, &matrices), column(&vocabulary, 1, &matrices));
        assert_eq!((one.as_slice(), two.as_slice()), (&[1.0, 2.0, 3.0, 9.0][..], &[5.0, 2.0, 7.0, 9.0][..]));
        let half = one.iter().zip(&two).map(|(a, b)| 0.5 * a + 0.5 * b).collect::<Vec<_>>();
        assert_eq!(half, [3.0, 2.0, 5.0, 9.0]);
    }
}

#[test]
fn a_row_that_a_model_lacks_is_the_bases_else_the_only_one_else_the_mean_else_zero() {
    let models = [
        words("base", &["x", "base"], 2),
        words("a", &["x", "two", "one", "base"], 4),
        words("b", &["two", "x", "late"], 3),
        words("c", &["x"], 1),
    ];
    let matrices: [&[f32]; 4] = [&[1.0, 2.0], &[10.0, 11.0, 12.0, 13.0], &[20.0, 21.0, 22.0], &[30.0]];
    let vocabulary = build(&spec(Source::Union), &models, Some(0)).expect("union");
    // x, base, two, one, late
    assert_eq!(column(&vocabulary, 3, &matrices), [30.0, 2.0, 15.5, 12.0, 22.0]);
    assert_eq!(column(&vocabulary, 1, &matrices), [10.0, 13.0, 11.0, 12.0, 22.0]);
    let from = vocabulary.from.as_ref().expect("rows");
    assert_eq!(from[3].source(2), RowSource::Mean(&[(1, 1), (2, 0)]));
    assert_eq!(from[3].source(3), RowSource::Other { model: 1, row: 2 });
    assert_eq!(from[3].source(9), RowSource::Padding);
    let zeros = VocabularySpec { missing: Missing::Zero, ..spec(Source::Union) };
    let vocabulary = build(&zeros, &models, Some(0)).expect("union");
    assert_eq!(column(&vocabulary, 3, &matrices), [30.0, 0.0, 0.0, 0.0, 0.0]);
    let rules = VocabularySpec {
        tokens: vec![("late".to_owned(), TokenRule { row: TokenRow::Zero, force: true })],
        ..spec(Source::Union)
    };
    let vocabulary = build(&rules, &models, Some(0)).expect("union");
    assert_eq!(column(&vocabulary, 2, &matrices), [21.0, 2.0, 20.0, 12.0, 0.0]);
}

#[test]
fn a_residual_recipe_aligns_by_text_and_subtracts_zero() {
    // θ = updated + (instruct − base), with the tokens of the instruct model.
    let models = [
        words("updated", &["a", "b"], 2),
        words("base", &["a", "b"], 2),
        words("instruct", &["a", "b", "<|im_start|>"], 3),
    ];
    let matrices: [&[f32]; 3] = [&[0.8, 2.4], &[1.0, 2.0], &[1.5, 1.0, 7.0]];
    let zeros = VocabularySpec { missing: Missing::Zero, ..spec(Source::Model(2)) };
    let vocabulary = build(&zeros, &models, Some(0)).expect("tokens");
    assert_eq!(vocabulary.files, Files::Of(2));
    let columns = (0..3).map(|model| column(&vocabulary, model, &matrices)).collect::<Vec<_>>();
    let sums = (0..3).map(|row| columns[0][row] + (columns[2][row] - columns[1][row])).collect::<Vec<_>>();
    assert!(sums.iter().zip([1.3, 1.4, 7.0]).all(|(sum, expected)| (sum - expected).abs() < 1e-6), "{sums:?}");
}

#[test]
fn rules_choose_rows_and_force_overrides() {
    let models = [words("a", &["x", "y"], 2), words("b", &["x", "z"], 3), words("c", &["x"], 1)];
    let matrices: [&[f32]; 3] = [&[1.0, 2.0], &[5.0, 6.0, 7.0], &[9.0]];
    let rule = |row, force| TokenRule { row, force };
    let named = |token| TokenRow::Token { model: 1, token };
    let rules = |tokens: Vec<(&str, TokenRule)>| VocabularySpec {
        tokens: tokens.into_iter().map(|(text, rule)| (text.to_owned(), rule)).collect(),
        ..spec(Source::Union)
    };
    let tokens = vec![("x", rule(TokenRow::Model(1), true)), ("y", rule(named(TokenName::Text("z".into())), false))];
    let vocabulary = build(&rules(tokens), &models, Some(0)).expect("union");
    assert_eq!(column(&vocabulary, 0, &matrices), [5.0, 2.0, 6.0]);
    assert_eq!(column(&vocabulary, 2, &matrices), [5.0, 6.0, 6.0]);
    let tokens = vec![("z", rule(named(TokenName::Id(2)), true))];
    let vocabulary = build(&rules(tokens), &models, None).expect("union");
    // Row 2 has no token, but a rule may name it.
    assert_eq!(column(&vocabulary, 1, &matrices), [5.0, 2.0, 7.0]);

    let message = |tokens| build(&rules(tokens), &models, Some(0)).expect_err("wrong rule").to_string();
    assert_eq!(
        message(vec![("w", rule(TokenRow::Zero, true))]),
        r#"tokenizer.tokens: the token "w" is not in the merged vocabulary"#
    );
    assert_eq!(
        message(vec![("y", rule(TokenRow::Model(1), true))]),
        r#"tokenizer.tokens: the source of "y": b has no token "y""#
    );
    assert_eq!(
        message(vec![("y", rule(named(TokenName::Id(3)), true))]),
        r#"tokenizer.tokens: the source of "y": b has no row 3 in its embedding"#
    );
    assert_eq!(
        message(vec![("y", rule(TokenRow::Model(7), true))]),
        "model 7 is asked for its tokens, but 3 models are merged"
    );
}

#[test]
fn equal_vocabularies_need_nothing_and_padded_ones_shrink() {
    let models = [words("a", &["x", "y", "z"], 3), words("b", &["x", "y", "z"], 3)];
    for source in [Source::Union, Source::Model(1)] {
        let vocabulary = build(&spec(source), &models, Some(0)).expect("tokens");
        assert!(vocabulary.from.is_none());
        assert!(matches!(vocabulary.files, Files::Of(_)));
    }
    let padded = [words("a", &["x", "y", "z"], 8), words("b", &["x", "y", "z"], 3)];
    let vocabulary = build(&spec(Source::Model(0)), &padded, Some(0)).expect("tokens");
    assert_eq!((vocabulary.rows, vocabulary.from.is_some()), (3, true));
    assert_eq!(vocabulary.notes, ["a: 5 rows of the embedding lie beyond the last token and are left out"]);
    let pad = |multiple| VocabularySpec { pad_to_multiple_of: Some(multiple), ..spec(Source::Model(0)) };
    let vocabulary = build(&pad(4), &models, Some(0)).expect("tokens");
    assert_eq!((vocabulary.rows, vocabulary.tokens), (4, 3));
    let matrices: [&[f32]; 2] = [&[1.0, 2.0, 6.0], &[4.0, 5.0, 6.0]];
    assert_eq!(column(&vocabulary, 0, &matrices), [1.0, 2.0, 6.0, 3.0]);
    assert_eq!(column(&vocabulary, 1, &matrices), [4.0, 5.0, 6.0, 5.0]);
    for wrong in [0, usize::MAX] {
        let error = build(&pad(wrong), &models, Some(0)).expect_err("padding");
        assert!(matches!(error, VocabularyError::BadMultiple { .. }), "{error}");
    }
}

#[test]
fn tokens_without_a_row_are_dropped_and_ids_without_a_token_keep_theirs() {
    let mut holes = words("holes", &["a", "b"], 5);
    holes.tokenizer["model"]["vocab"] = json!({"a": 0, "b": 3, "unused": 5});
    let models = [holes, words("other", &["a", "b", "unused"], 3)];
    let matrices: [&[f32]; 2] = [&[1.0, 2.0, 3.0, 4.0, 5.0], &[10.0, 11.0, 12.0]];
    let vocabulary = build(&spec(Source::Union), &models, Some(0)).expect("union");
    let merged = file(&vocabulary, "tokenizer.json");
    assert_eq!(merged["model"]["vocab"].to_string(), r#"{"a":0,"b":3,"unused":4}"#);
    assert_eq!(column(&vocabulary, 0, &matrices), [1.0, 2.0, 3.0, 4.0, 12.0]);
    assert_eq!(column(&vocabulary, 1, &matrices), [10.0, 2.0, 3.0, 11.0, 12.0]);
    assert_eq!(vocabulary.notes[0], "holes: 1 tokens have ids beyond the 5 rows of the embedding and are dropped");
    assert_eq!(vocabulary.added, Added { ordinary: 1, added: 0, merges: 0 });
}

/// A byte-level BPE: characters, then the results of the merges, then added tokens with ids that follow.
fn bpe(name: &str, characters: &str, merges: Value, added: &[&str]) -> ModelTokenizer {
    let mut texts = characters.chars().map(String::from).collect::<Vec<_>>();
    for merge in merges.as_array().expect("merges") {
        texts.push(match merge {
            Value::String(line) => line.replace(' ', ""),
            pair => format!("{}{}", pair[0].as_str().expect("left"), pair[1].as_str().expect("right")),
        });
    }
    let mut vocab = Map::new();
    texts.iter().for_each(|text| {
        let id = vocab.len();
        vocab.entry(text.clone()).or_insert(json!(id));
    });
    let ids = vocab.len() as u32..;
    let listed = ids.zip(added).map(|(id, text)| flags(id, text)).collect::<Vec<_>>();
    let decoder = listed.iter().map(|entry| (entry["id"].to_string(), json!({"content": entry["content"]})));
    let config = json!({"added_tokens_decoder": decoder.collect::<Map<_, _>>()});
    let rows = vocab.len() + added.len();
    let tokenizer = json!({
        "version": "1.0", "added_tokens": listed,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}]},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    });
    let beside = vec![("tokenizer_config.json".to_owned(), config), ("added_tokens.json".to_owned(), json!({}))];
    ModelTokenizer { name: name.to_owned(), tokenizer, beside, rows }
}

#[test]
fn new_tokens_of_bpe_come_with_the_merges_that_make_them() {
    let models = [
        bpe("base", "abc", json!(["a b"]), &["<|end|>"]),
        bpe("donor", "abcd", json!([["a", "b"], ["ab", "d"], ["c", "d"], ["abd", "cd"]]), &["<|end|>", "<|im|>"]),
    ];
    let vocabulary = build(&spec(Source::Union), &models, Some(0)).expect("union");
    assert_eq!(vocabulary.added, Added { ordinary: 4, added: 1, merges: 3 });
    let merged = file(&vocabulary, "tokenizer.json");
    assert_eq!(merged["model"]["merges"], json!(["a b", "ab d", "c d", "abd cd"]));
    // `<|end|>` moves into the vocabulary: the library would number it from there.
    assert_eq!(
        merged["model"]["vocab"].to_string(),
        r#"{"a":0,"b":1,"c":2,"ab":3,"d":5,"abd":6,"cd":7,"abdcd":8,"<|end|>":4,"<|im|>":9}"#
    );
    assert_eq!(merged["added_tokens"][0], flags(4, "<|end|>"));
    assert_eq!(merged["added_tokens"][1], flags(9, "<|im|>"));
    let config = file(&vocabulary, "tokenizer_config.json");
    assert_eq!(config["added_tokens_decoder"]["9"]["lstrip"], json!(true));
    assert_eq!(config["added_tokens_decoder"].as_object().expect("object").len(), 2);
    assert_eq!(file(&vocabulary, "added_tokens.json"), json!({"<|im|>": 9}));
    assert!(vocabulary.notes.is_empty(), "{:?}", vocabulary.notes);

    let models = [&models[1], &models[0]].map(ModelTokenizer::clone);
    let vocabulary = build(&spec(Source::Union), &models, Some(0)).expect("union");
    assert_eq!(vocabulary.files, Files::Of(0), "the base has everything");
}

#[test]
fn what_a_union_leaves_behind_is_said() {
    let mut other = words("other", &["a", "b", "c"], 3);
    other.tokenizer["added_tokens"] = json!([flags(1, "b")]);
    other.tokenizer["normalizer"] = json!({"type": "NFC"});
    let vocabulary = build(&spec(Source::Union), &[words("base", &["a", "b"], 2), other], Some(0)).expect("union");
    assert_eq!(
        vocabulary.notes,
        [
            "the normalizer of other differs; that of base is used",
            "1 added tokens of other stay the ordinary tokens that they are in base"
        ]
    );
}

#[test]
fn merges_of_dropped_tokens_go_with_them() {
    let mut base = bpe("base", "abc", json!([["a", "b"], ["b", "c"]]), &[]);
    base.rows = 4;
    let vocabulary = build(&spec(Source::Model(0)), &[base], None).expect("tokens");
    let merged = file(&vocabulary, "tokenizer.json");
    assert_eq!(merged["model"]["merges"], json!([["a", "b"]]));
    assert_eq!(merged["model"]["vocab"].to_string(), r#"{"a":0,"b":1,"c":2,"ab":3}"#);
}

#[test]
fn pieces_of_unigram_keep_their_places() {
    let unigram = |name: &str, pieces: Value, added: &[(u32, &str)]| {
        let added = added.iter().map(|(id, text)| flags(*id, text)).collect::<Vec<_>>();
        let rows = pieces.as_array().expect("pieces").len() + added.len();
        let tokenizer = json!({"added_tokens": added, "decoder": {"type": "Metaspace"},
                               "model": {"type": "Unigram", "unk_id": 0, "vocab": pieces}});
        ModelTokenizer { name: name.to_owned(), tokenizer, beside: Vec::new(), rows }
    };
    let models = [
        unigram("base", json!([["<unk>", 0.0], ["▁a", -2.5]]), &[(2, "<extra>")]),
        unigram("donor", json!([["<unk>", 0.0], ["▁b", -1.25]]), &[(2, "<new>")]),
    ];
    let vocabulary = build(&spec(Source::Union), &models, Some(0)).expect("union");
    let merged = file(&vocabulary, "tokenizer.json");
    assert_eq!(merged["model"]["vocab"], json!([["<unk>", 0.0], ["▁a", -2.5], ["<extra>", -2.5], ["▁b", -1.25]]));
    assert_eq!(merged["added_tokens"], json!([flags(2, "<extra>"), flags(4, "<new>")]));
}

#[test]
fn vocabularies_that_spell_differently_have_no_union() {
    let mut spaces = bpe("spaces", "ab", json!([]), &[]);
    spaces.tokenizer["pre_tokenizer"] = Value::Null;
    spaces.tokenizer["normalizer"] = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    spaces.tokenizer["model"]["byte_fallback"] = json!(true);
    let models = [bpe("bytes", "ab", json!([]), &[]), spaces];
    let error = build(&spec(Source::Union), &models, Some(0)).expect_err("no union");
    assert_eq!(
        error.to_string(),
        "no union of these tokenizers: bytes is BPE byte-level, without byte fallback, \
         spaces is BPE with ▁ for spaces, with byte fallback"
    );
    assert!(error.hint().is_some());
    build(&spec(Source::Model(1)), &models, Some(0)).expect("one of them");
    let models = [bpe("bytes", "ab", json!([]), &[]), words("words", &["a"], 1)];
    build(&spec(Source::Union), &models, Some(0)).expect_err("no union");
}

#[test]
fn malformed_tokenizers_are_refused() {
    let refused = |tokenizer: Value| {
        let model = ModelTokenizer { name: "m".to_owned(), tokenizer, beside: Vec::new(), rows: 4 };
        build(&spec(Source::Model(0)), &[model], None).expect_err("malformed").to_string()
    };
    let level =
        |vocab: Value, added: Value| json!({"added_tokens": added, "model": {"type": "WordLevel", "vocab": vocab}});
    assert_eq!(refused(json!([1])), "m: tokenizer.json: the file is no object");
    assert_eq!(refused(json!({})), "m: tokenizer.json: model is missing or no object");
    assert_eq!(
        refused(json!({"model": {"type": "Magic", "vocab": {}}})),
        r#"m: tokenizer.json: model.type is "Magic", which lathe does not know"#
    );
    assert_eq!(
        refused(level(json!({"a": 1, "b": 1}), json!([]))),
        r#"m: tokenizer.json: the tokens "a" and "b" have the same id 1"#
    );
    assert_eq!(
        refused(level(json!({"a": 1}), json!([{"id": 1, "content": "b"}]))),
        r#"m: tokenizer.json: the tokens "a" and "b" have the same id 1"#
    );
    assert_eq!(
        refused(level(json!({"a": -1}), json!([]))),
        r#"m: tokenizer.json: model.vocab: the token "a" has no id of 32 bits"#
    );
    assert_eq!(
        refused(level(json!({}), json!([{"id": 9_999_999_999u64, "content": "b"}]))),
        "m: tokenizer.json: added_tokens: entry 0 has no id of 32 bits or no content"
    );
    assert_eq!(refused(level(json!({}), json!({}))), "m: tokenizer.json: added_tokens is no list");
    assert_eq!(
        refused(json!({"model": {"type": "Unigram", "vocab": [["a", 0.0], ["a", 1.0]]}})),
        "m: tokenizer.json: model.vocab: piece 1 has the text of another one"
    );
    assert_eq!(
        refused(json!({"model": {"type": "BPE", "vocab": []}})),
        "m: tokenizer.json: model.vocab has not the form that model.type asks for"
    );
    // An id far beyond the rows costs nothing.
    assert_eq!(
        refused(level(json!({"a": 4_294_967_295u32}), json!([]))),
        "m: tokenizer.json: no token has a row in the embedding"
    );
    let error = build(&spec(Source::Union), &[], None).expect_err("no models");
    assert!(matches!(error, VocabularyError::NoSuchModel { .. }));
}

proptest! {
    /// Rows read in any pieces are the same rows, and a token of a model never changes its row.
    #[test]
    fn a_union_moves_rows_and_changes_none(
        first in proptest::collection::btree_set("[a-h]{1,2}", 1..12),
        second in proptest::collection::btree_set("[a-h]{1,2}", 1..12),
        cut in 0usize..24,
        width in 1usize..4,
    ) {
        let texts = [&first, &second].map(|set| set.iter().map(String::as_str).collect::<Vec<_>>());
        let models = [words("a", &texts[0], texts[0].len()), words("b", &texts[1], texts[1].len())];
        let vocabulary = build(&spec(Source::Union), &models, None).expect("union");
        prop_assert_eq!(vocabulary.rows, first.union(&second).count());
        let Some(from) = &vocabulary.from else { return Ok(()) };
        let number = |model: usize, row: usize, column: usize| (1000 * model + 10 * row + column) as f32;
        let read = |model: usize, rows: Range<usize>, out: &mut [f32]| {
            for (row, out) in rows.zip(out.chunks_exact_mut(width)) {
                out.iter_mut().enumerate().for_each(|(column, out)| *out = number(model, row, column));
            }
            Ok(())
        };
        let cut = cut.min(vocabulary.rows);
        for (model, texts) in texts.iter().enumerate() {
            let mut whole = vec![0.0; vocabulary.rows * width];
            from[model].read(0..vocabulary.rows, width, &[], &read, &mut whole).expect("read");
            let mut pieces = vec![0.0; vocabulary.rows * width];
            let (head, tail) = pieces.split_at_mut(cut * width);
            from[model].read(0..cut, width, &[], &read, head).expect("read");
            from[model].read(cut..vocabulary.rows, width, &[], &read, tail).expect("read");
            prop_assert_eq!(&whole, &pieces);
            for row in 0..texts.len() {
                prop_assert!(whole.chunks_exact(width).any(|values| values[0] == number(model, row, 0)));
            }
        }
    }
}
