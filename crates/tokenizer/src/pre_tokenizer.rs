//! The pre-tokenisers that GGUF files name in `tokenizer.ggml.pre`.
//!
//! The file stores a name only; what the name means was fixed when the first converter wrote it. Each row below
//! holds the split expressions of the tokenizer that the name was given to. They run one after the other, and each
//! match becomes a piece of its own, as does the text between matches; BPE never merges across pieces.

/// How text is cut before BPE runs on the pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PreTokenizer {
    /// The names that files use for it. The first one is written to new files, so llama.cpp must know it.
    pub(crate) names: &'static [&'static str],
    /// Split expressions, applied in order.
    pub(crate) patterns: &'static [&'static str],
    pub(crate) normalization: Normalization,
    pub(crate) whole_words: WholeWords,
    pub(crate) bos: Bos,
}

/// What happens to the text before it is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Normalization {
    None,
    /// Unicode canonical composition: `e` + U+0301 becomes `é`.
    Nfc,
}

/// What happens to a piece that is itself a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WholeWords {
    /// It is merged like any other; the merges may not reach it.
    Merged,
    /// It becomes that token whatever the merges say (`ignore_merges` in tokenizer.json).
    Taken,
}

/// Whether BOS is added when the file has no `tokenizer.ggml.add_bos_token`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bos {
    ByDefault,
    OnRequest,
}

/// The row with this name.
pub(crate) fn find(name: &str) -> Option<&'static PreTokenizer> {
    PRE_TOKENIZERS.iter().find(|row| row.names.contains(&name))
}

/// The row that cuts text in these steps; none where no name stands for them. The expressions may spell their characters
/// in other ways than the table does.
pub(crate) fn matching(
    patterns: &[String],
    normalization: Normalization,
    whole_words: WholeWords,
) -> Option<&'static PreTokenizer> {
    let compared = |pattern: &str| spelled_out(pattern).replace('\r', r"\r").replace('\n', r"\n");
    let wanted: Vec<_> = patterns.iter().map(|pattern| compared(pattern)).collect();
    PRE_TOKENIZERS.iter().find(|row| {
        row.normalization == normalization
            && row.whole_words == whole_words
            && row.patterns.iter().map(|pattern| compared(pattern)).eq(wanted.iter().cloned())
    })
}

/// The expression with the characters themselves in place of their numbers (`\x{4E00}`), which not every engine reads.
pub(crate) fn spelled_out(pattern: &str) -> String {
    let mut result = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once(r"\x{") {
        let character = after.split_once('}').and_then(|(digits, tail)| {
            let character = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32)?;
            // An ASCII character could mean something else when it stands for itself.
            (!character.is_ascii()).then_some((character, tail))
        });
        result.push_str(before);
        match character {
            Some((character, tail)) => {
                result.push(character);
                rest = tail;
            }
            None => {
                result.push_str(r"\x{");
                rest = after;
            }
        }
    }
    result.push_str(rest);
    result
}

/// Whether each character of every text is in a match. Then it is the same whether text between matches is kept as
/// pieces or dropped.
pub(crate) fn covers_every_text(pattern: &str) -> bool {
    [GPT2, LLAMA3, QWEN2, QWEN35, GPT4O, TEKKEN].contains(&pattern)
}

/// Every name that [`find`] knows, in the order of the table.
pub(crate) fn known_names() -> impl Iterator<Item = &'static str> {
    PRE_TOKENIZERS.iter().flat_map(|row| row.names.iter().copied())
}

/// The pre-tokeniser of a file that names none; such files predate the key and are nearly all GPT-2's.
pub(crate) const UNNAMED: &str = "gpt-2";

/// Also the split of a byte-level pre-tokeniser that spells none out.
pub(crate) const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const QWEN35: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}",
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// Cased letters of the scripts that have case, as the DeepSeek tokenizers list them.
const DEEPSEEK_LETTERS: &str = concat!(
    r"\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF}",
    r"\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}",
    r"\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}",
    r"\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}",
    r"\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}",
    r"\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}",
    r"\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}",
    r"\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}",
    r"\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}",
    r"\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}",
    r"\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}",
    r"\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}",
    r"\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+"
);

const DEEPSEEK_CJK: &str = r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+";

const DEEPSEEK3: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const BLOOM: &str = r" ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{964}\x{6D4}\x{60C})]+";

const BAILING: &str = concat!(
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
);

const SEED_CODER: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// A row that neither normalises nor takes whole words, and adds no BOS.
const fn plain(names: &'static [&'static str], patterns: &'static [&'static str]) -> PreTokenizer {
    PreTokenizer {
        names,
        patterns,
        normalization: Normalization::None,
        whole_words: WholeWords::Merged,
        bos: Bos::OnRequest,
    }
}

/// A row whose tokenizer composes the text first.
const fn composed(names: &'static [&'static str], patterns: &'static [&'static str]) -> PreTokenizer {
    PreTokenizer { normalization: Normalization::Nfc, ..plain(names, patterns) }
}

/// A row whose tokenizer takes whole words, and adds BOS.
const fn whole_words(names: &'static [&'static str], patterns: &'static [&'static str]) -> PreTokenizer {
    PreTokenizer { whole_words: WholeWords::Taken, bos: Bos::ByDefault, ..plain(names, patterns) }
}

static PRE_TOKENIZERS: &[PreTokenizer] = &[
    plain(
        &[
            "gpt-2",
            "default",
            "phi-2",
            "jina-es",
            "jina-de",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v1-en",
            "jina-v2-code",
            "roberta-bpe",
            "gigachat",
            "mellum",
            "a.x-4.0",
            "jais",
            "trillion",
            "exaone4",
            "granite-docling",
            "modern-bert",
        ],
        &[GPT2],
    ),
    composed(&["olmo", "gpt-neox", "mpt"], &[GPT2]),
    plain(
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        &[r"\p{N}", GPT2],
    ),
    whole_words(&["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2", "midm-2.0"], &[LLAMA3]),
    plain(&["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], &[LLAMA3]),
    composed(&["qwen2", "megrez"], &[QWEN2]),
    plain(&["deepseek-r1-qwen", "stablelm2", "hunyuan", "solar-open", "grok-2", "kormo", "f2llmv2"], &[QWEN2]),
    composed(&["qwen35"], &[QWEN35]),
    whole_words(&["tekken"], &[TEKKEN]),
    plain(&["gpt-4o", "llama4", "kanana2", "minimax-m2"], &[GPT4O]),
    plain(
        &["deepseek-llm"],
        &[
            r"[\r\n]",
            DEEPSEEK_LETTERS,
            r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+",
            r"\s+$",
            DEEPSEEK_CJK,
            r"\p{N}+",
        ],
    ),
    plain(&["deepseek-coder"], &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, r"\p{N}"]),
    plain(
        &["deepseek-v3", "hunyuan-dense", "joyai-llm"],
        &[r"\p{N}{1,3}", r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+", DEEPSEEK3],
    ),
    plain(&["falcon"], &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, r"[0-9][0-9][0-9]"]),
    plain(&["bloom", "gpt3-finnish", "poro-chat"], &[BLOOM]),
    plain(&["viking"], &[BLOOM, r"\p{N}"]),
    plain(&["bailingmoe", "bailingmoe2", "llada-moe"], &[BAILING]),
    plain(&["seed-coder"], &[SEED_CODER]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_appears_once() {
        let mut names: Vec<_> = known_names().collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(find(UNNAMED).is_some());
        assert_eq!(find("no-such-pre"), None);
    }
}
