//! `lathe measure`: one measurement of one model on given texts.

mod attention;
mod context;
mod fairness;
mod samples;
mod spectrum;
pub(crate) mod tokens;

pub use attention::{
    AttentionResult, AttentionSpec, Comparison, HeadRow, SpanInput, SpanResult, SpanSource, measure_attention,
};
pub use context::{
    AttentionDetail, ConflictAudit, ContextComparison, ContextItem, ContextResult, ContextSpec, KnownBy,
    LayerAttention, ModelContext, PromptForm, TrapCount, measure_context, measure_context_loaded,
};
pub(crate) use context::{continued, fit, with_background};
pub use fairness::{
    CurvePoint, DecayBin, DecayFairness, DecaySplit, FairnessPanel, FairnessResult, FairnessSpec, RunCheckpoint,
    RunFairness, RunSplit, Scored, SpeedGap, fairness_page, measure_fairness, tuned_checkpoints,
};
pub(crate) use fairness::{Side, chart_of};
pub use samples::{NamedEstimate, PairedNumber, SampleSet, SamplesResult, SamplesSpec, measure_samples};
pub use spectrum::{DiffErankResult, LayerResult, SpectrumResult, SpectrumSpec, Untrained, measure_spectrum};
pub use tokens::{TokensResult, TokensSpec, measure_tokens};

/// The type that every measurement computes in, said beside its numbers.
pub const COMPUTE_TYPE: &str = "f32";
