//! Flags of `lathe measure tokens`.

use std::path::PathBuf;

use clap::Args;
use lathe_lab::measure::RunCheckpoint;
use lathe_model::reference::ModelReference;

use super::model;

#[derive(Debug, Args)]
pub(crate) struct TokensArgs {
    /// The model
    #[arg(value_name = "MODEL", value_parser = model, required_unless_present_any = ["checkpoint", "runs", "tuned"], conflicts_with_all = ["checkpoint", "runs", "tuned"])]
    pub(crate) model: Option<ModelReference>,
    /// Texts: plain files, JSON lines (.jsonl), `sample` or `sample:NAME` for the built-in ones
    #[arg(value_name = "DATA", required_unless_present_any = ["checkpoint", "runs", "tuned"])]
    pub(crate) data: Vec<String>,
    /// Field of JSON records that holds the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub(crate) field: String,
    /// Sort token types by how often they are targets in these texts [default: those that are scored, or --training]
    #[arg(long, value_name = "TEXT", num_args = 1..)]
    pub(crate) counts: Vec<String>,
    /// Compare checkpoints of training runs instead: weight_decay=0.1,seed=1,step=400,variant=NAME,model=PATH
    #[arg(long, value_name = "LABELS", value_parser = checkpoint, requires = "training")]
    pub(crate) checkpoint: Vec<RunCheckpoint>,
    /// The same from a file of JSON lines
    #[arg(long, value_name = "FILE", requires = "training")]
    pub(crate) runs: Option<PathBuf>,
    /// The same from the folder of a `lathe tune`: every `step-N` in it, and the model that it ended with
    #[arg(long, value_name = "DIR", requires = "training")]
    pub(crate) tuned: Vec<PathBuf>,
    /// With checkpoints: texts that they were trained on
    #[arg(long, value_name = "TEXT", num_args = 1.., conflicts_with = "model")]
    pub(crate) training: Vec<String>,
    /// With checkpoints: texts that they were not trained on
    #[arg(long, value_name = "TEXT", num_args = 1.., requires = "training", conflicts_with = "model")]
    pub(crate) held_out: Vec<String>,
    /// With checkpoints: score about so many tokens of each set of texts, in whole texts [default: all]
    #[arg(long, value_name = "N", requires = "training", conflicts_with = "model")]
    pub(crate) tokens: Option<usize>,
    /// With checkpoints: write a JSON line about each; an interrupted comparison goes on from it
    #[arg(long, value_name = "FILE.jsonl", requires = "training", conflicts_with = "model")]
    pub(crate) out: Option<PathBuf>,
    /// With checkpoints: write a page with figures
    #[arg(long, value_name = "FILE.html", requires = "training", conflicts_with = "model")]
    pub(crate) page: Option<PathBuf>,
    /// Tokens of one forward pass; longer texts are cut
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub(crate) window: usize,
    /// Seed of the bootstrap over documents
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `weight_decay=0.1,seed=1,step=400,model=PATH`: the path comes last, so that it may hold commas.
fn checkpoint(text: &str) -> Result<RunCheckpoint, String> {
    const WANTED: &str = "\nhint: weight_decay=0.1,seed=1,step=400,variant=NAME,model=PATH, with `model` last";
    let Some((labels, path)) = text.split_once("model=") else {
        return Err(format!("`model=` is missing{WANTED}"));
    };
    let model = model(path)?;
    let mut weight_decay = None;
    let (mut seed, mut step, mut variant) = (0, None, String::new());
    for label in labels.split(',').filter(|label| !label.is_empty()) {
        let (name, value) = label.split_once('=').ok_or_else(|| format!("`{label}` has no value{WANTED}"))?;
        let whole = || value.parse::<u64>().map_err(|_| format!("`{name}` is `{value}`, which is no whole number"));
        match name {
            "weight_decay" => {
                let number = value.parse::<f64>().map_err(|_| format!("`{name}` is `{value}`, which is no number"))?;
                weight_decay = Some(number);
            }
            "seed" => seed = whole()?,
            "step" => step = Some(whole()?),
            "variant" => value.clone_into(&mut variant),
            _ => return Err(format!("there is no label `{name}`{WANTED}")),
        }
    }
    let weight_decay = weight_decay.ok_or_else(|| format!("`weight_decay=` is missing{WANTED}"))?;
    Ok(RunCheckpoint { model, variant, weight_decay, seed, step })
}
