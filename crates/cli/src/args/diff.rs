//! Flags of `lathe diff`.

use std::path::PathBuf;

use clap::Args;
use lathe_model::reference::ModelReference;

use super::model;

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The model that distances are relative to
    #[arg(value_name = "A", value_parser = model)]
    pub(crate) a: ModelReference,
    /// The other model, of the same layers and widths
    #[arg(value_name = "B", value_parser = model)]
    pub(crate) b: ModelReference,
    /// What both were made from: also compare what A and B changed of it
    #[arg(long, value_name = "C", value_parser = model)]
    pub(crate) base: Option<ModelReference>,
    /// Write a page with maps of layers and kinds of weights
    #[arg(long, value_name = "FILE.html")]
    pub(crate) out: Option<PathBuf>,
    /// Compute the effective rank of every difference, those of large matrices, embedding and head included
    #[arg(long)]
    pub(crate) full: bool,
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
