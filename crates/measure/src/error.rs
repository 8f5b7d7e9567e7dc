//! What can be wrong with an input of a measurement.

/// A wrong input. Callers that know the layer, file or model add it in front.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MeasureError {
    /// A slice does not have the length that its shape says.
    #[error("{what}: {found} values where the shape needs {expected}")]
    Shape {
        /// Which input.
        what: &'static str,
        /// Length that was needed.
        expected: usize,
        /// Length that was given.
        found: usize,
    },
    /// A dimension that must be positive is zero, or the shape is too large to address.
    #[error("{what}: {rows} x {columns} is not a usable shape")]
    Dimensions {
        /// Which input.
        what: &'static str,
        /// Rows given.
        rows: usize,
        /// Columns given.
        columns: usize,
    },
    /// A hidden state is NaN or infinite.
    #[error("hidden state of token {token} is {value} at feature {feature}")]
    NonFiniteState {
        /// Index of the token in its text.
        token: usize,
        /// Index of the feature.
        feature: usize,
        /// The value found.
        value: f32,
    },
    /// A vector has a value that is NaN or infinite.
    #[error("vector {row} is {value} at position {column}")]
    NonFiniteVector {
        /// Index of the vector.
        row: usize,
        /// Index of the value.
        column: usize,
        /// The value found.
        value: f32,
    },
    /// There are fewer vectors than a computation needs.
    #[error("{what} needs {needed} vectors or more, and there are {found}")]
    FewVectors {
        /// What needs them.
        what: &'static str,
        /// The fewest that it works on.
        needed: usize,
        /// Vectors given.
        found: usize,
    },
    /// A batch holds one vector, whose standard deviation is undefined.
    #[error("batches of {batch} leave one of {rows} vectors by itself, where a standard deviation is undefined")]
    BatchOfOne {
        /// Vectors of a batch.
        batch: usize,
        /// Vectors in all.
        rows: usize,
    },
    /// A label that is no class.
    #[error("vector {row} has label {label}, and there are {classes} classes, numbered from 0")]
    Label {
        /// Index of the vector.
        row: usize,
        /// Its label.
        label: usize,
        /// Classes there are.
        classes: usize,
    },
    /// A class that no vector belongs to.
    #[error("class {class} has no vector to learn from")]
    EmptyClass {
        /// Its number.
        class: usize,
    },
    /// D, the number of columns to keep, is 0 or above min(N, d).
    #[error("columns kept: {kept} is outside 1..={limit} (the smaller of {rows} tokens and {width} features)")]
    KeptColumns {
        /// D as given.
        kept: usize,
        /// min(N, d).
        limit: usize,
        /// N, tokens used.
        rows: usize,
        /// d.
        width: usize,
    },
    /// An eigenvalue or singular value iteration did not converge.
    #[error("the {what} of a {rows} x {columns} matrix did not converge")]
    NoConvergence {
        /// Which decomposition.
        what: &'static str,
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        columns: usize,
    },
    /// Results of different models or widths were put into one average.
    #[error("window {window}: width {found} in a set of width {expected}")]
    MixedWidths {
        /// Index of the window.
        window: usize,
        /// Width of the first window.
        expected: usize,
        /// Width of this one.
        found: usize,
    },
    /// A loss that is NaN, infinite or clearly negative.
    #[error("document {document}, predicted token {position}: loss is {nll}")]
    Loss {
        /// Index of the document.
        document: usize,
        /// Index among the predicted tokens of that document.
        position: usize,
        /// The loss found, in nats.
        nll: f64,
    },
    /// An entropy that is NaN, infinite or clearly negative.
    #[error("document {document}, predicted token {position}: entropy is {entropy}")]
    Entropy {
        /// Index of the document.
        document: usize,
        /// Index among the predicted tokens of that document.
        position: usize,
        /// The entropy found, in nats.
        entropy: f64,
    },
    /// A token names a document that is not listed.
    #[error("predicted token {token}: document {document} of {documents}")]
    NoSuchDocument {
        /// Index of the token in the input.
        token: usize,
        /// The document it names.
        document: usize,
        /// Documents listed.
        documents: usize,
    },
    /// Checkpoints of a learning curve are not usable.
    #[error("checkpoint {index}: {problem}")]
    Checkpoint {
        /// Index of the checkpoint.
        index: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A parameter is outside its range.
    #[error("{name} is {value}, which is not {wanted}")]
    Parameter {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: f64,
        /// The accepted range, in words.
        wanted: &'static str,
    },
    /// A span without a token.
    #[error("span {span}: no token")]
    EmptySpan {
        /// Index of the span.
        span: usize,
    },
    /// A span names a position past the text, as happens when the text was cut.
    #[error("span {span}: position {position} in a text of {tokens} tokens")]
    SpanOutsideText {
        /// Index of the span.
        span: usize,
        /// The position.
        position: usize,
        /// Tokens of the text.
        tokens: usize,
    },
    /// A span names a position twice.
    #[error("span {span}: position {position} is named twice")]
    RepeatedPosition {
        /// Index of the span.
        span: usize,
        /// The position.
        position: usize,
    },
    /// A span shares a position with the excluded set.
    #[error("span {span}: position {position} is excluded")]
    SpanExcluded {
        /// Index of the span.
        span: usize,
        /// The position.
        position: usize,
    },
    /// An excluded position past the text.
    #[error("excluded position {position} in a text of {tokens} tokens")]
    ExcludedOutsideText {
        /// The position.
        position: usize,
        /// Tokens of the text.
        tokens: usize,
    },
    /// Rows of a head came out of order, twice, or not at all.
    #[error("attention row {found} came where row {expected} of {tokens} was due")]
    RowOrder {
        /// Row that was due.
        expected: usize,
        /// Row that came (the number of rows, when some are missing at the end).
        found: usize,
        /// Tokens of the text.
        tokens: usize,
    },
    /// An attention weight is negative, NaN or infinite, or its row sums to more than 1.
    #[error("attention row {query} is not a probability row: {found}")]
    NotProbabilities {
        /// The query position.
        query: usize,
        /// The offending weight or row sum.
        found: f64,
    },
    /// A query attends to a later key.
    #[error("attention row {query} puts {weight} on the later key {key}")]
    NotCausal {
        /// The query position.
        query: usize,
        /// The key position.
        key: usize,
        /// The weight on it.
        weight: f32,
    },
    /// Two models with different layers, heads or spans cannot be compared head by head.
    #[error("{left_layers} x {left_heads} heads against {right_layers} x {right_heads}")]
    HeadGrids {
        /// Layers of the first model.
        left_layers: usize,
        /// Heads per layer of the first model.
        left_heads: usize,
        /// Layers of the second model.
        right_layers: usize,
        /// Heads per layer of the second model.
        right_heads: usize,
    },
}

impl MeasureError {
    /// What the caller can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NonFiniteState { .. } => {
                "run the model in f32; half precision overflows in the large activations of some models"
            }
            Self::NonFiniteVector { .. } => "a text without tokens, or a model in half precision, gives such vectors",
            Self::BatchOfOne { .. } => {
                "take another batch size, or statistics of a whole corpus: they do not depend on the batch"
            }
            Self::EmptyClass { .. } => "number only the classes that the vectors have",
            Self::KeptColumns { .. } => "leave D out to keep min(tokens, width) columns",
            Self::MixedWidths { .. } => "average the windows of one model and one layer only",
            Self::Loss { .. } => "take losses from a log-softmax; a softmax followed by a logarithm underflows",
            Self::EmptySpan { .. } => "check that the span's text occurs in the text that the model read",
            Self::SpanOutsideText { .. } => "the text was cut; move the span forward or allow more tokens",
            Self::SpanExcluded { .. } => "leave punctuation and the start token out of the span, or exclude nothing",
            Self::NotProbabilities { .. } => "pass the weights after the softmax",
            Self::HeadGrids { .. } => "compare the distributions of the two models instead",
            Self::Checkpoint { .. } => "give the losses from step 0 on, with rising steps",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
