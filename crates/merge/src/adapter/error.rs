//! What can be wrong with an adapter.

use std::path::PathBuf;

use lathe_formats::ElementType;

use crate::inputs::InputError;

/// Why an adapter cannot be read, used or made.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// The system refuses to read a file.
    #[error("{}: cannot read the file: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },

    /// JSON that is broken.
    #[error("{}: the JSON is invalid: {source}", file.display())]
    BadJson {
        /// The file.
        file: PathBuf,
        /// What is wrong and where.
        source: serde_json::Error,
    },

    /// A field of the configuration that is missing or of another form.
    #[error("{}: {field} {reason}", file.display())]
    BadField {
        /// The file.
        file: PathBuf,
        /// The field.
        field: String,
        /// What is wrong with it.
        reason: String,
    },

    /// Something that changes what the tensors mean, and that lathe cannot do.
    #[error("{}: {field} is {value}, which lathe cannot merge", file.display())]
    Unsupported {
        /// The file.
        file: PathBuf,
        /// The field.
        field: String,
        /// Its value.
        value: String,
    },

    /// A tensor whose name says nothing.
    #[error("{}: tensor {tensor:?} is no part of a LoRA adapter that lathe knows", file.display())]
    UnknownTensor {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },

    /// A tensor of integers.
    #[error("{}: tensor {tensor:?} is stored as {element}, not as floats", file.display())]
    NotFloat {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its element type.
        element: ElementType,
    },

    /// One factor of a product without the other.
    #[error("{}: tensor {tensor:?} is there, but {missing:?} is missing", file.display())]
    Unpaired {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The one that belongs to it.
        missing: String,
    },

    /// A factor whose shape does not fit the configured rank.
    #[error("{}: tensor {tensor:?} has the shape {shape:?}, but the configuration asks for {expected}", file.display())]
    BadShape {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// The shape that it should have.
        expected: String,
    },

    /// An adapter without tensors.
    #[error("{}: the adapter has no tensors", file.display())]
    NoTensors {
        /// The file.
        file: PathBuf,
    },

    /// Modules that were trained whole are not in the file.
    #[error("{}: modules_to_save names modules, but none of them is here", file.display())]
    NoSavedModules {
        /// The file.
        file: PathBuf,
    },

    /// A tensor of the adapter whose counterpart the base lacks.
    #[error("{}: tensor {tensor:?} belongs to {base:?}, which the base model does not have", file.display())]
    NoCounterpart {
        /// The file.
        file: PathBuf,
        /// The tensor of the adapter.
        tensor: String,
        /// The tensor that the base should have.
        base: String,
    },

    /// A tensor of the adapter for weights of another shape.
    #[error(
        "{}: tensor {tensor:?} is for weights of the shape {needs:?}, but {base:?} of the base model has {shape:?}",
        file.display()
    )]
    OtherShape {
        /// The file.
        file: PathBuf,
        /// The tensor of the adapter.
        tensor: String,
        /// The shape of the weights that it is for.
        needs: Vec<usize>,
        /// The tensor of the base.
        base: String,
        /// Its shape.
        shape: Vec<usize>,
    },

    /// Two tensors of the adapter for one of the base.
    #[error("{}: tensor {tensor:?} changes {base:?}, and so does another one", file.display())]
    ClaimedTwice {
        /// The file.
        file: PathBuf,
        /// One of the tensors.
        tensor: String,
        /// The tensor of the base.
        base: String,
    },

    /// NaN or infinity in the adapter.
    #[error("{}: tensor {tensor:?} has numbers that are not finite", file.display())]
    NotFinite {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },

    /// A tensor that is to be approximated and is no matrix.
    #[error("a tensor of the shape {shape:?} has no low-rank form: only matrices have")]
    NotAMatrix {
        /// Its shape.
        shape: Vec<usize>,
    },

    /// A rank of zero.
    #[error("the rank of an adapter is 1 or more")]
    ZeroRank,

    /// The decomposition did not end.
    #[error("the singular values of a difference of {rows} x {columns} numbers do not converge")]
    NoConvergence {
        /// Its rows.
        rows: usize,
        /// Its columns.
        columns: usize,
    },

    /// An adapter without modules, which PEFT does not load.
    #[error("{}: the models differ in no matrix of a layer, so there is no adapter to write", folder.display())]
    NothingToWrite {
        /// The folder.
        folder: PathBuf,
    },

    /// A file that cannot be opened or written.
    #[error(transparent)]
    File(#[from] lathe_formats::Error),

    /// Numbers of a model that cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
}

impl AdapterError {
    /// What to do about it, where there is something to do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Unsupported { field, .. } if field == "init_lora_weights" => {
                "this start changed the base model too: let PEFT convert the adapter when it saves it \
                 (path_initial_model_for_weight_conversion)"
            }
            Self::Unsupported { .. } => "merge it with PEFT (merge_and_unload) and give the merged model",
            Self::NoCounterpart { base, .. } if base.ends_with("lm_head.weight") => {
                "the head of this model is its embedding; untie them first"
            }
            Self::NoCounterpart { .. } | Self::OtherShape { .. } => {
                "an adapter belongs to the model that it was trained on: base_model_name_or_path in \
                 adapter_config.json names it"
            }
            Self::BadShape { .. } => "r and rank_pattern of adapter_config.json give the rank of each module",
            Self::File(error) => return error.hint(),
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
