//! The worked examples of the method page (4.7, 5.5, 5.6), properties of the methods on tables, and texts of tiny models.

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
        let row = |vocabulary, logits, spell| Row { vocabulary, logits, weight: 0.5, spell };
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

/// Tiny models with invented vocabularies that spell the same bytes differently.
mod models {
    use super::*;

    fn decoder(fixture: &str) -> Decoder {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity").join(fixture);
        open(&folder).unwrap().decoder(Weights::Frozen).unwrap()
    }

    /// Letters, a space, and in one of two ways longer tokens; the first id ends a text.
    fn strings(decoder: &Decoder, step: usize) -> ByteVocabulary {
        let alphabet = b"abcde \n\xC3";
        let bytes = |id: usize| match id {
            0 => Some(b"</s>".to_vec()),
            1 => None,
            _ if id < 10 => Some(vec![alphabet[id - 2]]),
            _ => {
                let n = (id - 10) * step;
                let letter = |n: usize| alphabet[n % 6];
                Some((0..2 + n % 3).map(|at| letter(n / 3 + n / (at + 2) + at * step)).collect())
            }
        };
        // Ids with equal bytes are one string: a model alone would tell them apart.
        let mut seen = std::collections::HashSet::new();
        let bytes = (0..decoder.spec().vocab_size - 3).map(bytes).map(|of| of.filter(|of| seen.insert(of.clone())));
        ByteVocabulary::from_bytes(bytes, &[0])
    }

    /// Two models, each with its vocabulary.
    struct Pair {
        decoders: [Decoder; 2],
        vocabularies: [ByteVocabulary; 2],
    }

    impl Pair {
        fn of(first: &str, second: &str) -> Self {
            let decoders = [decoder(first), decoder(second)];
            let vocabularies = [strings(&decoders[0], 1), strings(&decoders[1], if first == second { 1 } else { 5 })];
            Self { decoders, vocabularies }
        }

        fn write(&self, members: &[usize], plan: &Plan) -> EnsembleText {
            let spell: Vec<_> =
                members.iter().map(|at| |bytes: &[u8]| longest(&self.vocabularies[*at], bytes)).collect();
            let of = members.iter().zip(&spell).map(|(at, spell)| Member {
                decoder: &self.decoders[*at],
                vocabulary: &self.vocabularies[*at],
                spell,
            });
            let ensemble = Ensemble::new(of.collect(), &|| 0.0);
            let mut memory = Memory::default();
            let prompts: Vec<Vec<u32>> = members.iter().map(|at| vec![5 + *at as u32 * 3, 9, 4]).collect();
            let mut heard = Vec::new();
            let text = ensemble.write(plan, 3, &prompts, &mut memory, &mut |_, bytes| {
                heard.extend_from_slice(bytes);
                ControlFlow::Continue(())
            });
            let text = text.unwrap_or_else(|error| panic!("{:?}: {error:?}", plan.method)).unwrap();
            assert_eq!(heard, text.text);
            // What was read once does not change what is written next.
            let again =
                ensemble.write(plan, 3, &prompts, &mut memory, &mut |_, _| ControlFlow::Continue(())).unwrap().unwrap();
            assert_eq!(again, text);
            text
        }

        /// The first model alone, token by token.
        fn greedy(&self, max_tokens: usize) -> Vec<u8> {
            let vocabulary = &self.vocabularies[0];
            let bytes = |id: u32| vocabulary.string_of(id).map_or(Vec::new(), |s| vocabulary.string(s).to_vec());
            let writer = Writer { decoder: &self.decoders[0], bytes: &bytes, batch: 1 };
            let without: Vec<u32> = (0..self.decoders[0].spec().vocab_size as u32)
                .filter(|id| vocabulary.string_of(*id).is_none())
                .collect();
            // Ids without bytes are impossible in an ensemble.
            let stops = Stops { end_tokens: Vec::new(), ids: without, strings: Vec::new() };
            let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
            let decoding = Decoding { sampling, stops, min_tokens: max_tokens, max_tokens, ..Decoding::default() };
            let mut text = Vec::new();
            let request = Request { item: 3, prompt: vec![5, 9, 4] };
            generate(&writer, &decoding, [request], &mut |event| {
                if let Event::Finished(generation) = event {
                    text = generation.text;
                }
                ControlFlow::Continue(())
            })
            .unwrap();
            text
        }
    }

    fn methods() -> Vec<Method> {
        let unite = Unite { k: 4, ..Unite::default() };
        let whole = Unite { missing: unite::Missing::WholeString, ..unite };
        let bytes = |mixture| Method::Bytes(Covers { mixture, ..Covers::default() });
        vec![
            Method::Unite(unite),
            Method::Unite(whole),
            Method::Gac,
            bytes(Mixture::Arithmetic),
            bytes(Mixture::Geometric),
            bytes(Mixture::Posterior),
            Method::Chared,
        ]
    }

    fn plan(method: Method, weights: &[f64]) -> Plan {
        Plan {
            method,
            weights: weights.to_vec(),
            gate: None,
            temperature: 0.0,
            seed: 1,
            stops: Vec::new(),
            ends: EndSymbol::Excluded,
            max_tokens: 12,
            votes: 3,
        }
    }

    #[test]
    fn equal_models_write_what_one_would() {
        let pair = Pair::of("llama", "llama");
        let expected = pair.greedy(12);
        for method in [Method::Unite(Unite { k: 4, ..Unite::default() }), Method::Gac] {
            let text = pair.write(&[0, 0], &plan(method, &[0.5, 0.5]));
            assert_eq!((text.text, text.tokens), (expected.clone(), 12), "{method:?}");
            assert_eq!(text.counts.respelt, 0);
        }
        for method in methods() {
            let alone = pair.write(&[0], &plan(method, &[1.0]));
            let both = pair.write(&[0, 0], &plan(method, &[0.3, 0.7]));
            assert_eq!(both.text, alone.text, "{method:?}");
        }
    }

    #[test]
    fn a_weight_of_one_is_that_model() {
        let pair = Pair::of("llama", "qwen2");
        for method in methods() {
            let alone = pair.write(&[0], &plan(method, &[1.0]));
            let weighed = pair.write(&[0, 1], &plan(method, &[1.0, 0.0]));
            assert_eq!(weighed.text, alone.text, "{method:?}");
        }
        let greedy = pair.greedy(12);
        assert_eq!(pair.write(&[0, 1], &plan(Method::Gac, &[2.0, 0.0])).text, greedy);
    }

    #[test]
    fn the_order_of_members_does_not_matter() {
        let pair = Pair::of("llama", "gemma3");
        for method in methods() {
            let [a, b] = [[0, 1], [1, 0]].map(|order| pair.write(&order, &plan(method, &[0.5, 0.5])).text);
            // The first member counts the tokens, so one of them may be longer.
            let common = a.len().min(b.len());
            assert!(common >= 6 && a[..common] == b[..common], "{method:?}");
        }
    }

    #[test]
    fn votes_say_who_wanted_what() {
        let pair = Pair::of("llama", "qwen2");
        for method in methods() {
            let text = pair.write(&[0, 1], &plan(method, &[0.5, 0.5]));
            assert!(!text.steps.is_empty());
            for step in &text.steps {
                assert_eq!(step.symbol, step.votes[0].symbol);
                assert!(step.votes.len() <= 3 && step.votes.is_sorted_by(|a, b| a.p >= b.p));
                assert!(step.votes.iter().all(|vote| vote.members.len() == 2 && vote.p <= 1.0 + 1e-12), "{step:?}");
            }
            let bytes: Vec<u8> = text
                .steps
                .iter()
                .flat_map(|step| if let Symbol::Text(bytes) = &step.symbol { bytes.clone() } else { Vec::new() })
                .collect();
            assert_eq!(bytes, text.text);
        }
    }

    #[test]
    fn behind_the_gate_equal_models_never_vote() {
        let pair = Pair::of("llama", "llama");
        let expected = pair.greedy(12);
        for method in [Method::Unite(Unite::default()), Method::Gac, Method::Bytes(Covers::default()), Method::Chared] {
            let gated = Plan { gate: Some(Safe::default()), ..plan(method, &[0.5, 0.5]) };
            let text = pair.write(&[0, 0], &gated);
            assert_eq!((text.text, text.counts.ensembled), (expected.clone(), 0), "{method:?}");
        }
    }

    #[test]
    fn behind_the_gate_other_models_do() {
        let pair = Pair::of("llama", "qwen2");
        for method in methods() {
            for sharpen in [Sharpen::Nothing, Sharpen::Prefix, Sharpen::Geometric] {
                let gate = Some(Safe { draft: 3, sharpen });
                let text = pair.write(&[0, 1], &Plan { gate, ..plan(method, &[0.5, 0.5]) });
                assert!(text.counts.ensembled > 0 && text.tokens >= 9, "{method:?} {:?}", text.counts);
            }
        }
    }

    #[test]
    fn one_token_is_a_whole_one() {
        let pair = Pair::of("llama", "qwen2");
        for method in methods() {
            let text = pair.write(&[0, 1], &Plan { max_tokens: 1, ..plan(method, &[0.5, 0.5]) });
            let spelt = longest(&pair.vocabularies[0], &text.text).unwrap();
            assert!(!text.text.is_empty() && spelt.len() <= text.text.len());
            if matches!(method, Method::Bytes(_) | Method::Chared) {
                assert_eq!((text.tokens, spelt.len(), text.ended), (1, 1, EnsembleEnd::Length), "{method:?}");
            }
        }
    }

    #[test]
    fn inside_a_token_of_another_model_nobody_votes() {
        let decoder = decoder("llama");
        let vocabulary = vocabulary(&["</s>", "So", "fia", "Sofia", " ", "x"], &[0]);
        let spell = |bytes: &[u8]| longest(&vocabulary, bytes);
        let member = Member { decoder: &decoder, vocabulary: &vocabulary, spell: &spell };
        let mut cache = PrefixCache::new(decoder.spec(), 1);
        let mut view = View::new(&member, &mut cache, &[4]);
        view.read(b"Sofia").unwrap();
        assert!(view.has_boundary(0) && !view.has_boundary(2) && view.has_boundary(5));
        assert_eq!(view.tokens(), 1);
        // What it wrote itself stays as it was written.
        view.truncate(0);
        view.push_own(1, b"So");
        assert!(view.has_boundary(2));
        assert_eq!(view.spell(b"So", b"fia").unwrap(), [2]);
        assert_eq!(view.read(b"Sofia"), Some(true));
        assert!(!view.has_boundary(2));
    }

    #[test]
    fn texts_end_by_symbol_stop_string_length_and_context() {
        let pair = Pair::of("llama", "qwen2");
        for method in methods() {
            let long = pair.write(&[0, 1], &plan(method, &[0.5, 0.5]));
            assert_eq!(long.ended, EnsembleEnd::Length);
            let stop = String::from_utf8_lossy(&long.text[3..4]).into_owned();
            let stopped = pair.write(&[0, 1], &Plan { stops: vec![stop.clone()], ..plan(method, &[0.5, 0.5]) });
            assert_eq!(stopped.ended, EnsembleEnd::StopString { string: stop }, "{method:?}");
            assert!(long.text.starts_with(&stopped.text) && stopped.text.len() <= 3);
            let context = pair.decoders.iter().map(|d| d.spec().context_length).min().unwrap();
            let full = pair.write(&[0, 1], &Plan { max_tokens: 10 * context, votes: 0, ..plan(method, &[0.5, 0.5]) });
            assert!(matches!(full.ended, EnsembleEnd::ContextFull { .. }), "{method:?}");
        }
    }

    #[test]
    fn whole_strings_have_the_probability_of_their_tokens() {
        let decoder = decoder("llama");
        let vocabulary = strings(&decoder, 1);
        let spell = |bytes: &[u8]| longest(&vocabulary, bytes);
        let member = Member { decoder: &decoder, vocabulary: &vocabulary, spell: &spell };
        let mut cache = PrefixCache::new(decoder.spec(), 1);
        let mut view = View::new(&member, &mut cache, &[4, 7]);
        let log_softmax = |logits: &[f32]| -> Vec<f64> {
            let total = unite::log_sum_exp(logits.iter().map(|l| f64::from(*l)));
            logits.iter().map(|l| f64::from(*l) - total).collect()
        };
        let first = log_softmax(&view.logits(1, 0).unwrap()[0]);
        let strings = [vec![5], vec![8, 2, 3], vec![8, 9]];
        let found = view.whole(&strings, &first).unwrap();
        for (ids, found) in strings.iter().zip(found) {
            let all = [&[4, 7][..], ids].concat();
            let hidden = decoder.forward(&Batch::single(&all), None, &mut NoTap).unwrap();
            let logits = decoder.logits(&hidden).unwrap().to_vec2::<f32>().unwrap();
            let expected: f64 = ids.iter().enumerate().map(|(at, id)| log_softmax(&logits[1 + at])[*id as usize]).sum();
            assert!((found - expected).abs() < 1e-5, "{found} for {expected}");
        }
    }

    #[test]
    fn draws_follow_the_combined_distribution_and_their_seed() {
        let pair = Pair::of("llama", "qwen2");
        for method in methods() {
            let drawn = Plan { temperature: 1.0, ..plan(method, &[0.5, 0.5]) };
            let [a, b, other] =
                [drawn.clone(), drawn.clone(), Plan { seed: 2, ..drawn }].map(|plan| pair.write(&[0, 1], &plan).text);
            assert_eq!(a, b);
            assert_ne!(a, other, "{method:?}");
        }
    }

    #[test]
    fn plans_that_cannot_be_are_refused() {
        let unite = Method::Unite(Unite::default());
        let good = plan(unite, &[0.5, 0.5]);
        let bad = [
            Plan { weights: vec![1.0], ..good.clone() },
            Plan { weights: vec![1.0, -1.0], ..good.clone() },
            Plan { weights: vec![0.0, 0.0], ..good.clone() },
            Plan { weights: vec![1.0, f64::NAN], ..good.clone() },
            Plan { temperature: -1.0, ..good.clone() },
            Plan { max_tokens: 0, ..good.clone() },
            Plan { stops: vec![String::new()], ..good.clone() },
            Plan { method: Method::Unite(Unite { k: 0, ..Unite::default() }), ..good.clone() },
            Plan { method: Method::Bytes(Covers { beam: 0, ..Covers::default() }), ..good.clone() },
            Plan { method: Method::Bytes(Covers { prune: 1.0, ..Covers::default() }), ..good.clone() },
            Plan { gate: Some(Safe { draft: 0, ..Safe::default() }), ..good.clone() },
            Plan { gate: Some(Safe::default()), temperature: 1.0, ..good.clone() },
        ];
        good.check(2).unwrap();
        for plan in bad {
            let error = plan.check(2).unwrap_err();
            assert!(matches!(error, DecodeError::Option { .. }), "{plan:?}");
            assert!(error.hint().is_some());
        }
    }
}
