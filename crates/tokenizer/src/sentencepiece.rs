//! SentencePiece's BPE (Kudo and Richardson 2018), run from a vocabulary with scores.
//!
//! The text starts as a chain of characters and user-defined tokens. The neighbours whose joined text is the token
//! with the highest score are joined, the leftmost first where scores are equal, until no joined text is a token.
//! What then is no token becomes bytes (`<0x0A>`), or the unknown token where the vocabulary has no bytes.
//! User-defined tokens never join; control tokens, bytes and the unknown token are never the result of a join.
//!
//! Spaces are `▁` in the vocabulary. Here the vocabulary is turned to spaces instead of the text to marks, so that
//! positions in the text stay what they are.

use std::borrow::Cow;
use std::collections::{BinaryHeap, HashMap};
use std::ops::Range;

use crate::error::Error;
use crate::literal::Literals;
use crate::vocabulary::{Role, SPACE_MARK, Vocabulary};

/// Tables built once per vocabulary.
#[derive(Debug, Clone)]
pub(crate) struct SentencePiece {
    /// Id and score of each token that a join can make, by its text.
    pieces: HashMap<Box<str>, (u32, f32)>,
    user_defined: Literals,
    control: Literals,
    /// Id of each byte's token.
    bytes: Vec<Option<u32>>,
    unknown: Option<u32>,
    prefix: SpacePrefix,
}

/// Whether a space goes before the text, so that its first word is spelled like the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpacePrefix {
    /// Before the text, and before what follows a control token.
    Add,
    Omit,
}

/// A token and where it stands in the text, in bytes.
pub(crate) type Located = (u32, Range<usize>);

impl SentencePiece {
    /// `scores` by id, as long as the vocabulary.
    pub(crate) fn new(vocabulary: &Vocabulary, scores: &[f32], unknown: Option<u32>, prefix: SpacePrefix) -> Self {
        let mut bytes = vec![None; 256];
        let mut pieces = HashMap::with_capacity(vocabulary.tokens.len());
        let rows = vocabulary.tokens.iter().zip(&vocabulary.roles).zip(scores);
        for (id, ((token, role), &score)) in rows.enumerate() {
            let id = id as u32;
            match role {
                // Of two tokens for the same text the first one stands.
                Role::Text => {
                    // Adding 0 makes -0.0 and 0.0 the same score.
                    pieces.entry(spaced(token).into()).or_insert((id, score + 0.0));
                }
                Role::Byte(byte) => bytes[usize::from(*byte)] = Some(id),
                Role::UserDefined | Role::Control | Role::Unused => {}
            }
        }
        let user_defined: Vec<_> =
            vocabulary.with_role(Role::UserDefined).map(|(id, token)| (id, spaced(token))).collect();
        Self {
            pieces,
            user_defined: Literals::new(user_defined.iter().map(|(id, token)| (*id, token.as_ref()))),
            control: Literals::new(vocabulary.with_role(Role::Control)),
            bytes,
            unknown,
            prefix,
        }
    }

    /// The tokens of a text in which control tokens are ordinary text. The ranges follow each other without gaps; a
    /// space that was put before the text has no place of its own.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<Located>, Error> {
        let mut located = Vec::new();
        self.encode_section(text, 0, &mut located)?;
        Ok(located)
    }

    /// Like [`Self::encode`], but the name of a control token in the text becomes that token.
    pub(crate) fn encode_markup(&self, text: &str) -> Result<Vec<Located>, Error> {
        let mut located = Vec::new();
        let mut start = 0;
        while let Some((offset, id, length)) = self.control.find(&text[start..]) {
            let at = start + offset;
            self.encode_section(&text[start..at], start, &mut located)?;
            located.push((id, at..at + length));
            start = at + length;
        }
        self.encode_section(&text[start..], start, &mut located)?;
        Ok(located)
    }

    /// Appends the tokens of `section`, which starts `offset` bytes into the text.
    fn encode_section(&self, section: &str, offset: usize, located: &mut Vec<Located>) -> Result<(), Error> {
        if section.is_empty() {
            return Ok(());
        }
        let surface = match self.prefix {
            SpacePrefix::Add => Cow::Owned(format!(" {}", spaced(section))),
            SpacePrefix::Omit => spaced(section),
        };
        let position = Positions::new(section, &surface, self.prefix);
        for (id, range) in self.tokens_of(&surface).map_err(|at| no_token(section, offset, position.in_section(at)))? {
            let end = offset + position.in_section(range.end);
            located.push((id, offset + position.in_section(range.start)..end));
        }
        Ok(())
    }

    /// Joins, then looks up. The error is the place of a character without any token.
    fn tokens_of(&self, surface: &str) -> Result<Vec<Located>, usize> {
        let mut located: Vec<Located> = Vec::new();
        for symbol in self.join(surface) {
            let text = &surface[symbol.range.clone()];
            if let Some(id) = symbol.user_defined.or_else(|| self.pieces.get(text).map(|&(id, _)| id)) {
                located.push((id, symbol.range));
                continue;
            }
            let ids: Option<Vec<u32>> = text.bytes().map(|byte| self.bytes[usize::from(byte)]).collect();
            match (ids, self.unknown) {
                (Some(ids), _) => {
                    located.extend(ids.into_iter().zip(symbol.range).map(|(id, at)| (id, at..at + 1)));
                }
                // One unknown token stands for a whole run.
                (None, Some(unknown)) => match located.last_mut() {
                    Some((id, range)) if *id == unknown => range.end = symbol.range.end,
                    _ => located.push((unknown, symbol.range)),
                },
                (None, None) => return Err(symbol.range.start),
            }
        }
        Ok(located)
    }

    /// The chain of symbols after the last join.
    fn join(&self, surface: &str) -> impl Iterator<Item = Symbol> + use<> {
        let mut symbols = self.first_symbols(surface);
        let mut queue = BinaryHeap::new();
        for left in 1..symbols.len() {
            queue.extend(self.candidate(surface, &symbols, left - 1, left));
        }
        while let Some(join) = queue.pop() {
            let joined = symbols[join.left].range.start..symbols[join.right].range.end;
            let is_stale = symbols[join.left].range.is_empty()
                || symbols[join.right].range.is_empty()
                || joined.len() != join.length
                || symbols[join.left].next != Some(join.right);
            if is_stale {
                continue;
            }
            let next = symbols[join.right].next;
            symbols[join.left].range = joined;
            symbols[join.left].next = next;
            symbols[join.right].range = 0..0;
            if let Some(next) = next {
                symbols[next].previous = Some(join.left);
                queue.extend(self.candidate(surface, &symbols, join.left, next));
            }
            if let Some(previous) = symbols[join.left].previous {
                queue.extend(self.candidate(surface, &symbols, previous, join.left));
            }
        }
        symbols.into_iter().filter(|symbol| !symbol.range.is_empty())
    }

    fn first_symbols(&self, surface: &str) -> Vec<Symbol> {
        let mut symbols: Vec<Symbol> = Vec::new();
        let mut start = 0;
        while let Some(character) = surface[start..].chars().next() {
            let (user_defined, length) = match self.user_defined.longest_prefix(&surface[start..]) {
                Some((id, length)) => (Some(id), length),
                None => (None, character.len_utf8()),
            };
            let index = symbols.len();
            symbols.push(Symbol {
                range: start..start + length,
                previous: index.checked_sub(1),
                next: Some(index + 1),
                user_defined,
            });
            start += length;
        }
        if let Some(last) = symbols.last_mut() {
            last.next = None;
        }
        symbols
    }

    /// The join of two neighbours, where their joined text is a token.
    fn candidate(&self, surface: &str, symbols: &[Symbol], left: usize, right: usize) -> Option<Join> {
        if symbols[left].user_defined.is_some() || symbols[right].user_defined.is_some() {
            return None;
        }
        let joined = symbols[left].range.start..symbols[right].range.end;
        let &(_, score) = self.pieces.get(&surface[joined.clone()])?;
        Some(Join { score, left, right, length: joined.len() })
    }
}

/// A link of the chain. A symbol that was joined to its left neighbour has an empty range.
struct Symbol {
    range: Range<usize>,
    previous: Option<usize>,
    next: Option<usize>,
    user_defined: Option<u32>,
}

/// A join to try; ordered by score, then from left to right.
struct Join {
    score: f32,
    left: usize,
    right: usize,
    /// Bytes of the joined text when the join was found; a different length now means that it is stale.
    length: usize,
}

impl Ord for Join {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.score.total_cmp(&other.score).then_with(|| other.left.cmp(&self.left))
    }
}

impl PartialOrd for Join {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Join {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Join {}

/// Leads from the surface, which has spaces for marks and perhaps one in front, back to the text.
enum Positions {
    /// The surface is the text behind so many added bytes.
    Shifted(usize),
    /// The text holds marks of its own (3 bytes each): position in the text, by position in the surface.
    Table(Vec<usize>),
}

impl Positions {
    fn new(section: &str, surface: &str, prefix: SpacePrefix) -> Self {
        let added = match prefix {
            SpacePrefix::Add => 1,
            SpacePrefix::Omit => 0,
        };
        if surface.len() == section.len() + added {
            return Self::Shifted(added);
        }
        let mut table = vec![0; added];
        for (at, character) in section.char_indices() {
            match character {
                SPACE_MARK => table.push(at),
                _ => table.extend(at..at + character.len_utf8()),
            }
        }
        table.push(section.len());
        Self::Table(table)
    }

    fn in_section(&self, at: usize) -> usize {
        match self {
            Self::Shifted(added) => at.saturating_sub(*added),
            Self::Table(table) => table[at],
        }
    }
}

/// SentencePiece takes a space and its mark for the same character.
fn spaced(text: &str) -> Cow<'_, str> {
    if text.contains(SPACE_MARK) { Cow::Owned(text.replace(SPACE_MARK, " ")) } else { Cow::Borrowed(text) }
}

fn no_token(section: &str, offset: usize, at: usize) -> Error {
    let character = section.get(at..).and_then(|rest| rest.chars().next()).unwrap_or(' ');
    Error::NoToken { character, at: offset + at }
}
