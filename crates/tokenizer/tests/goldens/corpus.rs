//! Texts on which two tokenizers that differ are likely to differ.

use lathe_tokenizer::{ControlTokens, Tokenizer};

const TEXTS: [&str; 24] = [
    "",
    " ",
    "  ",
    "\n",
    "\n\n\n\n\n \n\t\n",
    "\r\n\r\n \r \t\t\t   x",
    "Hello, world! It's the cats' 3rd day; WE'LL see… DON'T.",
    "naïve café façade Ångström ﬁ ½ ² Ⅷ ١٢٣ १२३",
    "e\u{301}a\u{308}o\u{302} decomposed, \u{e9}\u{e4}\u{f4} composed, \u{212b} \u{2126} \u{1100}\u{1161}\u{11a8}",
    "数学は楽しいです。東京タワーへ行きました！ 한국어 문장입니다. 中文，没有空格的句子；“引号”。",
    "العربية עברית हिन्दी ไทย ქართული Ελληνικά Русский язык українська",
    "👩‍🚀🚀🏳️‍🌈👨‍👩‍👧‍👦 🇩🇪🇫🇷 ok 🫠🫡 ∑∫√ ℝ 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈",
    "0 1 12 123 1234 12345 123456 1234567890 3.14159 1e-9 0xDEADBEEF 1,234,567.89 2026-01-31T23:59:59Z",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "abababababababababababab xyxyxyxyxyxyxy -------------- ================ ________ ........ !!!!!!!! ######",
    "fn main() {\n    let x: Vec<u32> = (0..10).map(|i| i * 2).collect();\n\tprintln!(\"{x:?}\");\n}\n",
    "def f(a, *args, **kw):\n        return {k: v for k, v in kw.items() if k != '_'}  # ok\n\n\n\nclass A: pass\n",
    "<html><body class=\"a\"><h1>T</h1><p>x &amp; y</p><br/></body></html> <table><tr><td>1</td></tr></table>",
    "<|im_start|>user\nhi<|im_end|> <|endoftext|> <bos> <eos> <pad> <unk> <s> </s> <start_of_turn> <unused7> [PAD3]",
    "<tool_call>\n{\"name\": \"f\"}\n</tool_call> <|im_start <|im_end| |> <0x0A> <0xE2><0x82><0xAC> ▁ ▁▁the ĠtheĊ",
    "\u{0}\u{1}\u{7f}\u{80}\u{a0}\u{ad}\u{200b}\u{200e}\u{2028}\u{3000}\u{feff}\u{fffd}\u{10ffff}",
    "https://example.org/a/b?c=d&e=%20f#g  user.name+tag@example.co.uk  C:\\Users\\x\\y.txt  ~/.config/*",
    "The quick brown fox jumps over the lazy dog.  Two spaces.   Three.    Four.     Five.\tTab.\t\tTabs.",
    "ſtraße İstanbul ǆ Ǆ ﬀ ß ẞ ŉ 'ſ 'T 'RE",
];

/// The fixed texts, runs of each length of some characters, and texts of random tokens of the vocabulary, which
/// tokenize in other ways than they were made.
pub(crate) fn texts(tokenizer: &Tokenizer) -> Vec<String> {
    let mut texts: Vec<String> = TEXTS.map(str::to_owned).to_vec();
    texts.push(TEXTS.join("\n"));
    for length in 1..70 {
        texts.push(format!("a{}b", " ".repeat(length)));
        texts.push(format!("{}{}x", "\n".repeat(length), "\t".repeat(length % 7)));
        texts.push("=-".repeat(length) + &"é".repeat(length));
    }
    let mut draw = Draw(0x9E37_79B9_7F4A_7C15);
    for _ in 0..1_000 {
        let count = 1 + draw.below(24);
        let ids: Vec<u32> = (0..count).map(|_| draw.below(tokenizer.vocab_size()) as u32).collect();
        texts.push(tokenizer.decode(&ids, ControlTokens::Hide));
    }
    texts
}

/// xorshift64: the texts must be the same ones every time, and need no better numbers.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}
