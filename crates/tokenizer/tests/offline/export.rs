//! Small vocabularies as model folders and back, and what is refused on the way.

use std::path::Path;

use crate::tiny;
use lathe_formats::{GgufArray, GgufValue};
use lathe_tokenizer::export::{FolderFiles, folder_files, gguf_metadata};
use lathe_tokenizer::{BosEos, ChatTemplate, Error, GgufVocabulary, Markup, TokenBytes, Tokenizer};
use proptest::prelude::*;
use serde_json::{Value, json};

fn written(vocabulary: &GgufVocabulary) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    save(&folder_files(vocabulary, &[], None).unwrap(), folder.path());
    folder
}

fn save(files: &FolderFiles, folder: &Path) {
    for (name, bytes) in &files.files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    std::fs::write(folder.join("generation_config.json"), serde_json::to_vec(&files.generation).unwrap()).unwrap();
}

/// The keys of a folder as a vocabulary, and the other keys.
fn returned(folder: &Path, rows: usize) -> Result<GgufVocabulary, Error> {
    let mut vocabulary = GgufVocabulary { origin: "written.gguf".into(), ..GgufVocabulary::default() };
    for (key, value) in gguf_metadata(folder, rows)? {
        let id = |value| match value {
            GgufValue::U32(id) => Some(u64::from(id)),
            other => panic!("{other:?}"),
        };
        let strings = |value| match value {
            GgufValue::Array(GgufArray::Str(strings)) => strings,
            other => panic!("{other:?}"),
        };
        match (key.strip_prefix("tokenizer.ggml.").unwrap_or(&key), value) {
            ("model", GgufValue::Str(text)) => vocabulary.model = text,
            ("pre", GgufValue::Str(text)) => vocabulary.pre = Some(text),
            ("tokens", value) => vocabulary.tokens = strings(value),
            ("merges", value) => vocabulary.merges = Some(strings(value)),
            ("scores", GgufValue::Array(GgufArray::F32(scores))) => vocabulary.scores = Some(scores),
            ("token_type", GgufValue::Array(GgufArray::I32(types))) => {
                vocabulary.token_types = Some(types.into_iter().map(i64::from).collect());
            }
            ("bos_token_id", value) => vocabulary.bos = id(value),
            ("eos_token_id", value) => vocabulary.eos = id(value),
            ("eot_token_id", value) => vocabulary.eot = id(value),
            ("eom_token_id", value) => vocabulary.eom = id(value),
            ("unknown_token_id", value) => vocabulary.unknown = id(value),
            ("padding_token_id", value) => vocabulary.padding = id(value),
            ("add_bos_token", GgufValue::Bool(adds)) => vocabulary.add_bos = Some(adds),
            ("add_eos_token", GgufValue::Bool(adds)) => vocabulary.add_eos = Some(adds),
            ("add_space_prefix", GgufValue::Bool(adds)) => vocabulary.add_space_prefix = Some(adds),
            (other, value) => panic!("{other}: {value:?}"),
        }
    }
    Ok(vocabulary)
}

/// The same ids for a text and for a prompt.
fn check_same(expected: &Tokenizer, found: &Tokenizer, text: &str) {
    for (bos_eos, markup) in [(BosEos::Add, Markup::Text), (BosEos::Omit, Markup::Parse)] {
        let tokens = expected.encode_with_offsets(text, bos_eos, markup).unwrap();
        assert_eq!(found.encode_with_offsets(text, bos_eos, markup).unwrap(), tokens, "{text:?} {markup:?}");
    }
}

fn tokenizer_json(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("tokenizer.json")).unwrap()).unwrap()
}

/// Changes tokenizer.json.
fn edited(folder: &Path, change: impl FnOnce(&mut Value)) {
    let mut json = tokenizer_json(folder);
    change(&mut json);
    std::fs::write(folder.join("tokenizer.json"), json.to_string()).unwrap();
}

#[test]
fn every_known_pre_tokenizer_keeps_its_meaning() {
    let unknown = Tokenizer::from_gguf_vocabulary(tiny::byte_level("no-such-pre")).unwrap_err().hint().unwrap();
    let texts = ["hello wor  12 1234\n\n\nx\r\n", "e\u{301} é naïve don't DON'T", "<tool>数学 は 한국어 a<|im_end|>b"];
    for name in unknown.strip_prefix("known: ").unwrap().split(", ") {
        let mut vocabulary = tiny::byte_level(name);
        vocabulary.add_bos = Some(true);
        let original = Tokenizer::from_gguf_vocabulary(vocabulary.clone()).unwrap();
        let folder = written(&vocabulary);
        let from_folder = Tokenizer::from_folder(folder.path()).unwrap();
        let back = returned(folder.path(), vocabulary.tokens.len()).unwrap();
        assert_eq!((&back.merges, back.bos, back.eos), (&vocabulary.merges, vocabulary.bos, vocabulary.eos));
        let from_back = Tokenizer::from_gguf_vocabulary(back).unwrap();
        for text in texts {
            check_same(&original, &from_folder, text);
            check_same(&original, &from_back, text);
        }
        assert_eq!(from_folder.special(), original.special());
        assert_eq!(from_folder.token_bytes(267), TokenBytes::Unused);
    }
}

#[test]
fn pre_tokenizers_as_other_programs_spell_them() {
    let folder = written(&tiny::byte_level("gpt-2"));
    let name = |pre: Value, normalizer: Value| {
        edited(folder.path(), |json| {
            json["pre_tokenizer"] = pre;
            json["normalizer"] = normalizer;
        });
        returned(folder.path(), 270).map(|vocabulary| vocabulary.pre.unwrap())
    };
    let bytes = |use_regex| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let sequence = |steps: &[Value]| json!({"type": "Sequence", "pretokenizers": steps});
    assert_eq!(name(bytes(true), Value::Null).unwrap(), "gpt-2");
    assert_eq!(name(bytes(true), json!({"type": "NFC"})).unwrap(), "olmo");
    let digits = json!({"type": "Digits", "individual_digits": true});
    let nothing = json!({"type": "Sequence", "normalizers": []});
    assert_eq!(name(sequence(&[digits.clone(), bytes(true)]), nothing).unwrap(), "smollm");
    // Line ends and ranges of ideographs as characters.
    let split =
        |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    let coder = [split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[一-龥ࠀ-一가-\u{d7ff}]+"), digits];
    assert_eq!(name(sequence(&[&coder[..], &[bytes(false)]].concat()), Value::Null).unwrap(), "deepseek-coder");
    // A split that keeps the matches and drops what is between, of which there is nothing.
    let gpt2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
    let mut removed = split(gpt2);
    (removed["behavior"], removed["invert"]) = ("Removed".into(), true.into());
    assert_eq!(name(sequence(&[removed.clone(), bytes(false)]), Value::Null).unwrap(), "gpt-2");

    removed["pattern"]["Regex"] = r"\p{L}+".into();
    let prefix = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    for unknown in [sequence(&[removed, bytes(false)]), sequence(&[split("x"), bytes(true)]), bytes(false), prefix] {
        let error = name(unknown, Value::Null).unwrap_err();
        assert!(matches!(error, Error::UnnamedPreTokenizer { .. }), "{error}");
        assert!(error.hint().unwrap().starts_with("known: "));
    }
    let error = name(bytes(true), json!({"type": "NFKC"})).unwrap_err().to_string();
    assert!(error.contains("normalizer NFKC; pre_tokenizer ByteLevel; ignore_merges false"), "{error}");
}

#[test]
fn ids_without_a_token_are_unused_ones() {
    let folder = written(&tiny::byte_level("gpt-2"));
    assert!(tokenizer_json(folder.path())["model"]["vocab"].get("[PAD0]").is_none());
    let back = returned(folder.path(), 273).unwrap();
    assert_eq!(
        back.tokens[266..],
        ["<tool>", "[PAD267]", "<|im_start|>", "<|im_end|>", "[PAD270]", "[PAD271]", "[PAD272]"]
    );
    assert_eq!(back.token_types.unwrap()[265..], [1, 4, 5, 3, 3, 5, 5, 5]);
    // Added tokens without a row are left out, text must have one.
    let fewer = returned(folder.path(), 268).unwrap();
    assert_eq!((fewer.tokens.len(), fewer.bos, fewer.eos), (268, None, None));
    let error = returned(folder.path(), 265).unwrap_err();
    assert!(error.to_string().ends_with("token 'hello' has id 265, but the embedding has 265 rows"), "{error}");
    // A token that is called like the name for an unused id.
    edited(folder.path(), |json| {
        let text = json["model"]["vocab"].as_object_mut().unwrap();
        let id = text.remove("<tool>").unwrap();
        text.insert("[PAD267]".into(), id);
        json["added_tokens"].as_array_mut().unwrap().retain(|token| token["content"] != "<tool>");
    });
    assert_eq!(returned(folder.path(), 270).unwrap().tokens[266..268], ["[PAD267]", "[PAD267]_"]);
}

#[test]
fn a_merge_of_an_unused_token_is_refused() {
    let mut vocabulary = tiny::byte_level("gpt-2");
    vocabulary.token_types.as_mut().unwrap()[258] = 5;
    let error = folder_files(&vocabulary, &[], None).unwrap_err();
    assert_eq!(error.to_string(), "tiny.gguf: merge 2 ('he ll'): 'hell' is of type unused");
}

#[test]
fn a_padding_token_that_is_called_unused_stays() {
    let vocabulary = GgufVocabulary { padding: Some(267), ..tiny::byte_level("gpt-2") };
    let folder = written(&vocabulary);
    assert_eq!(Tokenizer::from_folder(folder.path()).unwrap().special().pad, Some(267));
    assert_eq!(returned(folder.path(), 270).unwrap().padding, Some(267));
}

#[test]
fn every_split_is_a_merge_in_the_order_of_scores() {
    let folder = written(&tiny::sentencepiece());
    let json = tokenizer_json(folder.path());
    // ab -1, bc -2, ▁a -3, abc -4, ▁ab -5, ▁abc -6, cé -7, aa -8, ca -9, cab -10; longest left part first.
    let merges = [
        ["a", "b"],
        ["b", "c"],
        ["▁", "a"],
        ["ab", "c"],
        ["a", "bc"],
        ["▁a", "b"],
        ["▁", "ab"],
        ["▁ab", "c"],
        ["▁a", "bc"],
        ["▁", "abc"],
        ["c", "é"],
        ["a", "a"],
        ["c", "a"],
        ["ca", "b"],
        ["c", "ab"],
    ];
    assert_eq!(json["model"]["merges"], json!(merges));
    assert_eq!((&json["model"]["byte_fallback"], &json["model"]["unk_token"]), (&json!(true), &json!("<unk>")));
    let back = returned(folder.path(), 277).unwrap();
    let order = ["ab", "bc", "▁a", "abc", "▁ab", "▁abc", "cé", "aa", "ca", "cab", "▁", "a", "b", "c", "é"];
    for (rank, token) in order.into_iter().enumerate() {
        assert_eq!(back.scores.as_ref().unwrap()[tiny::piece(token) as usize], -(rank as f32), "{token}");
    }
    assert_eq!((back.tokens, back.token_types), (tiny::sentencepiece().tokens, tiny::sentencepiece().token_types));
    assert_eq!((back.add_space_prefix, back.add_bos, back.add_eos), (Some(false), Some(true), Some(false)));
    assert_eq!((back.bos, back.eos, back.unknown), (Some(1), Some(2), Some(0)));
}

#[test]
fn user_defined_spaces_are_found_before_and_after() {
    let mut vocabulary = tiny::sentencepiece();
    vocabulary.tokens[5] = "  ".into();
    let original = Tokenizer::from_gguf_vocabulary(vocabulary.clone()).unwrap();
    let folder = written(&vocabulary);
    let back = returned(folder.path(), 277).unwrap();
    assert_eq!(back.tokens[5], "  ");
    for text in ["a  b", "a   ab", "    ", "a▁ b▁▁c", " \n  \n"] {
        check_same(&original, &Tokenizer::from_folder(folder.path()).unwrap(), text);
        check_same(&original, &Tokenizer::from_gguf_vocabulary(back.clone()).unwrap(), text);
    }
    assert_eq!(original.encode("a   ab", BosEos::Omit, Markup::Text).unwrap(), [263, 5, tiny::piece("▁ab")]);
}

#[test]
fn scores_that_no_merges_can_follow_are_refused() {
    let refusal = |change: fn(&mut GgufVocabulary)| {
        let mut vocabulary = tiny::sentencepiece();
        change(&mut vocabulary);
        folder_files(&vocabulary, &[], None).unwrap_err().to_string()
    };
    let same = refusal(|vocabulary| vocabulary.scores.as_mut().unwrap()[tiny::piece("bc") as usize] = -1.0);
    assert_eq!(
        same,
        "tiny.gguf: key 'tokenizer.ggml.scores': tokens 'ab' and 'bc' both have -1, so no order of merges joins them as the \
         scores do"
    );
    let unspellable = refusal(|vocabulary| vocabulary.tokens[tiny::piece("é") as usize] = "x".into());
    assert!(unspellable.contains("no token spells 'é'"), "{unspellable}");
    let twice = refusal(|vocabulary| vocabulary.tokens[tiny::piece("aa") as usize] = " a".into());
    assert!(twice.contains("token '▁a' appears twice"), "{twice}");
}

#[test]
fn merges_that_no_scores_can_follow_are_refused() {
    let refusal = |change: fn(&mut Vec<Value>)| {
        let folder = written(&tiny::sentencepiece());
        edited(folder.path(), |json| change(json["model"]["merges"].as_array_mut().unwrap()));
        returned(folder.path(), 277).unwrap_err().to_string()
    };
    // BPE would not make abc of a and bc, SentencePiece would.
    let missing = refusal(|merges| merges.retain(|merge| *merge != json!(["a", "bc"])));
    assert!(missing.ends_with("token 'abc': it has 1 of the 2 merges that could make it"), "{missing}");
    let unmade = refusal(|merges| merges.retain(|merge| *merge != json!(["c", "é"])));
    assert!(unmade.ends_with("token 'cé': it has 0 of the 1 merges that could make it"), "{unmade}");
    let apart = refusal(|merges| merges.swap(4, 5));
    assert!(apart.contains("token 'abc'"), "{apart}");
}

#[test]
fn what_gguf_files_have_no_words_for_is_refused() {
    let refusal = |change: fn(&mut Value)| {
        let folder = written(&tiny::sentencepiece());
        edited(folder.path(), change);
        let error = returned(folder.path(), 277).unwrap_err();
        assert!(matches!(error, Error::NotForGguf { .. }), "{error}");
        error.to_string()
    };
    let unigram = refusal(|json| {
        json["model"] = json!({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["<s>", 0.0], ["</s>", 0.0], ["a", -1.0]]});
        json["added_tokens"] = json!([]);
        json["post_processor"] = Value::Null;
    });
    assert!(unigram.ends_with("its model is 'Unigram', and only BPE is written"), "{unigram}");
    let lowered = refusal(|json| {
        json["normalizer"] = json!({"type": "Sequence", "normalizers": [{"type": "Lowercase"}, json["normalizer"]]});
    });
    assert!(lowered.contains("normalizer Lowercase, Replace; pre_tokenizer none"), "{lowered}");
    let words = refusal(|json| {
        json["pre_tokenizer"] =
            json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true});
        json["normalizer"] = Value::Null;
    });
    assert!(words.contains("pre_tokenizer Metaspace"), "{words}");
    assert!(refusal(|json| json["model"]["dropout"] = json!(0.1)).contains("dropout"));
    assert!(refusal(|json| json["model"]["ignore_merges"] = json!(true)).contains("ignore_merges"));
    let twice = refusal(|json| {
        let bos = json["post_processor"]["single"][0].clone();
        json["post_processor"]["single"].as_array_mut().unwrap().insert(0, bos);
    });
    assert!(twice.contains("it puts '<s>', '<s>' around a text"), "{twice}");
}

#[test]
fn a_metaspace_step_says_whether_a_space_goes_first() {
    for (scheme, prefix) in [("never", false), ("first", true), ("always", true)] {
        let folder = written(&tiny::sentencepiece());
        edited(folder.path(), |json| {
            json["normalizer"] = Value::Null;
            json["pre_tokenizer"] =
                json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false});
        });
        let back = returned(folder.path(), 277).unwrap();
        assert_eq!(back.add_space_prefix, Some(prefix));
        let (folder, gguf) =
            (Tokenizer::from_folder(folder.path()).unwrap(), Tokenizer::from_gguf_vocabulary(back).unwrap());
        let ids = |tokenizer: &Tokenizer, text| tokenizer.encode(text, BosEos::Omit, Markup::Text).unwrap();
        for text in ["abc ab", "ab  a", "€cab"] {
            assert_eq!(ids(&folder, text), ids(&gguf, text), "{scheme} {text:?}");
        }
        // The one text that the step treats in another way than SentencePiece.
        let second = [tiny::piece("▁"), tiny::piece("▁a")];
        assert_eq!(ids(&folder, " a"), second[1..]);
        assert_eq!(ids(&gguf, " a"), if prefix { &second[..] } else { &second[1..] });
    }
}

#[test]
fn special_tokens_and_templates_come_along() {
    let template =
        |name: &str| ChatTemplate::new(name, format!("{{% generation %}}{name}{{% endgeneration %}}")).unwrap();
    let vocabulary = GgufVocabulary {
        add_bos: Some(true),
        add_eos: Some(true),
        eot: Some(266),
        padding: Some(269),
        ..tiny::byte_level("gpt-2")
    };
    let templates = [template("default"), template("tool_use")];
    let files = folder_files(&vocabulary, &templates, Some(512)).unwrap();
    let names: Vec<_> = files.files.iter().map(|(name, _)| name.as_str()).collect();
    let jinja = ["chat_template.jinja", "additional_chat_templates/tool_use.jinja"];
    assert_eq!(names, ["tokenizer.json", "tokenizer_config.json", jinja[0], jinja[1]]);
    let generation = json!({"bos_token_id": 268, "eos_token_id": [269, 266], "pad_token_id": 269});
    assert_eq!(serde_json::to_value(&files.generation).unwrap(), generation);
    let config: Value = serde_json::from_slice(&files.files[1].1).unwrap();
    let expected = json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": true, "add_eos_token": true,
        "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "model_max_length": 512,
        "model_input_names": ["input_ids", "attention_mask"], "clean_up_tokenization_spaces": false,
    });
    assert_eq!(config, expected);

    let folder = tempfile::tempdir().unwrap();
    save(&files, folder.path());
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(tokenizer.special().eos, [269, 266]);
    assert_eq!(tokenizer.encode("he", BosEos::Add, Markup::Text).unwrap(), [268, 256, 269]);
    assert_eq!(ChatTemplate::from_folder(folder.path()).unwrap(), templates);
    let keys = gguf_metadata(folder.path(), 270).unwrap();
    let value = |key: &str| keys.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone()).unwrap();
    assert_eq!(value("tokenizer.ggml.eot_token_id"), GgufValue::U32(266));
    assert_eq!(value("tokenizer.ggml.add_eos_token"), GgufValue::Bool(true));
    let source = GgufValue::Str("{% generation %}tool_use{% endgeneration %}".into());
    assert_eq!(value("tokenizer.chat_template.tool_use"), source);

    let error = folder_files(&vocabulary, &[template("../../x")], None).unwrap_err();
    assert!(error.to_string().contains("the name cannot be that of a file"), "{error}");
}

#[test]
fn the_post_processor_alone_says_what_begins_and_ends_a_text() {
    let vocabulary = GgufVocabulary { add_bos: Some(true), add_eos: Some(true), ..tiny::sentencepiece() };
    let folder = written(&vocabulary);
    std::fs::remove_file(folder.path().join("tokenizer_config.json")).unwrap();
    std::fs::remove_file(folder.path().join("generation_config.json")).unwrap();
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    assert!(tokenizer.kind().adds_bos && tokenizer.kind().adds_eos);
    assert_eq!((tokenizer.special().bos, &tokenizer.special().eos[..]), (Some(1), &[2][..]));
    assert_eq!(tokenizer.encode("ab", BosEos::Add, Markup::Text).unwrap(), [1, tiny::piece("ab"), 2]);
    let back = returned(folder.path(), 277).unwrap();
    assert_eq!((back.bos, back.eos, back.add_bos, back.add_eos), (Some(1), Some(2), Some(true), Some(true)));
}

proptest! {
    #[test]
    fn sentencepiece_stays_the_same(texts in prop::collection::vec("[abcé \r\n€🚀▁<>/s]{0,24}", 16), prefix in any::<bool>()) {
        let mut vocabulary = GgufVocabulary { add_space_prefix: Some(prefix), ..tiny::sentencepiece() };
        if prefix {
            // Behind a user-defined token the library puts a space and SentencePiece does not.
            vocabulary.token_types.as_mut().unwrap()[3..6].fill(3);
            vocabulary.tokens[3..5].clone_from_slice(&["<a>".into(), "<c>".into()]);
        }
        let original = Tokenizer::from_gguf_vocabulary(vocabulary.clone()).unwrap();
        let folder = written(&vocabulary);
        let from_folder = Tokenizer::from_folder(folder.path()).unwrap();
        let from_back = Tokenizer::from_gguf_vocabulary(returned(folder.path(), 280).unwrap()).unwrap();
        for text in texts {
            for (bos_eos, markup) in [(BosEos::Add, Markup::Text), (BosEos::Omit, Markup::Parse)] {
                let ids = original.encode(&text, bos_eos, markup).unwrap();
                prop_assert_eq!(&from_folder.encode(&text, bos_eos, markup).unwrap(), &ids, "{:?}", &text);
                prop_assert_eq!(&from_back.encode(&text, bos_eos, markup).unwrap(), &ids, "{:?}", &text);
            }
        }
    }
}
