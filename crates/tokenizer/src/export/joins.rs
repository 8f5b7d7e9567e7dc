//! SentencePiece joins two neighbours whenever their joined text is a token, the highest score first. A list of merges
//! says the same if it holds every split of a token in two, in the order of the tokens' scores.
//!
//! A pair of the list has a rank of its own, where SentencePiece has one score for all splits of a token. That makes
//! no difference to the splits of one token: they lead to the same token, and two of them can only compete for a
//! symbol in a run of repeated text, in a phase that joining from the left does not leave behind.

use std::collections::HashMap;

use crate::vocabulary::{Role, Vocabulary};

/// The tokens of a vocabulary by name, each name once.
pub(super) struct Joins<'a>(HashMap<&'a str, (u32, Role)>);

/// A split of a token that SentencePiece can join and a list of merges cannot, as one part is no token.
pub(super) struct Unspellable<'a> {
    pub(super) token: &'a str,
    pub(super) character: &'a str,
}

impl<'a> Joins<'a> {
    pub(super) fn of(vocabulary: &'a Vocabulary) -> Self {
        let rows = vocabulary.tokens.iter().zip(&vocabulary.roles).enumerate();
        let named = rows.filter(|(_, (token, _))| !token.is_empty());
        Self(named.map(|(id, (token, role))| (token.as_str(), (id as u32, *role))).collect())
    }

    pub(super) fn role(&self, token: &str) -> Option<Role> {
        self.0.get(token).map(|&(_, role)| role)
    }

    /// The id of a text token, which is what a join can result in.
    pub(super) fn text(&self, token: &str) -> Option<u32> {
        self.0.get(token).filter(|(_, role)| *role == Role::Text).map(|&(id, _)| id)
    }

    /// The ways to make `token` of two text tokens, the longest left part first.
    pub(super) fn splits(&self, token: &'a str) -> Result<Vec<(&'a str, &'a str)>, Unspellable<'a>> {
        let mut splits = Vec::new();
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            match (self.part(left), self.part(right)) {
                (Part::Token, Part::Token) => splits.push((left, right)),
                (Part::Character, Part::Token | Part::Character) => {
                    return Err(Unspellable { token, character: left });
                }
                (Part::Token, Part::Character) => return Err(Unspellable { token, character: right }),
                (Part::Nothing, _) | (_, Part::Nothing) => {}
            }
        }
        splits.reverse();
        Ok(splits)
    }

    fn part(&self, text: &str) -> Part {
        match self.role(text) {
            Some(Role::Text) => Part::Token,
            // Found before the first join.
            Some(Role::UserDefined) => Part::Nothing,
            _ if text.chars().nth(1).is_none() => Part::Character,
            _ => Part::Nothing,
        }
    }
}

/// What a part of a split is when joining starts or goes on.
enum Part {
    Token,
    /// A single character that no token spells; a symbol all the same.
    Character,
    /// Never a symbol.
    Nothing,
}
