//! End-to-end tests: everything here runs the real binary, in a folder of its own, without a network.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod adapter;
mod bench;
mod context;
mod diff;
mod embed;
mod ensemble;
mod errors;
mod eval;
mod eval_embed;
mod experiment;
mod export;
mod fairness;
mod generate;
mod gguf;
mod help;
mod list;
mod measure;
mod merge;
mod models;
mod page;
mod real_model;
mod report;
mod shape;
mod tensors;
mod timing;
mod tokenizer;
mod trace;
mod tune;
mod upcycle;
mod vocabulary;
