//! Vocabularies small enough to check by hand.

use lathe_tokenizer::{GgufVocabulary, byte_alphabet};

/// The 256 bytes as ids 0 to 255, then the results of these merges, a user-defined token, an unused id and two control
/// tokens.
pub(crate) fn byte_level(pre: &str) -> GgufVocabulary {
    let mut tokens: Vec<String> = (0..=255).map(|byte| byte_alphabet::character_of(byte).to_string()).collect();
    let merges = ["h e", "l l", "he ll", "Ġ w", "o r", "Ġw or", "Ã ©", "1 2", "Ċ Ċ", "hell o"];
    tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
    let mut token_types = vec![1; tokens.len()];
    for (token, token_type) in [("<tool>", 4), ("[PAD0]", 5), ("<|im_start|>", 3), ("<|im_end|>", 3)] {
        tokens.push(token.to_owned());
        token_types.push(token_type);
    }
    GgufVocabulary {
        origin: "tiny.gguf".into(),
        model: "gpt2".into(),
        pre: Some(pre.into()),
        tokens,
        token_types: Some(token_types),
        merges: Some(merges.map(str::to_owned).to_vec()),
        bos: Some(268),
        eos: Some(269),
        ..GgufVocabulary::default()
    }
}

/// Tokens of [`sentencepiece`] that joins can make, with their scores.
pub(crate) const PIECES: [(&str, f32); 15] = [
    ("▁", -20.0),
    ("a", -21.0),
    ("b", -22.0),
    ("c", -23.0),
    ("é", -24.0),
    ("ab", -1.0),
    ("bc", -2.0),
    ("▁a", -3.0),
    ("abc", -4.0),
    ("▁ab", -5.0),
    ("▁abc", -6.0),
    ("cé", -7.0),
    ("aa", -8.0),
    ("ca", -9.0),
    ("cab", -10.0),
];

/// `<unk>` 0, `<s>` 1, `</s>` 2, runs of newlines 3 and 4, `<b>` 5, the bytes from 6, and [`PIECES`] from 262.
pub(crate) fn sentencepiece() -> GgufVocabulary {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>", "\n", "\n\n", "<b>"].map(str::to_owned).to_vec();
    let mut token_types = vec![2, 3, 3, 4, 4, 4];
    tokens.extend((0..=255).map(|byte: u8| format!("<0x{byte:02X}>")));
    token_types.extend([6; 256]);
    let mut scores = vec![0.0; tokens.len()];
    for (piece, score) in PIECES {
        tokens.push(piece.to_owned());
        token_types.push(1);
        scores.push(score);
    }
    GgufVocabulary {
        origin: "tiny.gguf".into(),
        model: "llama".into(),
        tokens,
        scores: Some(scores),
        token_types: Some(token_types),
        bos: Some(1),
        eos: Some(2),
        unknown: Some(0),
        add_bos: Some(true),
        add_space_prefix: Some(false),
        ..GgufVocabulary::default()
    }
}

/// Id of a token of [`sentencepiece`].
pub(crate) fn piece(token: &str) -> u32 {
    262 + PIECES.iter().position(|(piece, _)| *piece == token).expect("one of PIECES") as u32
}
