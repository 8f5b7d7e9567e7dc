//! The printable alphabet of byte-level BPE: each of the 256 bytes is written as one character.
//!
//! Defined with GPT-2 (Radford et al. 2019, released encoder): the bytes that print in Latin-1 stand for
//! themselves, the other 68 are numbered upwards from U+0100 in byte order.

/// The character that stands for `byte` in a byte-level vocabulary; a space is `Ġ`, a newline `Ċ`.
pub fn character_of(byte: u8) -> char {
    if prints_in_latin1(byte) {
        return char::from(byte);
    }
    let rank = (0..byte).filter(|&b| !prints_in_latin1(b)).count() as u32;
    char::from_u32(FIRST_STAND_IN + rank).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that `character` stands for, or none where it is outside the alphabet.
pub fn byte_of(character: char) -> Option<u8> {
    let code = u32::from(character);
    if let Ok(byte) = u8::try_from(code) {
        return prints_in_latin1(byte).then_some(byte);
    }
    STAND_INS.get(code.checked_sub(FIRST_STAND_IN)? as usize).copied()
}

/// The bytes that a token of a byte-level vocabulary spells; none where a character is outside the alphabet.
pub(crate) fn bytes_of(token: &str) -> Option<Vec<u8>> {
    token.chars().map(byte_of).collect()
}

const FIRST_STAND_IN: u32 = 0x100;

/// The bytes that do not stand for themselves, in the order of their stand-ins.
const STAND_INS: [u8; 68] = stand_ins();

const fn stand_ins() -> [u8; 68] {
    let mut bytes = [0; 68];
    let (mut byte, mut rank) = (0u8, 0);
    loop {
        if !prints_in_latin1(byte) {
            bytes[rank] = byte;
            rank += 1;
        }
        if byte == u8::MAX {
            return bytes;
        }
        byte += 1;
    }
}

/// Soft hyphen (0xAD) and both space characters do not print.
const fn prints_in_latin1(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character_and_comes_back() {
        let alphabet: std::collections::BTreeSet<char> = (0..=255).map(character_of).collect();
        assert_eq!(alphabet.len(), 256);
        for byte in 0..=255 {
            assert_eq!(byte_of(character_of(byte)), Some(byte));
        }
    }

    #[test]
    fn known_stand_ins() {
        assert_eq!(character_of(b' '), 'Ġ');
        assert_eq!(character_of(b'\n'), 'Ċ');
        assert_eq!(character_of(0), 'Ā');
        assert_eq!(character_of(0x7F), 'ġ');
        assert_eq!(character_of(0xAD), 'Ń');
        assert_eq!(character_of(0xE9), 'é');
    }

    #[test]
    fn characters_outside_the_alphabet_have_no_byte() {
        for character in [' ', '\n', '▁', '\u{144}', '\u{AD}', '한'] {
            assert_eq!(byte_of(character), None, "{character:?}");
        }
    }
}
