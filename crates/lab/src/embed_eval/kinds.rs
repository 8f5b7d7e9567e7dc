//! What is compared with what: the vectors that are made of hidden states (HS) and router weights (RW), each beside its controls.

use lathe_measure::embedding::{
    Moments, Vectors, closed_form_alpha, concatenated, cosine, joined, random_projection, searched_alpha,
};
use lathe_measure::statistics::item_generator;
use lathe_measure::{Measured, Number};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::asked::{Asked, CandidateList, Query, Search, Summarised, What};
use crate::Error;
use crate::embed::{Alpha, Features};

/// Pairs whose similarities decide on α at most; more are drawn from.
const ALPHA_PAIRS: usize = 10_000;
/// Draws those, apart from everything else that the seed of a run draws.
const ALPHA_STREAM: u64 = u64::MAX - 1;

/// A kind of vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Hidden,
    HiddenStandardised,
    HiddenProjected,
    Router,
    RouterStandardised,
    Concatenated,
    ConcatenatedStandardised,
    Sum,
    SumStandardised,
}

/// Vectors of one kind, one for each text of a task.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) vectors: Vectors,
    /// Of a sum.
    pub(super) alpha: Option<Number>,
}

impl Kind {
    /// Those of a model: with routers or without.
    pub(super) fn of(features: &Features) -> &'static [Self] {
        const ALL: [Kind; 9] = [
            Kind::Hidden,
            Kind::HiddenStandardised,
            Kind::HiddenProjected,
            Kind::Router,
            Kind::RouterStandardised,
            Kind::Concatenated,
            Kind::ConcatenatedStandardised,
            Kind::Sum,
            Kind::SumStandardised,
        ];
        if features.router.is_some() { &ALL } else { &ALL[..3] }
    }

    /// Its name in files.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hidden => "hs",
            Self::HiddenStandardised => "hs_standardised",
            Self::HiddenProjected => "hs_projected",
            Self::Router => "rw",
            Self::RouterStandardised => "rw_standardised",
            Self::Concatenated => "concat",
            Self::ConcatenatedStandardised => "concat_standardised",
            Self::Sum => "sum",
            Self::SumStandardised => "sum_standardised",
        }
    }

    /// Its name in tables.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Hidden => "HS",
            Self::HiddenStandardised => "HS, standardised",
            Self::HiddenProjected => "HS, projected at random",
            Self::Router => "RW",
            Self::RouterStandardised => "RW, standardised",
            Self::Concatenated => "concat",
            Self::ConcatenatedStandardised => "concat, standardised",
            Self::Sum => "sum",
            Self::SumStandardised => "sum, standardised",
        }
    }

    /// Makes the vectors. `Ok(Err(..))` is a sum without α: similarities that are all equal have no spread to balance.
    ///
    /// # Errors
    /// Features cannot be standardised: there is one text, or a number overflows.
    pub(super) fn made(
        self,
        features: &Features,
        asked: &Asked,
        alpha: Alpha,
        seed: u64,
    ) -> Result<Result<Made, Number>, Error> {
        let hidden = &features.hidden;
        let router = || features.router.as_ref().ok_or_else(|| missing(self));
        let plain = |vectors| Ok(Ok(Made { vectors, alpha: None }));
        match self {
            Self::Hidden => plain(hidden.clone()),
            Self::HiddenStandardised => plain(standardised(hidden)?),
            Self::HiddenProjected => {
                let width = features.router.as_ref().map_or(hidden.width(), Vectors::width);
                plain(random_projection(hidden, width, seed))
            }
            Self::Router => plain(router()?.clone()),
            Self::RouterStandardised => plain(standardised(router()?)?),
            Self::Concatenated => plain(concatenated(hidden, router()?)?),
            Self::ConcatenatedStandardised => plain(concatenated(&standardised(hidden)?, &standardised(router()?)?)?),
            Self::Sum => summed(hidden, router()?, asked, alpha, seed),
            Self::SumStandardised => summed(&standardised(hidden)?, &standardised(router()?)?, asked, alpha, seed),
        }
    }
}

fn missing(kind: Kind) -> Error {
    Error::Spec { field: "MODEL", problem: format!("a model without routers has no {}", kind.label()), hint: None }
}

/// By mean and deviation of all texts of the task, which no label enters.
fn standardised(of: &Vectors) -> Result<Vectors, Error> {
    Ok(Moments::of(of)?.standardised(of)?)
}

fn summed(
    hidden: &Vectors,
    router: &Vectors,
    asked: &Asked,
    alpha: Alpha,
    seed: u64,
) -> Result<Result<Made, Number>, Error> {
    let pairs = similar_pairs(asked, seed);
    let similarities =
        |of: &Vectors| pairs.par_iter().map(|[a, b]| cosine(of.row(*a), of.row(*b))).collect::<Vec<f64>>();
    let alpha = match alpha {
        Alpha::Fixed(alpha) => Number::from(alpha),
        Alpha::Auto => closed_form_alpha(&similarities(hidden), &similarities(router)),
        Alpha::Search => searched_alpha(&similarities(hidden), &similarities(router)),
    };
    match alpha {
        Measured::Value(value) => Ok(Ok(Made { vectors: joined(hidden, router, value)?, alpha: Some(alpha) })),
        undefined @ Measured::Undefined(_) => Ok(Err(undefined)),
    }
}

/// Pairs of texts whose similarities the task is about: those that it compares, or of a task that compares none, any two.
fn similar_pairs(asked: &Asked, seed: u64) -> Vec<[usize; 2]> {
    let mut generator = item_generator(seed, ALPHA_STREAM);
    let below = |generator: &mut ChaCha8Rng, n: usize| generator.random_range(0..n as u64) as usize;
    let mut drawn = |one: &dyn Fn(&mut ChaCha8Rng) -> [usize; 2]| -> Vec<[usize; 2]> {
        (0..ALPHA_PAIRS).map(|_| one(&mut generator)).collect()
    };
    let texts = asked.texts.len();
    let pairs: Vec<[usize; 2]> = match &asked.what {
        What::Pairs(pairs) => pairs.iter().map(|pair| pair.texts).collect(),
        What::SamePairs(pairs) => pairs.iter().map(|pair| pair.texts).collect(),
        What::Lists(lists) => {
            let of_list = |list: &CandidateList| {
                let candidates = || list.positive.iter().chain(&list.negative);
                let pairs = list.queries.iter().flat_map(|query| candidates().map(|candidate| [*query, *candidate]));
                pairs.collect::<Vec<_>>()
            };
            lists.iter().flat_map(of_list).collect()
        }
        What::Summaries(all) => {
            let of_one = |one: &Summarised| {
                let pairs = one.machine.iter().flat_map(|machine| one.human.iter().map(|human| [*machine, *human]));
                pairs.collect::<Vec<_>>()
            };
            all.iter().flat_map(of_one).collect()
        }
        What::Search(Search { documents, queries }) if queries.len() * documents.len() <= ALPHA_PAIRS => {
            let of_query =
                |query: &Query| documents.iter().map(|document| [query.text, document.text]).collect::<Vec<_>>();
            queries.iter().flat_map(of_query).collect()
        }
        What::Search(Search { documents, queries }) => drawn(&|generator| {
            let (query, document) = (below(generator, queries.len()), below(generator, documents.len()));
            [queries[query].text, documents[document].text]
        }),
        What::Classes(_) | What::Sets(_) if texts < 2 => Vec::new(),
        What::Classes(_) | What::Sets(_) => drawn(&|generator| {
            let first = below(generator, texts);
            // Any but the first.
            [first, (first + 1 + below(generator, texts - 1)) % texts]
        }),
    };
    if pairs.len() <= ALPHA_PAIRS {
        return pairs;
    }
    drawn(&|generator| pairs[below(generator, pairs.len())])
}
