//! `lathe tune tokenizer`.

use anyhow::Result;
use lathe_lab::{Context, TuneTokenizerSpec, tune_tokenizer};

use super::tokens::texts;
use super::{print, print_json};
use crate::args::TokenizerArgs;
use crate::show;

pub(super) fn run_tokenizer(args: TokenizerArgs, context: &Context<'_>) -> Result<()> {
    let texts = texts(args.data, &args.field);
    let spec = TuneTokenizerSpec { texts, vocab_size: args.vocab_size, study: args.study, out: args.out };
    let result = tune_tokenizer(&spec, context)?;
    if args.json { print_json(&result) } else { print(&show::tokenizer(&result)) }
}
