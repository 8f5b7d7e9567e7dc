//! What can go wrong in a task.

use std::path::{Path, PathBuf};

use lathe_formats::is_about_path;
use lathe_measure::MeasureError;
use lathe_measure::run::RunError;
use lathe_model::reference::ReferenceError;

/// An error of a task.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A reference does not lead to a model.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A model cannot be opened or run.
    #[error(transparent)]
    Model(#[from] lathe_model::Error),
    /// A text cannot be tokenised, or a tokenizer cannot be built.
    #[error(transparent)]
    Tokenizer(#[from] lathe_tokenizer::Error),
    /// A checkpoint file cannot be read or written.
    #[error(transparent)]
    Format(#[from] lathe_formats::Error),
    /// A measurement failed.
    #[error(transparent)]
    Measure(#[from] MeasureError),
    /// A measurement failed while the model ran.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Decoding failed.
    #[error(transparent)]
    Decode(lathe_decode::DecodeError),
    /// The listener stopped the run.
    #[error("interrupted")]
    Interrupted,
    /// A merge's configuration cannot be used.
    #[error(transparent)]
    MergeConfig(#[from] lathe_merge::config::ConfigError),
    /// Models and the configuration of a merge do not fit together.
    #[error(transparent)]
    MergePlan(#[from] lathe_merge::plan::PlanError),
    /// Numbers cannot be merged.
    #[error(transparent)]
    MergeRule(lathe_merge::rule::RuleError),
    /// Tokens of models cannot be merged.
    #[error(transparent)]
    Vocabulary(#[from] lathe_merge::vocabulary::VocabularyError),
    /// An adapter cannot be used.
    #[error(transparent)]
    Adapter(#[from] lathe_merge::adapter::AdapterError),
    /// A tensor cannot be read.
    #[error(transparent)]
    MergeInput(Box<dyn std::error::Error + Send + Sync>),
    /// A weight is NaN or infinite.
    #[error("{model}: tensor `{tensor}` has {value} at {position:?}")]
    NonfiniteWeight {
        /// The model.
        model: String,
        /// Its tensor.
        tensor: String,
        /// Index in each dimension.
        position: Vec<usize>,
        /// The number.
        value: f32,
    },
    /// A merged number does not fit the type that it is stored in.
    #[error("merged tensor `{tensor}`: {source}")]
    UnfitWeight {
        /// The tensor.
        tensor: String,
        /// Which number.
        source: lathe_formats::EncodeError,
    },
    /// Tensors of integers or flags that differ between models.
    #[error("tensor `{tensor}` holds integers or flags that differ between {} and {}", models[0], models[1])]
    UnequalBuffers {
        /// The tensor.
        tensor: String,
        /// Two models.
        models: [String; 2],
    },
    /// An adapter that is not there.
    #[error("adapter `{adapter}`: there is no such folder")]
    NoAdapter {
        /// As the configuration names it.
        adapter: String,
    },
    /// A model whose tokens are to be merged has no tokenizer.
    #[error("{model}: its tokens cannot be merged: there is no tokenizer.json, or no embedding")]
    NoMergeTokenizer {
        /// The model.
        model: String,
    },
    /// A tokenizer section names a model that is not merged.
    #[error("tokenizer: {model} is none of the models that are merged")]
    UnmergedModel {
        /// As the configuration names it.
        model: String,
    },
    /// A merge that lathe itself would not open.
    #[error("the merged model cannot be opened as a {family} model: {problem}")]
    Unloadable {
        /// The architecture of its first input.
        family: String,
        /// What is wrong.
        problem: String,
    },
    /// A file that should be JSON.
    #[error("{}: not JSON: {problem}", file.display())]
    BadJson {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A tensor operation failed.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
    /// A file cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A record of a data file cannot be used.
    #[error("{}, line {line}: {problem}", file.display())]
    Record {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong, naming the field.
        problem: String,
        /// What a record should be.
        expected: &'static str,
    },
    /// A row of a Parquet file cannot be used.
    #[error("{}, row {row}: {problem}", file.display())]
    Row {
        /// The file.
        file: PathBuf,
        /// Row, from 1.
        row: usize,
        /// What is wrong, naming the field.
        problem: String,
        /// What a row should be.
        expected: &'static str,
    },
    /// A Parquet file is damaged, or holds what is not read.
    #[error("{}: not a Parquet file that can be read: {problem}", file.display())]
    Parquet {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file of records has none.
    #[error("{}: no record in it", file.display())]
    NoRecord {
        /// The file.
        file: PathBuf,
    },
    /// Records in a format that is not read.
    #[error("{}: records are not read from files of type `{extension}`", file.display())]
    UnknownRecords {
        /// The file.
        file: PathBuf,
        /// Its extension.
        extension: String,
    },
    /// A question of a task cannot be asked.
    #[error("{task}: {}, record {record}: {problem}", file.display())]
    Question {
        /// The task.
        task: String,
        /// Its data.
        file: PathBuf,
        /// The row, from 1.
        record: usize,
        /// What is wrong, naming the field.
        problem: String,
        /// What to do.
        hint: &'static str,
    },
    /// A model answers a question with NaN or an infinite logit.
    #[error("{task}, record {record}: the logits of {model} are not finite")]
    NotFinite {
        /// The model.
        model: String,
        /// The task.
        task: String,
        /// The row, from 1.
        record: usize,
    },
    /// Training came to a loss or a gradient that is no number.
    #[error("training step {step}: the {what} is not finite{}", kept(.checkpoint.as_deref()))]
    Diverged {
        /// The step, from 1.
        step: usize,
        /// The loss, or the gradient.
        what: &'static str,
        /// The last checkpoint, where there is one.
        checkpoint: Option<PathBuf>,
    },
    /// Training stopped at a step that could not be completed.
    #[error("training stopped in step {step}: {source}{}", kept(.checkpoint.as_deref()))]
    Stopped {
        /// The step, from 1.
        step: usize,
        /// The last checkpoint, where there is one.
        checkpoint: Option<PathBuf>,
        /// Why.
        source: Box<Error>,
    },
    /// Parameters that should be trained are cut off from the loss.
    #[error("{problem}")]
    Untrained {
        /// Which ones.
        problem: String,
    },
    /// A data file has no usable text.
    #[error("{}: no text in it", file.display())]
    NoText {
        /// The file.
        file: PathBuf,
    },
    /// A data format that is not read.
    #[error("{}: files of type `{extension}` are not read", file.display())]
    UnknownData {
        /// The file.
        file: PathBuf,
        /// Its extension.
        extension: String,
    },
    /// A text of the built-in sample that does not exist.
    #[error("the sample has no text `{name}`")]
    UnknownSample {
        /// The name asked for.
        name: String,
    },
    /// A text that has no vector.
    #[error("text {number}: {problem}")]
    Text {
        /// Which text, from 1.
        number: usize,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// A file that should be vectors of texts, or say what they are.
    #[error("{}: {problem}", file.display())]
    Embedded {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A field of a spec that cannot be used.
    #[error("{field}: {problem}")]
    Spec {
        /// The field, as the command line calls it.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A result cannot be written as JSON.
    #[error("cannot write the result as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Where a run that stopped can go on.
fn kept(checkpoint: Option<&Path>) -> String {
    checkpoint.map_or(String::new(), |path| format!("; the last checkpoint is {}", path.display()))
}

impl From<lathe_merge::rule::RuleError> for Error {
    fn from(error: lathe_merge::rule::RuleError) -> Self {
        match error {
            lathe_merge::rule::RuleError::Input(error) => error.into(),
            error => Self::MergeRule(error),
        }
    }
}

/// Tensors of a merge are read by tasks of this crate: what went wrong is an error of theirs.
impl From<lathe_merge::InputError> for Error {
    fn from(error: lathe_merge::InputError) -> Self {
        match error.0.downcast::<Self>() {
            Ok(error) => *error,
            Err(other) => Self::MergeInput(other),
        }
    }
}

impl Error {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Reference(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::Tokenizer(error) => error.hint(),
            Self::Format(error) => error.hint(),
            Self::Measure(error) => error.hint(),
            Self::Run(error) => error.hint(),
            Self::Decode(error) => error.hint(),
            Self::Record { expected, .. } | Self::Row { expected, .. } => Some((*expected).into()),
            Self::UnknownRecords { .. } => Some("give JSON lines (.jsonl) or Parquet (.parquet)".into()),
            Self::UnknownData { .. } => {
                Some("give plain text (.txt, .md, source code), JSON lines (.jsonl) or Parquet (.parquet)".into())
            }
            Self::Question { hint, .. } => Some((*hint).into()),
            Self::Diverged { .. } => Some("a smaller learning rate, or more steps of warm-up".into()),
            Self::Stopped { source, .. } => source.hint(),
            Self::UnknownSample { .. } => Some("`sample` means all of its texts".into()),
            Self::Text { hint, .. } => Some(hint.clone()),
            Self::Embedded { .. } => Some("`lathe embed --out` writes vectors, and beside them what they are".into()),
            Self::Spec { hint, .. } => hint.clone(),
            Self::MergeConfig(error) => error.hint(),
            Self::MergePlan(error) => error.hint(),
            Self::MergeRule(error) => error.hint().map(str::to_owned),
            Self::Vocabulary(error) => error.hint(),
            Self::Adapter(error) => error.hint(),
            Self::NonfiniteWeight { .. } => Some(
                "weights are finite numbers: the file is damaged, or its training failed; `lathe merge --allow-nonfinite` goes \
                 on regardless"
                    .into(),
            ),
            Self::UnfitWeight { .. } => Some("store as float32 or bfloat16".into()),
            Self::NoAdapter { .. } => Some("an adapter is a folder with adapter_config.json, by its path".into()),
            _ => None,
        }
    }

    /// Whether the user's input is wrong, as opposed to the machine failing.
    #[must_use]
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::Model(error) | Self::Run(RunError::Model(error)) => error.is_bad_input(),
            Self::Format(error) => error.is_bad_input(),
            Self::Read { source, .. } | Self::Write { source, .. } => is_about_path(source),
            Self::Decode(error) => error.is_bad_input(),
            Self::Stopped { source, .. } => source.is_bad_input(),
            Self::Json(_) | Self::Tensor(_) | Self::Interrupted | Self::NotFinite { .. } | Self::Untrained { .. } => {
                false
            }
            _ => true,
        }
    }
}
