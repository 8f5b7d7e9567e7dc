//! Where the time of a pass goes, phase by phase, and how fast the products of each phase are.

use lathe_model::spec::{HeadWeight, Parameter, Part};
use lathe_model::{Decoder, DecoderSpec, Phase, Profile};
use serde::Serialize;

use super::{BenchSpec, DECODE_PROMPT, arbitrary_ids, read, share_of_experts, write};
use crate::{Context, Error};

/// The phases of one kind of pass.
#[derive(Clone, Debug, Serialize)]
pub struct PassProfile {
    /// What.
    pub what: String,
    /// Passes that were timed.
    pub passes: usize,
    /// Seconds of a pass, the average of all.
    pub seconds: f64,
    /// The phases that it has, in their order.
    pub phases: Vec<PhaseTime>,
}

/// One phase of a pass, all layers together.
#[derive(Clone, Debug, Serialize)]
pub struct PhaseTime {
    /// Which.
    pub phase: Phase,
    /// Seconds of a pass, the average of all.
    pub seconds: f64,
    /// Its share of the pass.
    pub share: f64,
    /// Products of a pass, each multiply-add counted as two operations, in 10^9 a second; none where there are none.
    pub gflops: Option<f64>,
}

/// Times the phases of reading the prompt and of writing at each batch size. Weights and caches are warm already.
pub(super) fn profiles(decoder: &Decoder, spec: &BenchSpec, context: &Context<'_>) -> Result<Vec<PassProfile>, Error> {
    let model = decoder.spec();
    let prompt = arbitrary_ids(spec.prompt, model.vocab_size);
    let mut profile = Profile::new(context.seconds);
    let mut seconds = 0.0;
    for _ in 0..spec.runs {
        seconds += read(decoder, &prompt, 0, context, &mut profile)?;
        context.progress.advance(1);
    }
    let work = |phase| multiply_adds(model, phase, 1, 0, spec.prompt);
    let what = format!("reading {} tokens, logits of all", spec.prompt);
    let mut profiles = vec![PassProfile::new(what, spec.runs, seconds, &profile, work)];
    for batch in &spec.batches {
        let mut profile = Profile::new(context.seconds);
        let seconds = write(decoder, *batch, spec.decode, context, &mut profile)?;
        context.progress.advance(1);
        // Of a step half-way, which is the average.
        let position = DECODE_PROMPT + (spec.decode - 1) / 2;
        let work = |phase| multiply_adds(model, phase, *batch, position, 1);
        let what = format!("a step of writing, {batch} at once");
        profiles.push(PassProfile::new(what, spec.decode, seconds, &profile, work));
    }
    Ok(profiles)
}

impl PassProfile {
    /// Averages of `passes` passes that took `total` seconds; `work` gives the multiply-adds of a phase in one of them.
    fn new(what: String, passes: usize, total: f64, profile: &Profile<'_>, work: impl Fn(Phase) -> f64) -> Self {
        let phases = Phase::ALL.into_iter().filter(|phase| profile.seconds(*phase) > 0.0).map(|phase| {
            let seconds = profile.seconds(phase) / passes as f64;
            let work = work(phase);
            PhaseTime {
                phase,
                seconds,
                share: profile.seconds(phase) / total,
                gflops: (work > 0.0).then(|| 2.0 * work / seconds / 1e9),
            }
        });
        Self { what, passes, seconds: total / passes as f64, phases: phases.collect() }
    }
}

/// Multiply-adds of a phase when `sequences` sequences of `tokens` tokens each begin at `position`.
fn multiply_adds(spec: &DecoderSpec, phase: Phase, sequences: usize, position: usize, tokens: usize) -> f64 {
    if phase == Phase::Attention {
        // A query is multiplied with every key that it sees, and the value of each is added with its weight.
        let visible = |window: Option<usize>| -> usize {
            (position..position + tokens).map(|p| (p + 1).min(window.unwrap_or(usize::MAX))).sum()
        };
        let layers = spec.layers.iter().map(|layer| &layer.attention);
        let of_layer = |a: &lathe_model::spec::AttentionSpec| 2 * a.heads * a.head_dim * visible(a.window);
        return (sequences * layers.map(of_layer).sum::<usize>()) as f64;
    }
    let matrices = spec.parameters().into_iter().filter(|parameter| parameter.shape.len() > 1);
    let used = matrices.filter(|parameter| phase_of(spec, parameter) == Some(phase));
    let of_token = |parameter: Parameter| parameter.elements() as f64 * share_of_experts(spec, &parameter.name);
    (sequences * tokens) as f64 * used.map(of_token).sum::<f64>()
}

/// The phase in which a token is multiplied with a matrix; none for a table that is only looked up.
fn phase_of(spec: &DecoderSpec, parameter: &Parameter) -> Option<Phase> {
    match (parameter.part, parameter.name.as_str()) {
        (Part::Embedding, "embedding_in.weight") => Some(Phase::Embedding),
        (Part::Embedding, "embedding_out.weight") | (Part::Head, _) => Some(Phase::Head),
        (Part::Embedding, "embedding.weight") if spec.head.weight == HeadWeight::Tied => Some(Phase::Head),
        (Part::Attention, name) if name.ends_with(".output.weight") => Some(Phase::Output),
        (Part::Attention, _) => Some(Phase::QueryKeyValue),
        (Part::FeedForward, _) => Some(Phase::FeedForward),
        (Part::Experts, _) => Some(Phase::Experts),
        (Part::Embedding | Part::Norm, _) => None,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::sync::atomic::{AtomicU32, Ordering};

    use lathe_model::reference::Home;
    use lathe_model::{Weights, open};

    use super::*;
    use crate::bench::{Compute, Detail, Methods};

    fn opened(name: &str) -> lathe_model::Opened {
        open(&std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/parity")).join(name))
            .unwrap()
    }

    /// The clock counts its own readings, so phases and the pass around them can be compared exactly.
    #[test]
    fn phases_add_up_to_the_pass() {
        for name in ["llama", "olmo2", "phi", "qwen2_moe", "opt_350m"] {
            let decoder = opened(name).decoder(Weights::Frozen).unwrap();
            let readings = AtomicU32::new(0);
            let seconds = || f64::from(readings.fetch_add(1, Ordering::Relaxed));
            let home = Home::new("/nowhere".into(), "/nowhere".into());
            let context = Context {
                home: &home,
                progress: &crate::Silent,
                seconds: &seconds,
                peak_memory: &|| None,
                weights: Weights::Frozen,
            };
            let spec = BenchSpec {
                models: Vec::new(),
                prompt: 8,
                decode: 4,
                batches: vec![1, 3],
                runs: 2,
                compute: vec![Compute::F32],
                detail: Detail::Phases,
                methods: Methods::Skip,
            };
            let profiles = profiles(&decoder, &spec, &context).unwrap();
            assert_eq!(profiles.iter().map(|pass| pass.passes).collect::<Vec<_>>(), [2, 4, 4], "{name}");
            for pass in &profiles {
                let sum: f64 = pass.phases.iter().map(|phase| phase.share).sum();
                // What lies between the readings around the pass and its first and last phase is the pass's alone.
                assert!((0.9..1.0).contains(&sum), "{name}: {pass:?}");
                let of_phases: f64 = pass.phases.iter().map(|phase| phase.seconds).sum();
                assert!((of_phases / pass.seconds - sum).abs() < 1e-12, "{name}: {pass:?}");
                let has = |phase| pass.phases.iter().any(|row| row.phase == phase);
                assert!(has(Phase::Attention) && has(Phase::Head), "{name}: {pass:?}");
                assert_ne!(has(Phase::FeedForward), has(Phase::Experts), "{name}: {pass:?}");
                let products = |row: &&PhaseTime| row.gflops.is_some_and(|gflops| gflops > 0.0);
                assert!(pass.phases.iter().filter(products).count() >= 5, "{name}: {pass:?}");
            }
        }
    }

    #[test]
    fn products_of_a_pass() {
        let llama = opened("llama").spec;
        let a = &llama.layers[0].attention;
        let layers = llama.layers.len();
        assert_eq!(a.window, None);
        // 5 tokens after 2 others see 3 + 4 + 5 + 6 + 7 keys.
        let attention = multiply_adds(&llama, Phase::Attention, 1, 2, 5);
        assert_eq!(attention, (2 * layers * a.heads * a.head_dim * 25) as f64);
        let head = multiply_adds(&llama, Phase::Head, 3, 2, 5);
        assert_eq!(head, (15 * llama.vocab_size * llama.hidden_size) as f64);
        let of_all: f64 =
            Phase::ALL.into_iter().filter(|p| *p != Phase::Attention).map(|p| multiply_adds(&llama, p, 1, 0, 1)).sum();
        let work = super::super::Work::of(&llama);
        assert_eq!(of_all, work.body + work.head);
    }
}
