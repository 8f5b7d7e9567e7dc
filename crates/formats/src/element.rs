//! Element types: how the numbers of a tensor are stored in a checkpoint.
//!
//! A stored element is either a plain number or a share of a block: quantised types keep `block_len` neighbours of
//! one row in `block_bytes` bytes, with a scale per block (layouts: the block structs of ggml, `ggml-common.h`).
//! Plain numbers are blocks of one.

use std::str::FromStr;

use crate::error::Error;

/// How the numbers of a tensor are stored. Names are those of the formats (GGUF's `ggml_type`, safetensors' `dtype`).
///
/// Types whose values lathe cannot decode are listed too, so that a file that holds them can be opened and described;
/// [`ElementType::is_readable`] tells them apart.
#[expect(non_camel_case_types, reason = "the formats' own names")]
#[expect(missing_docs, reason = "a type's layout is its row of LAYOUTS")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ElementType {
    F64,
    F32,
    F16,
    BF16,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Bool,
    C64,
    F8_E4M3,
    F8_E5M2,
    F8_E8M0,
    F6_E2M3,
    F6_E3M2,
    F4,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q8_1,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    Q8_K,
    IQ1_S,
    IQ1_M,
    IQ2_XXS,
    IQ2_XS,
    IQ2_S,
    IQ3_XXS,
    IQ3_S,
    IQ4_NL,
    IQ4_XS,
    TQ1_0,
    TQ2_0,
    MXFP4,
    NVFP4,
    Q1_0,
    Q2_0,
}

impl ElementType {
    /// Numbers per block: 1 for plain types. A quantised row is a whole number of blocks.
    pub fn block_len(self) -> usize {
        self.layout().block_len
    }

    /// Bytes per block.
    pub fn block_bytes(self) -> usize {
        self.layout().block_bytes
    }

    /// The name that the formats give the type, as `Q4_K` or `BF16`.
    pub fn name(self) -> &'static str {
        self.layout().name
    }

    /// Whether the numbers stand for real values (floats and quantised floats), not for integers, flags or pairs.
    pub fn is_float_like(self) -> bool {
        use ElementType as E;
        !matches!(self, E::I8 | E::I16 | E::I32 | E::I64 | E::U8 | E::U16 | E::U32 | E::U64 | E::Bool | E::C64)
    }

    /// Whether several numbers share a scale.
    pub fn is_quantised(self) -> bool {
        use ElementType as E;
        self.block_len() > 1 && !matches!(self, E::F4 | E::F6_E2M3 | E::F6_E3M2)
    }

    /// Whether [`crate::TensorView::decode_rows`] can turn the type into f32.
    pub fn is_readable(self) -> bool {
        use ElementType as E;
        !matches!(self, E::C64 | E::F8_E8M0 | E::F6_E2M3 | E::F6_E3M2 | E::F4)
    }

    /// Whether [`crate::encode_rows`] can store f32 values as the type.
    pub fn is_writable(self) -> bool {
        use ElementType as E;
        let block = matches!(self, E::Q4_0 | E::Q4_1 | E::Q5_0 | E::Q5_1 | E::Q8_0 | E::Q4_K | E::Q5_K | E::Q6_K);
        block || matches!(self, E::F32 | E::F16 | E::BF16)
    }

    /// Names of the writable types, for messages.
    pub(crate) fn writable_names() -> String {
        let names: Vec<&str> = ElementType::all().filter(|e| e.is_writable()).map(ElementType::name).collect();
        names.join(", ")
    }

    /// Every type, in the order of the enum.
    pub fn all() -> impl Iterator<Item = ElementType> {
        LAYOUTS.iter().map(|layout| layout.element)
    }

    /// The type with this `ggml_type` id, if it has one today. The ids 4, 5, 31 to 33 and 36 to 38 belonged to types
    /// that ggml has removed.
    pub(crate) fn from_gguf_id(id: u32) -> Option<ElementType> {
        let layout = LAYOUTS.iter().find(|layout| layout.gguf_id == Some(id))?;
        Some(layout.element)
    }

    pub(crate) fn gguf_id(self) -> Option<u32> {
        self.layout().gguf_id
    }

    pub(crate) fn from_safetensors_name(name: &str) -> Option<ElementType> {
        let layout = LAYOUTS.iter().find(|layout| layout.safetensors == Some(name))?;
        Some(layout.element)
    }

    pub(crate) fn safetensors_name(self) -> Option<&'static str> {
        self.layout().safetensors
    }

    fn layout(self) -> &'static Layout {
        &LAYOUTS[self as usize]
    }
}

impl std::fmt::Display for ElementType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The type of this name, in capitals or not: `Q4_K`, `q4_k`, `bf16`. Every type is found, [writable](Self::is_writable)
/// or not.
impl FromStr for ElementType {
    type Err = Error;

    fn from_str(word: &str) -> Result<ElementType, Error> {
        let layout = LAYOUTS.iter().find(|layout| layout.name.eq_ignore_ascii_case(word));
        let layout = layout
            .ok_or_else(|| Error::UnknownElementName { word: word.to_owned(), writable: Self::writable_names() })?;
        Ok(layout.element)
    }
}

struct Layout {
    element: ElementType,
    name: &'static str,
    block_len: usize,
    block_bytes: usize,
    gguf_id: Option<u32>,
    safetensors: Option<&'static str>,
}

/// A type of both formats or of safetensors alone, named the same in both.
const fn plain(element: ElementType, name: &'static str, bytes: usize, gguf_id: Option<u32>) -> Layout {
    Layout { element, name, block_len: 1, block_bytes: bytes, gguf_id, safetensors: Some(name) }
}

/// Floats of less than a byte: the smallest whole number of bytes is the block.
const fn packed(element: ElementType, name: &'static str, block_len: usize, block_bytes: usize) -> Layout {
    Layout { element, name, block_len, block_bytes, gguf_id: None, safetensors: Some(name) }
}

/// A block type, which only GGUF has.
const fn block(element: ElementType, name: &'static str, block_len: usize, block_bytes: usize, id: u32) -> Layout {
    Layout { element, name, block_len, block_bytes, gguf_id: Some(id), safetensors: None }
}

/// One row per type, at the index of its discriminant.
static LAYOUTS: [Layout; 47] = {
    use ElementType as E;
    [
        plain(E::F64, "F64", 8, Some(28)),
        plain(E::F32, "F32", 4, Some(0)),
        plain(E::F16, "F16", 2, Some(1)),
        plain(E::BF16, "BF16", 2, Some(30)),
        plain(E::I8, "I8", 1, Some(24)),
        plain(E::I16, "I16", 2, Some(25)),
        plain(E::I32, "I32", 4, Some(26)),
        plain(E::I64, "I64", 8, Some(27)),
        plain(E::U8, "U8", 1, None),
        plain(E::U16, "U16", 2, None),
        plain(E::U32, "U32", 4, None),
        plain(E::U64, "U64", 8, None),
        plain(E::Bool, "BOOL", 1, None),
        plain(E::C64, "C64", 8, None),
        plain(E::F8_E4M3, "F8_E4M3", 1, None),
        plain(E::F8_E5M2, "F8_E5M2", 1, None),
        plain(E::F8_E8M0, "F8_E8M0", 1, None),
        packed(E::F6_E2M3, "F6_E2M3", 4, 3),
        packed(E::F6_E3M2, "F6_E3M2", 4, 3),
        packed(E::F4, "F4", 2, 1),
        block(E::Q4_0, "Q4_0", 32, 2 + 16, 2),
        block(E::Q4_1, "Q4_1", 32, 2 + 2 + 16, 3),
        block(E::Q5_0, "Q5_0", 32, 2 + 4 + 16, 6),
        block(E::Q5_1, "Q5_1", 32, 2 + 2 + 4 + 16, 7),
        block(E::Q8_0, "Q8_0", 32, 2 + 32, 8),
        block(E::Q8_1, "Q8_1", 32, 2 + 2 + 32, 9),
        block(E::Q2_K, "Q2_K", 256, 16 + 64 + 2 + 2, 10),
        block(E::Q3_K, "Q3_K", 256, 32 + 64 + 12 + 2, 11),
        block(E::Q4_K, "Q4_K", 256, 2 + 2 + 12 + 128, 12),
        block(E::Q5_K, "Q5_K", 256, 2 + 2 + 12 + 32 + 128, 13),
        block(E::Q6_K, "Q6_K", 256, 128 + 64 + 16 + 2, 14),
        block(E::Q8_K, "Q8_K", 256, 4 + 256 + 32, 15),
        block(E::IQ1_S, "IQ1_S", 256, 2 + 32 + 16, 19),
        block(E::IQ1_M, "IQ1_M", 256, 32 + 16 + 8, 29),
        block(E::IQ2_XXS, "IQ2_XXS", 256, 2 + 64, 16),
        block(E::IQ2_XS, "IQ2_XS", 256, 2 + 64 + 8, 17),
        block(E::IQ2_S, "IQ2_S", 256, 2 + 64 + 16, 22),
        block(E::IQ3_XXS, "IQ3_XXS", 256, 2 + 64 + 32, 18),
        block(E::IQ3_S, "IQ3_S", 256, 2 + 64 + 32 + 8 + 4, 21),
        block(E::IQ4_NL, "IQ4_NL", 32, 2 + 16, 20),
        block(E::IQ4_XS, "IQ4_XS", 256, 2 + 2 + 4 + 128, 23),
        block(E::TQ1_0, "TQ1_0", 256, 48 + 4 + 2, 34),
        block(E::TQ2_0, "TQ2_0", 256, 64 + 2, 35),
        block(E::MXFP4, "MXFP4", 32, 1 + 16, 39),
        block(E::NVFP4, "NVFP4", 64, 4 + 32, 40),
        block(E::Q1_0, "Q1_0", 128, 2 + 16, 41),
        block(E::Q2_0, "Q2_0", 64, 2 + 16, 42),
    ]
};

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_type_finds_its_own_row() {
        for (index, layout) in LAYOUTS.iter().enumerate() {
            assert_eq!(layout.element as usize, index, "{}", layout.name);
        }
    }

    #[test]
    fn ids_and_names_lead_back() {
        for element in ElementType::all() {
            assert_eq!(element.name().parse::<ElementType>().unwrap(), element);
            assert_eq!(element.name().to_lowercase().parse::<ElementType>().unwrap(), element);
            if let Some(id) = element.gguf_id() {
                assert_eq!(ElementType::from_gguf_id(id), Some(element));
            }
            if let Some(name) = element.safetensors_name() {
                assert_eq!(ElementType::from_safetensors_name(name), Some(element));
            }
        }
        for removed in [4, 5, 31, 32, 33, 36, 37, 38, 43, u32::MAX] {
            assert_eq!(ElementType::from_gguf_id(removed), None);
        }
    }

    #[test]
    fn a_word_that_names_no_type_is_told_which_do() {
        for word in ["q4_k_m", "", "Q4_K ", "float16"] {
            let message = word.parse::<ElementType>().unwrap_err().to_string();
            let writable = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K";
            assert_eq!(message, format!("no element type is called {word:?}; lathe writes {writable}"));
        }
    }
}
