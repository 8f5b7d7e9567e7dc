//! `lathe bench`: how fast a model loads, reads and writes on this machine, and how far that is from what the machine
//! can do at most.
//!
//! Every number is the median of several runs after one that is not counted; beside it stand the slowest and the fastest
//! run. Two ceilings are measured in the same process: fused multiply-adds on operands in the first-level cache (a token
//! takes one for each parameter that it uses; attention is not counted), and reading memory in order (every weight is read
//! once for all tokens of a step). The slower of the two bounds a row.

mod methods;
mod profile;

pub use profile::{PassProfile, PhaseTime};

use lathe_kernels::ceiling::{Memory, multiply_adds};
use lathe_kernels::matmul::Arithmetic;
use lathe_model::reference::ModelReference;
use lathe_model::spec::{FeedForwardSpec, HeadWeight, Part};
use lathe_model::{Batch, Decoder, DecoderSpec, KvCache, NoTap, Phase, Tap};
use serde::{Deserialize, Serialize};

pub use methods::{Beside, Comparison, MethodRow, Timing};

use crate::{Compute, Context, Error, load, open_model};

/// What to time.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BenchSpec {
    /// The models, one after the other.
    pub models: Vec<ModelReference>,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens that are written.
    pub decode: usize,
    /// Sequences that are written at once; each entry is timed.
    pub batches: Vec<usize>,
    /// Runs that count.
    pub runs: usize,
    /// The arithmetic; each entry is timed with every model.
    pub compute: Vec<Compute>,
    /// How finely passes are timed.
    pub detail: Detail,
    /// Whether the methods are timed too.
    pub methods: Methods,
}

/// How finely passes are timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Detail {
    /// Whole passes.
    Passes,
    /// After the whole passes, some more with a reading of the clock at every phase of every layer.
    Phases,
}

/// Whether the methods are timed too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Methods {
    /// Reading and writing only.
    Skip,
    /// Scoring, spectrum, attention and a training step, at the sizes that the project's targets name.
    Time,
    /// A training step and nothing else, so that the memory of the process is the step's.
    Training(Training),
}

/// What is trained in a training step that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Training {
    /// Every parameter.
    Full,
    /// Factors of rank 8 beside query and value projections, as PEFT has them where nothing else is said.
    Lora,
    /// Factors of rank 8 beside every linear layer.
    LoraAll,
}

/// What was timed.
#[derive(Clone, Debug, Serialize)]
pub struct BenchResult {
    /// What the machine can do.
    pub ceiling: Ceiling,
    /// Threads that computed.
    pub threads: usize,
    /// Instruction set of the kernels.
    pub instructions: &'static str,
    /// The models.
    pub models: Vec<ModelBench>,
    /// Methods that need no model.
    pub methods: Vec<MethodRow>,
}

/// What the machine can do at most, all threads together.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ceiling {
    /// Fused multiply-adds of f32 in the first-level cache, each counted as two operations, in 10^9 a second.
    pub gflops: f64,
    /// The same in bf16.
    pub bf16_gflops: f64,
    /// The same of 4-bit integers by signed bytes.
    pub int8_gops: f64,
    /// Reading memory in order, 10^9 bytes a second.
    pub read_gbytes: f64,
}

/// One model.
#[derive(Clone, Debug, Serialize)]
pub struct ModelBench {
    /// As the user named it.
    pub model: String,
    /// The arithmetic of its products.
    pub compute: Compute,
    /// Opening, mapping and packing, seconds.
    pub load_seconds: f64,
    /// Bytes of the weights as they are held.
    pub weight_bytes: u64,
    /// Largest resident memory of the process so far, bytes.
    pub peak_memory: Option<u64>,
    /// What was timed.
    pub rows: Vec<BenchRow>,
    /// Where the time of a pass goes; empty unless phases were asked for.
    pub profiles: Vec<PassProfile>,
    /// The methods; empty unless they were asked for.
    pub methods: Vec<MethodRow>,
}

/// One thing that was timed.
#[derive(Clone, Debug, Serialize)]
pub struct BenchRow {
    /// What.
    pub what: String,
    /// Tokens of one run, all sequences together.
    pub tokens: usize,
    /// Tokens a second: the median run.
    pub rate: f64,
    /// The slowest and the fastest run.
    pub range: [f64; 2],
    /// Seconds of every run, in order.
    pub seconds: Vec<f64>,
    /// Fused multiply-adds that a token takes at least.
    pub multiply_adds: f64,
    /// Bytes of weights that are read for a token at least.
    pub bytes: f64,
    /// The median as a share of what the ceilings allow.
    pub of_ceiling: f64,
}

/// Times models.
///
/// # Errors
/// A model cannot be loaded, or its context is too short for the tokens asked for.
pub fn bench(spec: &BenchSpec, context: &Context<'_>) -> Result<BenchResult, Error> {
    let zero = |field, problem: &str| Error::Spec { field, problem: problem.into(), hint: None };
    if spec.runs == 0 {
        return Err(zero("--runs", "0 runs say nothing"));
    }
    if spec.prompt == 0 || spec.decode == 0 || spec.batches.contains(&0) {
        return Err(zero("--prompt, --decode, --batch", "0 tokens take no time"));
    }
    // What cannot be timed is known before anything is loaded.
    for compute in &spec.compute {
        match spec.methods {
            Methods::Training(_) => _ = compute.for_training(context)?,
            Methods::Skip | Methods::Time => _ = compute.within(context)?,
        }
    }
    let reads = !matches!(spec.methods, Methods::Training(_));
    for model in &spec.models {
        let longest = open_model(model, context)?.1.spec.context_length;
        let needed = if reads { spec.prompt.max(DECODE_PROMPT + spec.decode) } else { 0 };
        if needed > longest {
            let problem = format!("{needed} tokens do not fit the context of {longest} of {model}");
            return Err(Error::Spec { field: "--prompt, --decode", problem, hint: None });
        }
    }
    let each = spec.models.iter().flat_map(|model| spec.compute.iter().map(move |compute| (model, *compute)));
    let models: Vec<ModelBench> =
        each.map(|(model, compute)| one(model, compute, spec, context)).collect::<Result<_, _>>()?;
    let methods = match spec.methods {
        Methods::Skip | Methods::Training(_) => Vec::new(),
        Methods::Time => vec![methods::without_model(spec.runs, context)?],
    };
    // Last, because its memory would count among the models'.
    let ceiling = ceiling(context);
    let mut result = BenchResult {
        ceiling,
        threads: rayon::current_num_threads(),
        instructions: lathe_kernels::Isa::best().name(),
        models,
        methods,
    };
    let rows = result.models.iter_mut().flat_map(|model| model.rows.iter_mut().map(|row| (model.compute, row)));
    for (compute, row) in rows {
        row.of_ceiling = row.rate * ceiling.seconds(compute, row.multiply_adds, row.bytes);
    }
    Ok(result)
}

impl Ceiling {
    /// Seconds that a token takes at least.
    fn seconds(&self, compute: Compute, multiply_adds: f64, bytes: f64) -> f64 {
        let gflops = match compute {
            Compute::F32 => self.gflops,
            Compute::Bf16 => self.bf16_gflops,
            Compute::Native => self.int8_gops,
        };
        (2.0 * multiply_adds / (gflops * 1e9)).max(bytes / (self.read_gbytes * 1e9))
    }
}

/// Measures the machine: the best of several runs, as a ceiling should be.
fn ceiling(context: &Context<'_>) -> Ceiling {
    const RUNS: usize = 7;
    context.stage("measuring the machine", 0, "", || {
        let best = |work: &dyn Fn() -> (u64, f32)| {
            let rate = |_| {
                let ((count, sum), seconds) = context.timed(work);
                assert!(sum.is_finite(), "the work was done");
                count as f64 / seconds
            };
            (0..RUNS).map(rate).fold(0.0, f64::max)
        };
        let memory = Memory::touched(512 << 20);
        let gflops = |arithmetic, rounds| 2.0 * best(&|| multiply_adds(arithmetic, rounds)) / 1e9;
        Ceiling {
            gflops: gflops(Arithmetic::F32, 20_000),
            bf16_gflops: gflops(Arithmetic::Bf16, 1_000),
            int8_gops: gflops(Arithmetic::Int8, 500),
            read_gbytes: best(&|| memory.read()) / 1e9,
        }
    })
}

fn one(model: &ModelReference, compute: Compute, spec: &BenchSpec, context: &Context<'_>) -> Result<ModelBench, Error> {
    if let Methods::Training(training) = spec.methods {
        return trained(model, training, compute, spec, context);
    }
    let loaded = load(model, &compute.within(context)?)?;
    let decoder = &loaded.decoder;
    let total = (2 + spec.batches.len()) * (spec.runs + 1);
    let rows = context.stage(&format!("{model}: timing"), total as u64, "runs", || rows(decoder, spec, context))?;
    let peak_memory = (context.peak_memory)();
    let profiles = match spec.detail {
        Detail::Passes => Vec::new(),
        Detail::Phases => {
            let total = spec.runs + spec.batches.len();
            let profiles = || profile::profiles(decoder, spec, context);
            context.stage(&format!("{model}: timing phases"), total as u64, "runs", profiles)?
        }
    };
    let methods = match spec.methods {
        Methods::Skip | Methods::Training(_) => Vec::new(),
        Methods::Time => {
            let methods = || methods::methods(&loaded, compute, spec.runs, context);
            context.stage(&format!("{model}: timing methods"), methods::ROWS as u64, "methods", methods)?
        }
    };
    Ok(ModelBench {
        model: model.to_string(),
        compute,
        load_seconds: loaded.seconds,
        weight_bytes: decoder.weight_bytes() as u64,
        peak_memory,
        rows,
        profiles,
        methods,
    })
}

/// A training step of a model that is loaded for nothing else.
fn trained(
    model: &ModelReference,
    training: Training,
    compute: Compute,
    spec: &BenchSpec,
    context: &Context<'_>,
) -> Result<ModelBench, Error> {
    let (_, opened) = open_model(model, context)?;
    let weights = compute.for_training(context)?;
    let (decoder, load_seconds) = context.timed(|| methods::trainable(&opened, training, weights));
    let decoder = decoder?;
    let row = || methods::training(&decoder, training, spec.runs, context);
    let row = context.stage(&format!("{model}: timing training"), spec.runs as u64 + 1, "runs", row)?;
    Ok(ModelBench {
        model: model.to_string(),
        compute,
        load_seconds,
        weight_bytes: decoder.weight_bytes() as u64,
        peak_memory: (context.peak_memory)(),
        rows: Vec::new(),
        profiles: Vec::new(),
        methods: vec![row],
    })
}

/// Tokens before the first one that is written.
const DECODE_PROMPT: usize = 16;

fn rows(decoder: &Decoder, spec: &BenchSpec, context: &Context<'_>) -> Result<Vec<BenchRow>, Error> {
    let work = Work::of(decoder.spec());
    let bytes = decoder.weight_bytes() as f64;
    let prompt = arbitrary_ids(spec.prompt, decoder.spec().vocab_size);
    let timed = |what: String, tokens: usize, run: &dyn Fn() -> Result<f64, Error>| {
        let mut seconds = Vec::with_capacity(spec.runs);
        for i in 0..=spec.runs {
            let taken = run()?;
            // The first run pays for pages that were never touched.
            if i > 0 {
                seconds.push(taken);
            }
            context.progress.advance(1);
        }
        Ok::<_, Error>(BenchRow::new(what, tokens, seconds))
    };
    let read = |from| read(decoder, &prompt, from, context, &mut NoTap);
    let (n, last) = (spec.prompt as f64, spec.prompt - 1);
    let all = timed(format!("reading {n} tokens, logits of all"), spec.prompt, &|| read(0))?;
    let one = timed(format!("reading {n} tokens, logits of the last"), spec.prompt, &|| read(last))?;
    let mut rows = vec![
        BenchRow { multiply_adds: work.body + work.head, bytes: bytes / n, ..all },
        BenchRow { multiply_adds: work.body + work.head / n, bytes: bytes / n, ..one },
    ];
    for batch in &spec.batches {
        let what = format!("writing {} tokens, {batch} at once", spec.decode);
        let row = timed(what, spec.decode * batch, &|| write(decoder, *batch, spec.decode, context, &mut NoTap))?;
        rows.push(BenchRow { multiply_adds: work.body + work.head, bytes: bytes / *batch as f64, ..row });
    }
    Ok(rows)
}

/// Seconds of reading a prompt, with logits of its tokens after the first `from`.
fn read(
    decoder: &Decoder,
    prompt: &[u32],
    from: usize,
    context: &Context<'_>,
    tap: &mut dyn Tap,
) -> Result<f64, Error> {
    let (result, seconds) = context.timed(|| {
        tap.begins(Phase::Other);
        let hidden = decoder.forward(&Batch::single(prompt), None, tap)?;
        tap.begins(Phase::Head);
        let scores = decoder.score(&hidden.narrow(0, from, prompt.len() - from)?, &prompt[from..]);
        tap.ends();
        scores
    });
    result?;
    Ok(seconds)
}

/// Seconds of writing `tokens` tokens in each of `batch` sequences, each the most likely one, after a short prompt.
fn write(
    decoder: &Decoder,
    batch: usize,
    tokens: usize,
    context: &Context<'_>,
    tap: &mut dyn Tap,
) -> Result<f64, Error> {
    let spec = decoder.spec();
    let mut cache = KvCache::new(spec, batch);
    let prompts: Vec<Vec<u32>> =
        (0..batch).map(|slot| arbitrary_ids(DECODE_PROMPT + slot, spec.vocab_size)[slot..].to_vec()).collect();
    let hidden = decoder.forward(&Batch::of(prompts.iter().map(Vec::as_slice)), Some(&mut cache), &mut NoTap)?;
    let mut next: Vec<u32> = prompts.iter().map(|prompt| prompt[DECODE_PROMPT - 1]).collect();
    drop(hidden);
    let (result, seconds) = context.timed(|| {
        for position in DECODE_PROMPT..DECODE_PROMPT + tokens {
            tap.begins(Phase::Other);
            let mut step = Batch::default();
            next.iter().enumerate().for_each(|(slot, id)| step.push(&[*id], slot, position));
            let hidden = decoder.forward(&step, Some(&mut cache), tap)?;
            tap.begins(Phase::Head);
            next = decoder.score(&hidden, &next)?.into_iter().map(|score| score.argmax).collect();
        }
        tap.ends();
        Ok::<_, Error>(())
    });
    result?;
    Ok(seconds)
}

/// Arbitrary tokens, to time or to fill memory with.
pub(crate) fn arbitrary_ids(count: usize, vocab_size: usize) -> Vec<u32> {
    #[expect(clippy::cast_possible_truncation, reason = "a token id below the size of the vocabulary")]
    (0..count).map(|i| (i * 7919 % vocab_size) as u32).collect()
}

/// Parameters that a token is multiplied with.
struct Work {
    /// In the layers.
    body: f64,
    /// In the head.
    head: f64,
}

impl Work {
    fn of(spec: &DecoderSpec) -> Self {
        let used = |parameter: &lathe_model::spec::Parameter| parameter.shape.len() > 1;
        let mut work = Self { body: 0.0, head: 0.0 };
        for parameter in spec.parameters().iter().filter(|parameter| used(parameter)) {
            let elements = parameter.elements() as f64;
            match parameter.part {
                Part::Head => work.head += elements,
                Part::Embedding if spec.head.weight == HeadWeight::Tied && parameter.name == "embedding.weight" => {
                    work.head += elements;
                }
                Part::Embedding => {}
                Part::Experts => work.body += elements * share_of_experts(spec, &parameter.name),
                _ => work.body += elements,
            }
        }
        work
    }
}

/// Share of the routed experts that a token uses; router and shared experts are always used.
fn share_of_experts(spec: &DecoderSpec, name: &str) -> f64 {
    let parts: Vec<&str> = name.split('.').collect();
    let layer = parts.get(1).and_then(|layer| layer.parse::<usize>().ok()).and_then(|layer| spec.layers.get(layer));
    let is_routed = parts.get(3).is_some_and(|expert| expert.parse::<usize>().is_ok());
    match layer.map(|layer| &layer.feed_forward) {
        Some(FeedForwardSpec::Experts(experts)) if is_routed => experts.top_k as f64 / experts.count as f64,
        _ => 1.0,
    }
}

impl BenchRow {
    fn new(what: String, tokens: usize, seconds: Vec<f64>) -> Self {
        let rate = |seconds: f64| tokens as f64 / seconds;
        let slowest = seconds.iter().copied().fold(0.0, f64::max);
        let fastest = seconds.iter().copied().fold(f64::INFINITY, f64::min);
        let (median, range) = (rate(median(&seconds)), [rate(slowest), rate(fastest)]);
        Self { what, tokens, rate: median, range, seconds, multiply_adds: 0.0, bytes: 0.0, of_ceiling: 0.0 }
    }
}

/// The value in the middle, or between the two there; NaN of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_ends_of_the_runs() {
        let row = BenchRow::new("reading".into(), 100, vec![2.0, 1.0, 4.0]);
        assert_eq!((row.rate, row.range), (50.0, [25.0, 100.0]));
        assert_eq!(BenchRow::new("reading".into(), 90, vec![2.0, 1.0]).rate, 60.0);
        let ceiling = Ceiling { gflops: 4.0, bf16_gflops: 8.0, int8_gops: 16.0, read_gbytes: 1.0 };
        let seconds = |compute| (ceiling.seconds(compute, 2e9, 0.125e9), ceiling.seconds(compute, 1e9, 3e9));
        assert_eq!(seconds(Compute::F32), (1.0, 3.0));
        assert_eq!(seconds(Compute::Bf16), (0.5, 3.0));
        assert_eq!(seconds(Compute::Native), (0.25, 3.0));
    }
}
