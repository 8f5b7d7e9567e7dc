//! The worked examples of the method page (4.7, 5.5, 5.6), properties of the methods on tables, and texts of tiny models.

mod models;

use std::collections::HashMap;
use std::path::Path;

use lathe_model::{Batch, NoTap, Weights, open};
use proptest::prelude::*;

use super::covers::{Beam, Language, Masses, NextByte, mix};
use super::unite::{Duplicates, Row, combine, logit, scores, top, union};
use super::view::View;
use super::*;
use crate::{Decoding, Event, Request, Sampling, Stops, Writer, generate};

/// A vocabulary of these strings, ids in their order.
fn vocabulary(strings: &[&str], ends: &[u32]) -> ByteVocabulary {
    ByteVocabulary::from_bytes(strings.iter().map(|s| Some(s.as_bytes().to_vec())), ends)
}

/// Always the longest token.
fn longest(vocabulary: &ByteVocabulary, bytes: &[u8]) -> Option<Vec<u32>> {
    let mut ids = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let string = (at + 1..=bytes.len()).rev().find_map(|end| vocabulary.find(&bytes[at..end]))?;
        ids.push(vocabulary.ids(string)[0]);
        at += vocabulary.string(string).len();
    }
    Some(ids)
}

fn text(bytes: &str) -> Symbol {
    Symbol::Text(bytes.as_bytes().to_vec())
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 5e-7
}

/// Example C: tokens and logits of two models.
mod example_c {
    use super::*;

    const M1: [(&str, f32); 10] = [
        (" cat", 2.0),
        (" dog", 1.0),
        (" d", 0.5),
        (" c", 0.0),
        (" b", -1.0),
        ("at", -5.0),
        ("og", -5.0),
        ("o", -5.0),
        ("g", -5.0),
        ("ird", -5.0),
    ];
    const M2: [(&str, f32); 6] = [(" do", 3.2), (" bird", 1.5), (" cat", 1.0), (" d", -1.0), ("g", -3.0), ("o", -3.0)];

    fn split(of: &[(&str, f32)], shift: f32) -> (ByteVocabulary, Vec<f32>) {
        let (strings, logits): (Vec<&str>, Vec<f32>) = of.iter().map(|(s, logit)| (*s, logit + shift)).unzip();
        (vocabulary(&strings, &[]), logits)
    }

    /// P over U in the order cat, dog, do, bird, with the two members' rows.
    fn votes(duplicates: Duplicates, shift: f32) -> (Vec<[f64; 3]>, Symbol) {
        let ((v1, l1), (v2, l2)) = (split(&M1, 0.0), split(&M2, shift));
        let spell =
            [|bytes: &[u8]| longest(&split(&M1, 0.0).0, bytes), |bytes: &[u8]| longest(&split(&M2, 0.0).0, bytes)];
        let row = |vocabulary, logits, spell| Row { vocabulary, logits, spell };
        let rows = [row(&v1, &l1[..], &spell[0]), row(&v2, &l2[..], &spell[1])];
        let union = union(&rows, 2, EndSymbol::Counts);
        assert_eq!(union.len(), 4);
        let scores: Vec<_> = rows.iter().map(|row| scores(row, &union, duplicates)).collect();
        let (votes, silent) = combine(union, &scores, &[0.5, 0.5]);
        assert_eq!(silent, 0);
        let of = |string: &str| {
            let vote = votes.iter().find(|vote| vote.symbol == text(string)).unwrap();
            [vote.members[0], vote.members[1], vote.p]
        };
        ([" cat", " dog", " do", " bird"].map(of).to_vec(), votes[0].symbol.clone())
    }

    #[test]
    fn the_three_policies_for_duplicates() {
        let expected = [
            (
                Duplicates::Keep,
                [0.048312, 0.436017, 0.436017, 0.079653],
                [0.328886, 0.330113, 0.286003, 0.054998],
                " dog",
            ),
            (
                Duplicates::RepoZero,
                [0.083045, 0.030551, 0.749485, 0.136919],
                [0.346253, 0.127379, 0.442737, 0.083631],
                " do",
            ),
            (Duplicates::Exclude, [0.085662, 0.0, 0.773104, 0.141233], [0.347561, 0.112104, 0.454547, 0.085788], " do"),
        ];
        for (duplicates, second, average, winner) in expected {
            let (rows, first) = votes(duplicates, 0.0);
            for (at, m1) in [0.609460, 0.224208, 0.135989, 0.030343].into_iter().enumerate() {
                assert!(close(rows[at][0], m1), "{duplicates:?} {rows:?}");
                assert!(close(rows[at][1], second[at]), "{duplicates:?} {rows:?}");
                assert!(close(rows[at][2], average[at]), "{duplicates:?} {rows:?}");
            }
            assert_eq!(first, text(winner));
        }
    }

    #[test]
    fn a_constant_on_all_logits_changes_nothing_unless_zero_is_one_of_them() {
        for duplicates in [Duplicates::Keep, Duplicates::Exclude] {
            let (rows, shifted) = (votes(duplicates, 0.0).0, votes(duplicates, -40.0).0);
            for (a, b) in rows.iter().flatten().zip(shifted.iter().flatten()) {
                assert!((a - b).abs() < 1e-6, "{duplicates:?}");
            }
        }
        // The trap: dog gets a logit of 0 where all others are far below.
        let (rows, first) = votes(Duplicates::RepoZero, -40.0);
        assert!(rows[1][1] > 0.999_999 && first == text(" dog"));
    }

    #[test]
    fn gac_and_prefix_masses() {
        let ((v1, l1), (v2, l2)) = (split(&M1, 0.0), split(&M2, 0.0));
        let vocabularies = [&v1, &v2];
        let universe = gac::Universe::of(&vocabularies);
        let votes = universe.votes(&vocabularies, &[Some(&l1), Some(&l2)], &[0.5, 0.5], EndSymbol::Counts, 20);
        let p = |string| votes.iter().find(|vote| vote.symbol == text(string)).unwrap().p;
        for (string, expected) in [(" do", 0.380940), (" cat", 0.322999), (" dog", 0.103297), (" bird", 0.069592)] {
            assert!(close(p(string), expected), "{string}: {}", p(string));
        }
        assert_eq!(votes[0].symbol, text(" do"));
        assert_eq!(votes.len(), 12, "every string of either model");
        assert!(close(votes.iter().map(|vote| vote.p).sum(), 1.0));
        let mass = |vocabulary: &ByteVocabulary, logits: &[f32], prefix: &str| -> f64 {
            let p = gac::probabilities(vocabulary, logits, EndSymbol::Counts);
            vocabulary.with_prefix(prefix.as_bytes()).map(|string| p[string as usize]).sum()
        };
        for (prefix, m1, m2) in [(" c", 0.637581, 0.084419), (" d", 0.331899, 0.773306), (" b", 0.027959, 0.139183)] {
            assert!(close(mass(&v1, &l1, prefix), m1) && close(mass(&v2, &l2, prefix), m2), "{prefix}");
        }
    }
}

#[test]
fn ids_with_equal_bytes_add_up() {
    let vocabulary = vocabulary(&["a", "a", "b"], &[]);
    let logits = [1.0, 1.0, 1.5];
    assert!(close(logit(&vocabulary, &logits, &text("a")).unwrap(), 1.693147));
    assert_eq!(top(&vocabulary, &logits, 1, EndSymbol::Counts)[0].0, text("a"));
    assert_eq!(logit(&vocabulary, &logits, &text("c")), None);
    assert_eq!(logit(&vocabulary, &logits, &Symbol::End), None);
}

/// Next tokens by path; what is not in the table is impossible.
struct Table {
    ids: usize,
    end: u32,
    next: HashMap<Vec<u32>, Vec<(u32, f64)>>,
    /// Which token may follow which.
    allowed: fn(u32, u32) -> bool,
    vocabulary: ByteVocabulary,
}

impl Table {
    fn masses_of(&self, path: &[u32]) -> Masses {
        let mut by_string = vec![0.0; self.vocabulary.len() + 1];
        for (id, p) in self.next.get(path).into_iter().flatten() {
            let allowed = path.last().is_none_or(|last| *id == self.end || (self.allowed)(*last, *id));
            match self.vocabulary.string_of(*id) {
                Some(string) if allowed => by_string[string as usize] += p,
                None if *id == self.end => by_string[self.vocabulary.len()] += p,
                _ => {}
            }
        }
        assert!(self.ids > self.end as usize);
        Masses::new(&by_string)
    }

    fn beam(&self) -> Beam {
        Beam::new(&self.vocabulary, Vec::new(), self.masses_of(&[]), 0.0)
    }
}

impl Language for &Table {
    fn masses(&mut self, paths: &[Vec<u32>], _: &[&[u32]]) -> Result<Vec<Masses>, DecodeError> {
        Ok(paths.iter().map(|path| self.masses_of(path)).collect())
    }
}

/// Every cover is followed.
const EXACT: Covers =
    Covers { mixture: Mixture::Arithmetic, tokenisations: Tokenisations::All, beam: 1 << 20, prune: 0.0 };

fn after(table: &Table, bytes: &[u8]) -> (NextByte, f64) {
    let mut beam = table.beam();
    for byte in bytes {
        beam.push(*byte, &table.vocabulary, &EXACT, &mut &*table).unwrap();
    }
    (beam.next(&table.vocabulary), beam.log_p())
}

/// Example D: the rule of CharED, the exact one, and the exact one on canonical spellings.
mod example_d {
    use super::*;

    const END: u32 = 4;

    fn m1(allowed: fn(u32, u32) -> bool) -> Table {
        let vocabulary = vocabulary(&["a", "b", "ab", "c", "</s>"], &[END]);
        let next = HashMap::from([
            (vec![], vec![(2, 0.5), (0, 0.2), (1, 0.3)]),
            (vec![0], vec![(0, 0.1), (1, 0.3), (2, 0.4), (END, 0.2)]),
        ]);
        Table { ids: 5, end: END, next, allowed, vocabulary }
    }

    fn m2() -> Table {
        let vocabulary = vocabulary(&["a", "b", "bc", "c", "</s>"], &[END]);
        let next = HashMap::from([(vec![], vec![(0, 0.6), (2, 0.4)]), (vec![0], vec![(1, 0.5), (3, 0.3), (END, 0.2)])]);
        Table { ids: 5, end: END, next, allowed: |_, _| true, vocabulary }
    }

    fn p(next: &NextByte, byte: u8) -> f64 {
        next.bytes[usize::from(byte)]
    }

    #[test]
    fn first_byte() {
        let next = [after(&m1(|_, _| true), b"").0, after(&m2(), b"").0];
        assert!(close(p(&next[0], b'a'), 0.7) && close(p(&next[1], b'a'), 0.6));
        let (votes, _) = mix(&next, &[0.0, 0.0], &[0.5, 0.5], Mixture::Arithmetic);
        assert_eq!(votes[0].symbol, text("a"));
        assert!(close(votes[0].p, 0.65) && close(votes[1].p, 0.35));
    }

    #[test]
    fn the_exact_rule_goes_on_with_b() {
        let next = [after(&m1(|_, _| true), b"a").0, after(&m2(), b"a").0];
        assert!(close(p(&next[0], b'b'), 0.8) && close(p(&next[0], b'a'), 0.142857) && close(next[0].end, 0.057143));
        let (votes, _) = mix(&next, &[0.0, 0.0], &[0.5, 0.5], Mixture::Arithmetic);
        let of = |symbol: &Symbol| votes.iter().find(|vote| vote.symbol == *symbol).unwrap().p;
        for (symbol, expected) in [(text("b"), 0.65), (text("c"), 0.15), (Symbol::End, 0.128571), (text("a"), 0.071429)]
        {
            assert!(close(of(&symbol), expected), "{symbol:?}");
        }
        assert_eq!(votes[0].symbol, text("b"));
    }

    #[test]
    fn canonical_spellings_only() {
        // a followed by b would have been ab.
        let next = after(&m1(|last, next| (last, next) != (0, 1)), b"a").0;
        assert!(close(p(&next, b'b'), 0.78125) && close(p(&next, b'a'), 0.15625) && close(next.end, 0.0625));
    }

    #[test]
    fn chared_votes_for_the_end_of_the_token() {
        let (t1, t2) = (m1(|_, _| true), m2());
        let mut tables = [
            chared::Table::new(&t1.vocabulary, t1.masses_of(&[])),
            chared::Table::new(&t2.vocabulary, t2.masses_of(&[])),
        ];
        tables.iter_mut().for_each(|table| table.push(b'a'));
        let [(next1, end1), (next2, end2)] = [tables[0].next(), tables[1].next()];
        assert!(close(p(&next1, b'b'), 0.714286) && close(end1, 0.285714));
        assert!(close(end2, 1.0) && next2.is_silent());
        assert!(close(0.5 * (end1 + end2), 0.642857) && close(0.5 * p(&next1, b'b'), 0.357143));
    }
}

/// Example E: averages of bytes against averages of strings.
mod example_e {
    use super::*;

    fn table(first: f64, after_a: f64, after_b: f64) -> Table {
        let vocabulary = vocabulary(&["a", "b", "</s>"], &[2]);
        let next = |p: f64| vec![(0, p), (1, 1.0 - p)];
        let table = [(vec![], next(first)), (vec![0], next(after_a)), (vec![1], next(after_b))];
        let ends = [[0, 0], [0, 1], [1, 0], [1, 1]].map(|path| (path.to_vec(), vec![(2, 1.0)]));
        Table { ids: 3, end: 2, next: table.into_iter().chain(ends).collect(), allowed: |_, _| true, vocabulary }
    }

    /// Probabilities of aa, ab, ba, bb under a mixture.
    fn strings(mixture: Mixture) -> [f64; 4] {
        let tables = [table(0.9, 0.9, 0.5), table(0.1, 0.1, 0.2)];
        ["aa", "ab", "ba", "bb"].map(|string| {
            let factor = |at: usize| {
                let (next, log_p): (Vec<_>, Vec<_>) =
                    tables.iter().map(|table| after(table, &string.as_bytes()[..at])).unzip();
                let (votes, _) = mix(&next, &log_p, &[0.5, 0.5], mixture);
                votes.iter().find(|vote| vote.symbol == text(&string[at..=at])).unwrap().p
            };
            factor(0) * factor(1)
        })
    }

    #[test]
    fn posterior_weights_are_the_mixture_of_strings() {
        let expected = [
            (Mixture::Arithmetic, [0.25, 0.25, 0.175, 0.325]),
            (Mixture::Posterior, [0.41, 0.09, 0.115, 0.385]),
            (Mixture::Geometric, [0.25, 0.25, 0.166667, 0.333333]),
        ];
        for (mixture, expected) in expected {
            let found = strings(mixture);
            for (found, expected) in found.iter().zip(expected) {
                assert!(close(*found, expected), "{mixture:?}: {found} for {expected}");
            }
        }
        let distance: f64 = strings(Mixture::Posterior)
            .iter()
            .zip(strings(Mixture::Arithmetic))
            .map(|(a, b)| (a - b).abs() / 2.0)
            .sum();
        assert!(close(distance, 0.22));
    }
}

proptest! {
    /// The beam against the definition: all token sequences that cover the text, summed.
    #[test]
    fn covers_are_all_spellings(
        weights in proptest::collection::vec(0.01f64..1.0, 40),
        string in "[ab]{0,3}",
    ) {
        let strings = ["a", "b", "ab", "ba", "aab", "</s>"];
        let tokens = 6;
        let mut at = 0;
        let mut next = HashMap::new();
        let mut paths = vec![Vec::new()];
        while let Some(path) = paths.pop() {
            let of: Vec<f64> = (0..tokens).map(|i| weights[(at + i) % 40]).collect();
            at += 7;
            let total: f64 = of.iter().sum();
            next.insert(path.clone(), (0..tokens as u32).map(|id| (id, of[id as usize] / total)).collect::<Vec<_>>());
            if path.len() < 4 {
                paths.extend((0..5u32).map(|id| [&path[..], &[id]].concat()));
            }
        }
        let table = Table { ids: tokens, end: 5, next, allowed: |_, _| true, vocabulary: vocabulary(&strings, &[5]) };
        // By the definition: extend whole tokens while they are inside the text, and stop at those that reach beyond.
        let mut bytes = [0.0; 256];
        let mut end = 0.0;
        let mut prefix = 0.0;
        let mut open = vec![(Vec::<u32>::new(), 0usize, 1.0f64)];
        while let Some((path, length, p)) = open.pop() {
            for (id, of) in &table.next[&path] {
                if *id == 5 {
                    if length == string.len() {
                        end += p * of;
                        prefix += p * of;
                    }
                    continue;
                }
                let token = strings[*id as usize].as_bytes();
                let rest = &string.as_bytes()[length..];
                if token.len() > rest.len() && token.starts_with(rest) {
                    bytes[usize::from(token[rest.len()])] += p * of;
                    prefix += p * of;
                } else if rest.starts_with(token) {
                    open.push(([&path[..], &[*id]].concat(), length + token.len(), p * of));
                }
            }
        }
        let (next, log_p) = after(&table, string.as_bytes());
        let total: f64 = bytes.iter().sum::<f64>() + end;
        prop_assert!((next.end - end / total).abs() < 1e-12);
        for (found, expected) in next.bytes.iter().zip(bytes) {
            prop_assert!((found - expected / total).abs() < 1e-12);
        }
        prop_assert!((log_p - prefix.ln()).abs() < 1e-12);
    }

    /// The quick search against sorting everything.
    #[test]
    fn the_top_is_the_top(
        logits in proptest::collection::vec((-8i8..8).prop_map(f32::from), 600),
        k in 1usize..20,
    ) {
        // Every fifth id shares its bytes with another one, every seventh has none.
        let bytes = |id: usize| match id {
            0 => Some(b"</s>".to_vec()),
            _ if id.is_multiple_of(7) => None,
            _ if id.is_multiple_of(5) => Some(format!("s{}", id / 50).into_bytes()),
            _ => Some(format!("t{id}").into_bytes()),
        };
        let vocabulary = ByteVocabulary::from_bytes((0..600).map(bytes), &[0]);
        let mut all: Vec<(Symbol, f64)> = (0..vocabulary.len() as u32)
            .map(|string| Symbol::Text(vocabulary.string(string).to_vec()))
            .chain([Symbol::End])
            .map(|symbol| { let z = logit(&vocabulary, &logits, &symbol).unwrap(); (symbol, z) })
            .collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(k);
        prop_assert_eq!(top(&vocabulary, &logits, k, EndSymbol::Counts), all);
    }
}
