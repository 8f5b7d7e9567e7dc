//! `lathe ensemble`, and `lathe generate` with several models.

use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::Result;
use lathe_lab::ensemble::{EnsembleWriteSpec, write_together};
use lathe_lab::generate::{DecodingSpec, Heard, Prompts};
use lathe_lab::{Compute, Context};
use lathe_model::reference::ModelReference;

use super::decode::asked;
use super::{print, print_json};
use crate::args::{AskArgs, EnsembleArgs, TogetherArgs};
use crate::show;
use crate::stream::TextStream;

/// What to write, and how to show it.
pub(super) struct Write {
    spec: EnsembleWriteSpec,
    json: bool,
}

impl Write {
    pub(super) fn of(
        models: Vec<ModelReference>,
        ask: AskArgs,
        decoding: DecodingSpec,
        how: &TogetherArgs,
        compute: Compute,
        out: Option<PathBuf>,
        json: bool,
    ) -> Result<Self> {
        let samples = ask.samples;
        let (prompts, turn) = asked(ask)?;
        let (ensemble, explain, page) = (how.spec(models), how.explain.unwrap_or(0), how.page.clone());
        let spec = EnsembleWriteSpec { ensemble, prompts, turn, decoding, compute, samples, explain, out, page };
        Ok(Self { spec, json })
    }
}

pub(super) fn run_ensemble(args: EnsembleArgs, context: &Context<'_>) -> Result<()> {
    let decoding = args.draw.spec(0.0);
    write(Write::of(args.models, args.ask, decoding, &args.how, args.compute.into(), args.out, args.json)?, context)
}

/// Writes texts: one as it comes, several when each is complete, records as lines.
pub(super) fn write(what: Write, context: &Context<'_>) -> Result<()> {
    let Write { spec, json } = what;
    let streams = spec.out.is_none() && !json && spec.samples == 1 && !matches!(spec.prompts, Prompts::File { .. });
    let mut stream = TextStream::new(io::stdout());
    let mut failed = None;
    let result = write_together(&spec, context, &mut |heard| {
        let written = match heard {
            _ if spec.out.is_some() => Ok(()),
            Heard::Text { bytes, .. } if streams => stream.write(bytes),
            Heard::String(string) if json => {
                serde_json::to_string(string).map_err(io::Error::from).and_then(|line| writeln!(io::stdout(), "{line}"))
            }
            Heard::String(string) if !streams => {
                let heading = format!("--- prompt {}, text {}\n", string.prompt, string.sample);
                stream.write(format!("{heading}{}\n", string.text).as_bytes())
            }
            _ => Ok(()),
        };
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    });
    if let Some(error) = failed {
        return Err(error.into());
    }
    let result = result?;
    if streams {
        stream.finish()?;
        print("\n")?;
    }
    match (&spec.out, json) {
        (Some(_), true) => print_json(&result),
        (Some(_), false) => print(&show::together(&result)),
        (None, _) => Ok(io::stderr().write_all(show::together(&result).as_bytes())?),
    }
}
