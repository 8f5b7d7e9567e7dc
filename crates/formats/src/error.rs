//! Everything that can be wrong with a checkpoint file.

use std::io;
use std::ops::Range;
use std::path::PathBuf;

use crate::element::ElementType;
use crate::encode::EncodeError;

/// What is wrong with a file, and where. Each message is one sentence; [`Error::hint`] says what to do where there is
/// something to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", file.display())]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },

    /// A file to be written in a folder that is not there.
    #[error("{}: {} is not an existing folder", file.display(), folder.display())]
    NoFolder {
        /// The file to be written.
        file: PathBuf,
        /// Where it would be.
        folder: PathBuf,
    },

    /// A path that names nothing.
    #[error("{}: no such file or folder", path.display())]
    NotFound {
        /// The path.
        path: PathBuf,
    },

    /// Neither a GGUF nor a safetensors file.
    #[error("{}: neither a GGUF nor a safetensors file", file.display())]
    UnknownFormat {
        /// The file.
        file: PathBuf,
    },

    /// Weights only as Python pickles, which run code when loaded.
    #[error("{}: the weights are Python pickles, which lathe does not load", path.display())]
    PickleOnly {
        /// The pickle, or the folder that holds it.
        path: PathBuf,
    },

    /// A folder without weights.
    #[error("{}: the folder holds no model.safetensors, no model.safetensors.index.json and no .gguf file", folder.display())]
    NoWeights {
        /// The folder.
        folder: PathBuf,
    },

    /// A folder with several models.
    #[error("{}: the folder holds several models: {}", folder.display(), candidates.join(", "))]
    Ambiguous {
        /// The folder.
        folder: PathBuf,
        /// Names of the files, sorted.
        candidates: Vec<String>,
    },

    /// The file ends within its header.
    #[error("{}: {field} needs {needs} bytes at byte {at}, but the file ends at byte {end}", file.display())]
    Truncated {
        /// The file.
        file: PathBuf,
        /// What was being read.
        field: String,
        /// Where it begins.
        at: u64,
        /// Its length in bytes.
        needs: u64,
        /// The file's length in bytes.
        end: u64,
    },

    /// A count that the rest of the file cannot hold.
    #[error("{}: {field} is {count}, but the {left} bytes that are left hold fewer", file.display())]
    CountTooLarge {
        /// The file.
        file: PathBuf,
        /// What is counted.
        field: String,
        /// The count.
        count: u64,
        /// Bytes between the count and the end of the file.
        left: u64,
    },

    /// A GGUF file whose numbers are stored most significant byte first.
    #[error("{}: big-endian GGUF is not supported", file.display())]
    BigEndian {
        /// The file.
        file: PathBuf,
    },

    /// A GGUF version other than 2 and 3.
    #[error("{}: GGUF version {version} is not supported (2 and 3 are)", file.display())]
    UnsupportedVersion {
        /// The file.
        file: PathBuf,
        /// The version in the file.
        version: u32,
    },

    /// Bytes that are no text.
    #[error("{}: {field} is not UTF-8", file.display())]
    NotUtf8 {
        /// The file.
        file: PathBuf,
        /// What was being read.
        field: String,
    },

    /// A value type that GGUF does not have.
    #[error("{}: {field} has the unknown value type {id}", file.display())]
    UnknownValueType {
        /// The file.
        file: PathBuf,
        /// The value.
        field: String,
        /// The type's id in the file.
        id: u32,
    },

    /// A boolean that is neither 0 nor 1.
    #[error("{}: {field} is {value}, but a boolean is 0 or 1", file.display())]
    BadBool {
        /// The file.
        file: PathBuf,
        /// The value.
        field: String,
        /// The byte in the file.
        value: u8,
    },

    /// Arrays in arrays, too deep.
    #[error("{}: {field} nests arrays more than {limit} deep", file.display())]
    NestedTooDeep {
        /// The file.
        file: PathBuf,
        /// The value.
        field: String,
        /// The deepest nesting that is read.
        limit: usize,
    },

    /// The same metadata key twice.
    #[error("{}: the metadata key {key:?} appears twice", file.display())]
    DuplicateKey {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
    },

    /// The same tensor name twice.
    #[error("{}: the tensor {tensor:?} appears twice", file.display())]
    DuplicateTensor {
        /// The file with the second one.
        file: PathBuf,
        /// The name.
        tensor: String,
    },

    /// `general.alignment` is no power of two.
    #[error("{}: general.alignment is {alignment}, which is no power of two below 2^31", file.display())]
    BadAlignment {
        /// The file.
        file: PathBuf,
        /// The value in the file.
        alignment: u64,
    },

    /// More dimensions than the format allows.
    #[error("{}: tensor {tensor:?} has {dimensions} dimensions, but GGUF allows {limit}", file.display())]
    TooManyDimensions {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its number of dimensions.
        dimensions: usize,
        /// The format's limit.
        limit: usize,
    },

    /// A shape that does not fill the blocks of its type, or that no file can hold.
    #[error("{}: tensor {tensor:?} cannot have the shape {shape:?} in {element}", file.display())]
    BadShape {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape, outermost first.
        shape: Vec<u64>,
        /// Its element type.
        element: ElementType,
    },

    /// An element type that the format does not have.
    #[error("{}: tensor {tensor:?} has the unknown element type {element}", file.display())]
    UnknownElement {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The type's name or id in the file.
        element: String,
    },

    /// An offset that is no multiple of the file's alignment.
    #[error("{}: tensor {tensor:?} begins at {offset} of the data, which is no multiple of the alignment {alignment}", file.display())]
    Misaligned {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its offset in bytes.
        offset: u64,
        /// The alignment in bytes.
        alignment: u64,
    },

    /// A tensor that reaches past the end of the file.
    #[error("{}: tensor {tensor:?} reaches beyond the end of the file at byte {end}", file.display())]
    OutOfFile {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The file's length in bytes.
        end: u64,
    },

    /// A byte range whose length is not that of the shape.
    #[error("{}: tensor {tensor:?} spans {span} bytes, but its shape and type need {needs}", file.display())]
    SpanMismatch {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Bytes between the offsets in the header.
        span: u64,
        /// Bytes that shape and type need.
        needs: u64,
    },

    /// Two tensors that share bytes.
    #[error("{}: tensors {first:?} and {second:?} overlap", file.display())]
    Overlap {
        /// The file.
        file: PathBuf,
        /// The one that begins first.
        first: String,
        /// The other.
        second: String,
    },

    /// Bytes of a safetensors file that belong to no tensor.
    #[error("{}: bytes {} to {} belong to no tensor", file.display(), bytes.start, bytes.end)]
    Gap {
        /// The file.
        file: PathBuf,
        /// The bytes, from the file's beginning.
        bytes: Range<u64>,
    },

    /// A safetensors header longer than the format allows.
    #[error("{}: the header claims {claimed} bytes, but the format allows {limit}", file.display())]
    HeaderTooLong {
        /// The file.
        file: PathBuf,
        /// The length in the file.
        claimed: u64,
        /// The format's limit.
        limit: u64,
    },

    /// JSON that is broken or not of the expected form.
    #[error("{}: the JSON is invalid: {source}", file.display())]
    BadJson {
        /// The file.
        file: PathBuf,
        /// What is wrong and where.
        source: serde_json::Error,
    },

    /// A shard name that is not the name of a file beside the index.
    #[error("{}: the shard {shard:?} is not a file name", file.display())]
    BadShardName {
        /// The index.
        file: PathBuf,
        /// The name.
        shard: String,
    },

    /// A tensor that the index promises and its shard does not hold.
    #[error("{}: tensor {tensor:?} is not in the shard {shard:?}", file.display())]
    MissingFromShard {
        /// The index.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shard that should hold it.
        shard: String,
    },

    /// A part of a split GGUF whose name or place in the set is wrong.
    #[error("{}: {reason}", file.display())]
    BadSplit {
        /// The part.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },

    /// A metadata key that the file does not have.
    #[error("{}: the metadata key {key:?} is missing", file.display())]
    MissingKey {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
    },

    /// A metadata value of another type.
    #[error("{}: the metadata key {key:?} should be {expected}, but is {found}", file.display())]
    WrongKeyType {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// What the caller needs.
        expected: &'static str,
        /// What the file has.
        found: String,
    },

    /// A tensor that the checkpoint does not have.
    #[error("{}: the tensor {tensor:?} is missing", file.display())]
    MissingTensor {
        /// The checkpoint.
        file: PathBuf,
        /// The name.
        tensor: String,
    },

    /// An element type that lathe knows but cannot decode.
    #[error("{}: tensor {tensor:?} is stored as {element}, which lathe cannot decode", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its element type.
        element: ElementType,
    },

    /// Numbers that the tensor does not have.
    #[error("{}: tensor {tensor:?} has {have} numbers, {} to {} were asked for", file.display(), range.start, range.end)]
    NumbersOutOfRange {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The numbers.
        range: Range<usize>,
        /// How many it has.
        have: usize,
    },

    /// Rows that the tensor does not have.
    #[error("{}: tensor {tensor:?} has {have} rows, rows {} to {} were asked for", file.display(), rows.start, rows.end)]
    RowsOutOfRange {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The rows that were asked for.
        rows: Range<usize>,
        /// How many there are.
        have: usize,
    },

    /// An output slice of the wrong length.
    #[error("{}: the rows of tensor {tensor:?} are {needs} numbers, but the output holds {got}", file.display())]
    OutputLength {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Length that the rows need.
        needs: usize,
        /// Length of the output.
        got: usize,
    },

    /// An element type, name or value that the written format cannot express.
    #[error("{}: {field} cannot be written: {reason}", file.display())]
    Unwritable {
        /// The file to be written.
        file: PathBuf,
        /// The tensor or key.
        field: String,
        /// Why not.
        reason: String,
    },

    /// Numbers that the element type of their tensor cannot hold.
    #[error("{}: tensor {tensor:?} cannot be written: {source}", file.display())]
    Unencodable {
        /// The file to be written.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Why not; indices count from the tensor's first number.
        source: EncodeError,
    },

    /// A word that is the name of no element type.
    #[error("no element type is called {word:?}; lathe writes {writable}")]
    UnknownElementName {
        /// The word.
        word: String,
        /// Names of the types that can be written.
        writable: String,
    },

    /// Bytes for another tensor than the next one of the header.
    #[error("{}: got tensor {got:?} where the header has {expected}", file.display())]
    OutOfOrder {
        /// The file being written.
        file: PathBuf,
        /// The tensor that was handed over.
        got: String,
        /// The one that comes next.
        expected: String,
    },

    /// More bytes for a tensor than its shape has.
    #[error("{}: tensor {tensor:?} takes {needs} bytes, but got {got}", file.display())]
    WrongLength {
        /// The file being written.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Bytes that shape and type need.
        needs: usize,
        /// Bytes handed over so far.
        got: usize,
    },

    /// Finished before every tensor was handed over.
    #[error("{}: tensor {tensor:?} was announced but not handed over", file.display())]
    Unfinished {
        /// The file being written.
        file: PathBuf,
        /// The first tensor without all of its bytes.
        tensor: String,
    },
}

impl Error {
    /// What to do about it, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Error::NoFolder { .. } => "make the folder first, or name another one",
            Error::PickleOnly { .. } => {
                "convert them with `safetensors.torch.save_file`, or use a revision of the model that has model.safetensors"
            }
            Error::UnknownFormat { .. } => "give a folder with model.safetensors, a .safetensors file or a .gguf file",
            Error::NoWeights { .. } => "give the folder that holds config.json and the weights, or one weight file",
            Error::Ambiguous { .. } => "give the path of one of the files",
            Error::Truncated { .. } | Error::CountTooLarge { .. } | Error::OutOfFile { .. } => {
                "the file may be cut short: compare its size and hash with the source, or fetch it again"
            }
            Error::BigEndian { .. } => "convert it with gguf-convert-endian, which comes with the gguf package",
            Error::UnsupportedVersion { .. } => "convert the original model again with a current llama.cpp",
            Error::MissingFromShard { .. } | Error::BadSplit { .. } => {
                "all parts must lie in one folder, from one download, under their original names"
            }
            Error::Unreadable { .. } => "use an F32, F16 or BF16 file of the model, or a GGUF file",
            Error::Unencodable { source: EncodeError::RowLength { .. }, .. } => {
                "store this tensor in a type with smaller blocks (32 numbers in Q8_0, one in F16)"
            }
            Error::Unencodable { source: EncodeError::TooLarge { .. }, .. } => "store this tensor as F32",
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// Whether the user's input is wrong, as opposed to the machine, or lathe itself, failing.
    #[must_use]
    pub fn is_bad_input(&self) -> bool {
        match self {
            Error::Io { source, .. } => is_about_path(source),
            Error::OutOfOrder { .. } | Error::WrongLength { .. } | Error::Unfinished { .. } => false,
            _ => true,
        }
    }
}

/// Whether the system refuses the path that it was given, or what lies there, as opposed to a disk or a network that
/// fails.
#[must_use]
pub fn is_about_path(refusal: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        refusal.kind(),
        Kind::NotFound
            | Kind::PermissionDenied
            | Kind::AlreadyExists
            | Kind::NotADirectory
            | Kind::IsADirectory
            | Kind::DirectoryNotEmpty
            | Kind::ReadOnlyFilesystem
            | Kind::InvalidFilename
            | Kind::InvalidInput
            // Bytes that are no text, where a text is read.
            | Kind::InvalidData
    )
}
