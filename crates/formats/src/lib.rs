//! Checkpoint files: memory-mapped GGUF and safetensors.
//!
//! [`Checkpoint::open`] maps a model's files and reads their headers; [`TensorView::decode_rows`] turns stored rows
//! into f32, whatever their type, and [`encode_rows`] goes the other way; [`mod@write`] makes new files. This crate
//! knows nothing of models: names and metadata keys mean nothing to it, a few structural GGUF keys apart
//! (`general.alignment`, `split.*`).
//!
//! What it promises of untrusted files: every count, length, offset and size is compared with what the file
//! holds before anything is allocated, no arithmetic on them can overflow, no input makes it panic, and what it
//! allocates is at most a small multiple of the file.

mod blocks;
mod checkpoint;
mod element;
mod encode;
mod error;
mod gguf;
mod gguf_metadata;
mod new_file;
mod safetensors;
mod tensor;
pub mod write;

pub use blocks::integers::{GroupOffset, IntegerLayout, ScalePrecision};
pub use checkpoint::{Checkpoint, Format, Metadata, StoredFile};
pub use element::ElementType;
pub use encode::{EncodeError, encode_rows};
pub use error::{Error, is_about_path};
pub use gguf_metadata::{GgufArray, GgufMetadata, GgufValue, optional};
pub use new_file::NewFile;
pub use tensor::{TensorInfo, TensorView};
