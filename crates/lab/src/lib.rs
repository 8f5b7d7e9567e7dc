//! Tasks of lathe: a serialisable spec in, a typed result out.
//!
//! Every command is a task here. A task reads no flags, prints nothing, and looks at no clock of its own: what it needs
//! from outside comes in a [`Context`]. The command line builds the spec from flags; an experiment file or another
//! program can write the same spec as data.

mod adapter;
mod bench;
mod chat;
mod context;
pub mod data;
mod diff;
mod documents;
pub mod embed;
pub mod embed_eval;
pub mod ensemble;
mod error;
pub mod eval;
mod experiment;
mod export;
pub mod figure;
pub mod generate;
mod hashes;
mod inspect;
mod load;
pub mod measure;
pub mod merge;
mod models;
mod records;
pub mod report;
pub mod sample;
mod store;
mod trace;
mod tune;
mod tune_tokenizer;
mod upcycle;
mod vocabulary;

pub use adapter::{AdapterSummary, read_adapter, write_adapter};
pub use bench::{
    BenchResult, BenchRow, BenchSpec, Beside, Ceiling, Comparison, Detail, MethodRow, Methods, ModelBench, PassProfile,
    PhaseTime, Timing, Training, bench,
};
pub use chat::{Chat, ChatSpec};
pub use context::{Context, Progress, Silent};
pub use diff::{
    CellDiff, DiffModel, DiffResult, DiffSpec, DiffSummary, GroupDiff, KindDiff, LayerDiff, RANK_SIDE, RankDiff, Ranks,
    TensorDiff, WeightKind, diff, diff_page, summary as diff_summary,
};
pub use documents::{DataReference, Part, TextDocument, Texts, read_documents};
pub use error::Error;
pub use experiment::{ExperimentResult, ExperimentSpec, StepOutcome, run};
pub use export::{ExportFormat, ExportResult, ExportSpec, WrittenFile, export};
pub use inspect::{Depth, ElementCount, InspectSpec, Inspection, LoadSummary, TensorRow, inspect};
pub use load::{Compute, Loaded, load, open_model};
pub use models::{Architecture, BuiltIn, GgufFiles, ModelList, State, data_sets, models, page as models_page};
pub use trace::{Rows, TokenInput, TraceResult, TraceSite, TraceSpec, trace};
pub use tune::{
    BadRecord, BadRecords, Best, Clip, FromScratch, Look, LossOn, Method, Packing, Recomputed, Resume, StepLine,
    TuneAudit, TuneResult, TuneSource, TuneSpec, Watched, audit_rows, tune, tune_audit,
};
pub use tune_tokenizer::{TuneTokenizerResult, TuneTokenizerSpec, VocabularyStudy, tune_tokenizer};
pub use upcycle::{Counts, ExpertLayout, LayerRouting, UpcycleResult, UpcycleSpec, upcycle};
pub use vocabulary::{
    Boundaries, EndToken, SameBytes, VocabularyFacts, VocabularyPair, VocabularyResult, VocabularySpec, vocabulary,
};
