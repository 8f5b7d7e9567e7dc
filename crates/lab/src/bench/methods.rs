//! What the methods cost, beside the forward pass that they need.
//!
//! Where a method is compared with a pass, the two are timed in turn, so that a machine that slows down slows both.

use std::hint::black_box;

use lathe_measure::attention::SpanPlan;
use lathe_measure::run::{Document, Watch, attention_of_text, key_window, score_documents};
use lathe_measure::spectrum::{HiddenStates, Metric, NullCache, SpectrumOptions, spectrum};
use lathe_measure::tokens::TargetKind;
use lathe_model::{Batch, Decoder, LoraScaling, LoraSpec, NoTap, Opened, Recompute, Trainable, TrainingPass, Weights};
use serde::Serialize;

use super::{Training, arbitrary_ids, median};
use crate::load::Loaded;
use crate::{Compute, Context, Error};

/// Tokens that are scored, and whose hidden states are measured.
const TEXT: usize = 512;

/// Tokens of the text whose attention is summed.
const ATTENTION_TEXT: usize = 2048;

/// Sequences of a training step, and tokens of each.
const TRAINING: (usize, usize) = (4, 256);

/// Width of the states that come from no model.
const WIDE: usize = 2048;

/// A Matrix Nuclear-Norm takes less than a millisecond: a run is so many of them.
const REPEATS: usize = 20;

/// Rows of one model; progress advances by one for each.
pub(super) const ROWS: usize = 6;

/// One method that was timed.
#[derive(Clone, Debug, Serialize)]
pub struct MethodRow {
    /// What.
    pub what: String,
    /// Tokens of one run.
    pub tokens: usize,
    /// The times; none where the model cannot do it.
    pub timing: Option<Timing>,
    /// The forward pass that it is compared with.
    pub beside: Option<Beside>,
    /// Why it was not timed.
    pub note: Option<String>,
}

/// Times of one piece of work.
#[derive(Clone, Debug, Serialize)]
pub struct Timing {
    /// Tokens a second: the median run.
    pub rate: f64,
    /// The median run, seconds.
    pub median: f64,
    /// The fastest and the slowest run, seconds.
    pub range: [f64; 2],
    /// Seconds of every run, in order.
    pub seconds: Vec<f64>,
}

/// A forward pass that was timed in turn with a method.
#[derive(Clone, Debug, Serialize)]
pub struct Beside {
    /// What.
    pub what: &'static str,
    /// Its times.
    pub timing: Timing,
    /// How the two are compared.
    pub comparison: Comparison,
    /// The comparison of the medians.
    pub share: f64,
}

/// How a method is compared with a forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    /// The method holds a pass: its speed as a share of the pass's.
    Speed,
    /// The method holds a pass: what it adds to the pass's time, as a share of that.
    Added,
    /// The method holds no pass: its time as a share of the pass's.
    Time,
}

/// Times the methods on one model, computed as it was loaded.
pub(super) fn methods(
    loaded: &Loaded,
    compute: Compute,
    runs: usize,
    context: &Context<'_>,
) -> Result<Vec<MethodRow>, Error> {
    let decoder = &loaded.decoder;
    let timer = Timer { runs, context };
    let step = |which| match compute.for_training(context) {
        Ok(weights) => training(&trainable(&loaded.opened, which, weights)?, which, runs, context),
        Err(error) => Ok(MethodRow::skipped(step_of(which), TRAINING.0 * TRAINING.1, error.to_string())),
    };
    let rows: [&dyn Fn() -> Result<MethodRow, Error>; ROWS] = [
        &|| scoring(decoder, timer),
        &|| metric(decoder, Metric::MatrixNuclearNorm, timer),
        &|| metric(decoder, Metric::MatrixEntropy, timer),
        &|| attention(decoder, timer),
        &|| step(Training::Full),
        &|| step(Training::Lora),
    ];
    let timed = rows.iter().map(|row| row().inspect(|_| context.progress.advance(1)));
    timed.collect()
}

/// Times what needs no model.
pub(super) fn without_model(runs: usize, context: &Context<'_>) -> Result<MethodRow, Error> {
    // Any numbers do: those of a multiplicative generator, between -1 and 1.
    let values = std::iter::successors(Some(1u32), |x| Some(x.wrapping_mul(747_796_405).wrapping_add(2_891_336_453)));
    let values: Vec<f32> = values.take(TEXT * WIDE).map(|x| x as f32 / u32::MAX as f32 * 2.0 - 1.0).collect();
    let measure = metric_of(HiddenStates::new(&values, TEXT, WIDE)?, Metric::MatrixNuclearNorm);
    let [timing] = Timer { runs, context }.in_turn(TEXT, [Work { run: &measure, repeats: REPEATS }])?;
    Ok(MethodRow::timed(format!("matrix nuclear norm of {TEXT} x {WIDE}"), TEXT, timing))
}

fn scoring(decoder: &Decoder, timer: Timer<'_, '_>) -> Result<MethodRow, Error> {
    let what = format!("scoring a text of {TEXT} tokens");
    if let Some(note) = too_long(decoder, TEXT + 1) {
        return Ok(MethodRow::skipped(what, TEXT, note));
    }
    let ids = arbitrary_ids(TEXT + 1, decoder.spec().vocab_size);
    let kinds = vec![TargetKind::Ordinary; ids.len()];
    let documents = [Document { bytes: vec![1; ids.len()], kinds, ids, added: 0 }];
    let watch = Watch { seconds: timer.context.seconds, advance: &|_| {} };
    let score = || {
        let scored = score_documents(decoder, &documents, TEXT + 1, watch)?;
        Ok(scored.iter().map(|token| token.predicted(&documents).nll).sum())
    };
    let read = || {
        let hidden = decoder.forward(&Batch::single(&documents[0].ids[..TEXT]), None, &mut NoTap)?;
        let mut first_logits = Vec::new();
        decoder.for_logits(&hidden, |_, logits| f64::from(logits[0]), &mut first_logits)?;
        Ok(first_logits.iter().sum())
    };
    let [timing, pass] = timer.in_turn(TEXT, [Work::once(&score), Work::once(&read)])?;
    Ok(MethodRow::timed(what, TEXT, timing).beside("reading with logits of all", pass, Comparison::Speed))
}

fn metric(decoder: &Decoder, metric: Metric, timer: Timer<'_, '_>) -> Result<MethodRow, Error> {
    let (name, repeats) = match metric {
        Metric::MatrixNuclearNorm => ("matrix nuclear norm", REPEATS),
        Metric::MatrixEntropy => ("matrix entropy", 1),
        Metric::NuclearNorm => ("nuclear norm", 1),
    };
    let what = format!("spectrum: {name} of {TEXT} tokens");
    if let Some(note) = too_long(decoder, TEXT) {
        return Ok(MethodRow::skipped(what, TEXT, note));
    }
    let ids = arbitrary_ids(TEXT, decoder.spec().vocab_size);
    let pass = || decoder.forward(&Batch::single(&ids), None, &mut NoTap);
    let states: Vec<f32> = pass()?.flatten_all()?.to_vec1()?;
    let measure = metric_of(HiddenStates::new(&states, TEXT, states.len() / TEXT)?, metric);
    let read = || Ok(pass()?.dim(0)? as f64);
    let [timing, pass] = timer.in_turn(TEXT, [Work { run: &measure, repeats }, Work::once(&read)])?;
    Ok(MethodRow::timed(what, TEXT, timing).beside("reading without the head", pass, Comparison::Time))
}

/// A metric of states. Its Gaussian null depends on the shape only and is computed once: in the first run, which does
/// not count.
fn metric_of(states: HiddenStates<'_>, metric: Metric) -> impl Fn() -> Result<f64, Error> {
    let nulls = NullCache::new();
    let options = SpectrumOptions { metrics: vec![metric], ..SpectrumOptions::default() };
    move || {
        let measured = spectrum(states, &options, &nulls)?;
        Ok(measured.mnn.value.value().or(measured.entropy_nats.value()).unwrap_or(0.0))
    }
}

fn attention(decoder: &Decoder, timer: Timer<'_, '_>) -> Result<MethodRow, Error> {
    let what = format!("attention column sums of {ATTENTION_TEXT} tokens");
    if let Some(note) = too_long(decoder, ATTENTION_TEXT) {
        return Ok(MethodRow::skipped(what, ATTENTION_TEXT, note));
    }
    let ids = arbitrary_ids(ATTENTION_TEXT, decoder.spec().vocab_size);
    let windows = decoder.spec().layers.iter().map(|layer| key_window(layer.attention.window));
    let plans: Vec<SpanPlan> =
        windows.map(|window| SpanPlan::new(ATTENTION_TEXT, window, &[], &[], 0)).collect::<Result<_, _>>()?;
    let measure = || Ok(attention_of_text(decoder, &ids, &plans)?.heads.len() as f64);
    let read = || Ok(decoder.forward(&Batch::single(&ids), None, &mut NoTap)?.dim(0)? as f64);
    let [timing, pass] = timer.in_turn(ATTENTION_TEXT, [Work::once(&measure), Work::once(&read)])?;
    Ok(MethodRow::timed(what, ATTENTION_TEXT, timing).beside("reading without the head", pass, Comparison::Added))
}

/// A decoder whose training is timed, with weights of [`Compute::for_training`].
pub(super) fn trainable(opened: &Opened, training: Training, weights: Weights) -> Result<Decoder, Error> {
    let targets: &[&str] = match training {
        Training::Full => return Ok(opened.decoder_training(weights, &Trainable::All)?),
        Training::Lora => &["q_proj", "v_proj"],
        Training::LoraAll => &["all-linear"],
    };
    let spec = LoraSpec {
        rank: 8,
        alpha: 16.0,
        scaling: LoraScaling::Classic,
        dropout: 0.0,
        targets: targets.iter().map(|target| (*target).to_owned()).collect(),
        seed: 0,
    };
    Ok(opened.decoder_with_adapter(weights, &spec)?)
}

/// What a step is called.
fn step_of(training: Training) -> String {
    let kind = match training {
        Training::Full => "training step",
        Training::Lora => "lora step",
        Training::LoraAll => "lora step, all layers,",
    };
    format!("{kind} of {} x {} tokens", TRAINING.0, TRAINING.1)
}

/// Forward pass, loss of every token, and the gradients of what is trained.
pub(super) fn training(
    decoder: &Decoder,
    training: Training,
    runs: usize,
    context: &Context<'_>,
) -> Result<MethodRow, Error> {
    let (sequences, length) = TRAINING;
    let (what, tokens) = (step_of(training), sequences * length);
    if let Some(note) = too_long(decoder, length) {
        return Ok(MethodRow::skipped(what, tokens, note));
    }
    let ids = arbitrary_ids(tokens + 1, decoder.spec().vocab_size);
    let batch = Batch::of(ids[..tokens].chunks(length));
    let step = || {
        let how = TrainingPass { recompute: Recompute::Nothing, draw: 0 };
        let gradients = decoder.gradients(&batch, how, &mut |hidden| {
            Ok(decoder.negative_log_likelihood(hidden, ids[1..].to_vec())?.mean_all()?)
        })?;
        Ok(gradients.by_name.len() as f64)
    };
    let [timing] = Timer { runs, context }.in_turn(tokens, [Work::once(&step)])?;
    Ok(MethodRow::timed(what, tokens, timing))
}

/// Why a model cannot read so many tokens, where it cannot.
fn too_long(decoder: &Decoder, tokens: usize) -> Option<String> {
    let longest = decoder.spec().context_length;
    (tokens > longest).then(|| format!("{tokens} tokens do not fit the context of {longest}"))
}

/// Times work in runs.
#[derive(Clone, Copy)]
struct Timer<'a, 'b> {
    runs: usize,
    context: &'a Context<'b>,
}

/// Work that is timed, `repeats` times in a run. What it returns shows that it was done.
struct Work<'a> {
    run: &'a dyn Fn() -> Result<f64, Error>,
    repeats: usize,
}

impl<'a> Work<'a> {
    fn once(run: &'a dyn Fn() -> Result<f64, Error>) -> Self {
        Self { run, repeats: 1 }
    }
}

impl Timer<'_, '_> {
    /// Times of each work, after one run that does not count.
    fn in_turn<const N: usize>(&self, tokens: usize, works: [Work<'_>; N]) -> Result<[Timing; N], Error> {
        let mut seconds: [Vec<f64>; N] = std::array::from_fn(|_| Vec::with_capacity(self.runs));
        for i in 0..=self.runs {
            for (work, seconds) in works.iter().zip(&mut seconds) {
                let all = || (0..work.repeats).try_for_each(|_| (work.run)().map(|result| _ = black_box(result)));
                let (result, taken) = self.context.timed(all);
                result?;
                if i > 0 {
                    seconds.push(taken / work.repeats as f64);
                }
            }
        }
        Ok(seconds.map(|seconds| Timing::new(tokens, seconds)))
    }
}

impl Timing {
    fn new(tokens: usize, seconds: Vec<f64>) -> Self {
        let middle = median(&seconds);
        let fastest = seconds.iter().copied().fold(f64::INFINITY, f64::min);
        let slowest = seconds.iter().copied().fold(0.0, f64::max);
        Self { rate: tokens as f64 / middle, median: middle, range: [fastest, slowest], seconds }
    }
}

impl MethodRow {
    fn timed(what: String, tokens: usize, timing: Timing) -> Self {
        Self { what, tokens, timing: Some(timing), beside: None, note: None }
    }

    fn skipped(what: String, tokens: usize, note: String) -> Self {
        Self { what, tokens, timing: None, beside: None, note: Some(note) }
    }

    fn beside(self, what: &'static str, pass: Timing, comparison: Comparison) -> Self {
        let own = self.timing.as_ref().map_or(f64::NAN, |timing| timing.median);
        let share = comparison.share(own, pass.median);
        Self { beside: Some(Beside { what, timing: pass, comparison, share }), ..self }
    }
}

impl Comparison {
    /// Of the seconds of a method and of a pass.
    fn share(self, method: f64, pass: f64) -> f64 {
        match self {
            Self::Speed => pass / method,
            Self::Added => method / pass - 1.0,
            Self::Time => method / pass,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_shares_are_those_of_the_medians() {
        let method = MethodRow::timed("scoring".into(), 300, Timing::new(300, vec![4.0, 2.0, 3.0]));
        let timing = method.timing.clone().expect("timed");
        assert_eq!((timing.rate, timing.median, timing.range), (100.0, 3.0, [2.0, 4.0]));
        for (comparison, share) in [(Comparison::Speed, 0.8), (Comparison::Added, 0.25), (Comparison::Time, 1.25)] {
            let row = method.clone().beside("reading", Timing::new(300, vec![2.4]), comparison);
            let found = row.beside.expect("compared").share;
            assert!((found - share).abs() < 1e-12, "{comparison:?}: {found}");
        }
    }
}
