use crate::byte_alphabet;

/// The tokens of a model by id: how each is written in the file and what it contributes to a text.
#[derive(Debug, Clone)]
pub(crate) struct Vocabulary {
    pub(crate) spelling: Spelling,
    /// Spelling in the file, by id; empty for an id that no token has.
    pub(crate) tokens: Vec<String>,
    /// By id, as long as `tokens`.
    pub(crate) roles: Vec<Role>,
}

/// How the strings of a vocabulary stand for text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// One character per byte, see [`byte_alphabet`].
    ByteLevel,
    /// UTF-8 with `▁` for a space.
    SentencePiece,
    /// UTF-8.
    Plain,
}

/// What an id is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Text in the vocabulary's spelling.
    Text,
    /// Text that stands for itself and is found before the model runs (GGUF: user-defined).
    UserDefined,
    /// One byte, written `<0x0A>`.
    Byte(u8),
    /// A mark for the model that is no part of the text: begin, end, turn, unknown.
    Control,
    /// A row of the embedding without a token.
    Unused,
}

/// What a token contributes to the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenBytes {
    /// These bytes, which may begin or end inside a UTF-8 sequence.
    Bytes(Vec<u8>),
    /// One byte that stands for itself (byte fallback of SentencePiece).
    Byte(u8),
    /// Nothing: a control token with this name.
    Control(String),
    /// Nothing: an id without a token, such as a padding row of the embedding.
    Unused,
}

impl TokenBytes {
    /// The bytes that appear in the text; none for control tokens and unused ids.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Byte(byte) => std::slice::from_ref(byte),
            Self::Control(_) | Self::Unused => &[],
        }
    }
}

impl Vocabulary {
    pub(crate) fn token_bytes(&self, id: u32) -> TokenBytes {
        let Some((token, role)) = self.entry(id) else {
            return TokenBytes::Unused;
        };
        match (role, self.spelling) {
            (Role::Unused, _) => TokenBytes::Unused,
            (Role::Control, _) => TokenBytes::Control(token.to_owned()),
            (Role::Byte(byte), _) => TokenBytes::Byte(byte),
            (Role::Text | Role::UserDefined, Spelling::SentencePiece) => {
                TokenBytes::Bytes(token.replace(SPACE_MARK, " ").into_bytes())
            }
            // A token with a character outside the alphabet was added later, as text.
            (Role::Text, Spelling::ByteLevel) => {
                TokenBytes::Bytes(byte_alphabet::bytes_of(token).unwrap_or_else(|| token.as_bytes().to_vec()))
            }
            (Role::Text | Role::UserDefined, _) => TokenBytes::Bytes(token.as_bytes().to_vec()),
        }
    }

    /// Spelling and role; none outside the vocabulary.
    pub(crate) fn entry(&self, id: u32) -> Option<(&str, Role)> {
        let index = id as usize;
        Some((self.tokens.get(index)?, *self.roles.get(index)?))
    }

    /// The ids with this role, in order.
    pub(crate) fn with_role(&self, wanted: Role) -> impl Iterator<Item = (u32, &str)> {
        let rows = self.tokens.iter().zip(&self.roles).enumerate();
        rows.filter(move |(_, (_, role))| **role == wanted).map(|(id, (token, _))| (id as u32, token.as_str()))
    }
}

/// SentencePiece's mark for a space (U+2581).
pub(crate) const SPACE_MARK: char = '▁';

/// The byte of a token such as `<0x0A>`.
pub(crate) fn parse_byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_hex = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}
