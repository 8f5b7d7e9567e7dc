//! Flags of `lathe generate` and `lathe chat`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lathe_decode::{Sampling, Truncation};
use lathe_lab::generate::{DecodingSpec, EndTokens};

use super::ComputeArg;
use super::ensemble::{TogetherArgs, Voices};

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// The model; MODEL+MODEL is an ensemble of several
    #[arg(value_name = "MODEL")]
    pub(crate) model: Voices,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    /// Most probable tokens to record for each step
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) alternatives: usize,
    /// Arithmetic of the model; what is not f32 is faster, and rounds: probabilities are then those of the rounded model
    #[arg(long, value_name = "NAME", value_enum, default_value = "f32")]
    pub(crate) compute: ComputeArg,
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(flatten)]
    pub(crate) how: TogetherArgs,
    /// Texts that are written at once [default: as many as have room in 1 GiB, at most 64]; none depends on it
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<usize>,
    /// Write JSON lines to this file; a run that was killed goes on where it stopped
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Leave the steps out of the JSON lines: sums only
    #[arg(long)]
    pub(crate) no_steps: bool,
    /// Print JSON lines to standard output, or with --out what was done as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to go on from.
#[derive(Debug, Args)]
pub(crate) struct AskArgs {
    #[command(flatten)]
    pub(crate) prompt: PromptArgs,
    /// Field of JSON records that holds the prompt
    #[arg(long, value_name = "NAME", default_value = "prompt")]
    pub(crate) field: String,
    /// The prompt is something to be answered, in the model's chat template, and not the beginning of a text
    #[arg(long)]
    pub(crate) chat: bool,
    /// System prompt
    #[arg(long, value_name = "TEXT", requires = "chat")]
    pub(crate) system: Option<String>,
    /// Texts for each prompt
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) samples: usize,
}

#[derive(Debug, Args)]
#[group(required = false, multiple = false)]
pub(crate) struct PromptArgs {
    /// Text to go on from [default: none, the model's start token]
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
    /// Token ids to go on from, taken as they are
    #[arg(long, value_name = "5,6,7", value_delimiter = ',')]
    pub(crate) prompt_ids: Option<Vec<u32>>,
    /// File with prompts: JSON lines, or one plain text
    #[arg(long, value_name = "FILE")]
    pub(crate) prompts: Option<PathBuf>,
}

/// How a text is drawn and when it is over, whoever writes it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct DrawArgs {
    /// Divides the logits: 1 is the model as it is, 0 the most probable token [default: 1; of ensembles 0]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub(crate) temperature: Option<f64>,
    /// Seed of all draws
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// End a text before this string; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Go on after the model's end tokens
    #[arg(long)]
    pub(crate) ignore_end: bool,
    /// Tokens after which every text ends
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) max_tokens: usize,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    #[command(flatten)]
    pub(crate) draw: DrawArgs,
    /// Draw from the K most probable tokens
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<usize>,
    /// Draw from the fewest tokens whose mass reaches P (nucleus, top-π)
    #[arg(long, value_name = "P")]
    pub(crate) top_p: Option<f64>,
    /// Draw from tokens with at least this share of the largest probability
    #[arg(long, value_name = "SHARE")]
    pub(crate) min_p: Option<f64>,
    /// Draw from the most typical tokens whose mass reaches P
    #[arg(long, value_name = "P")]
    pub(crate) typical: Option<f64>,
    /// Divides positive logits of tokens that were there before, multiplies negative ones
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub(crate) repetition_penalty: f64,
    /// Subtracted from logits of tokens that were drawn before
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    pub(crate) presence_penalty: f64,
    /// End a text at these token ids
    #[arg(long, value_name = "5,6", value_delimiter = ',')]
    pub(crate) stop_ids: Vec<u32>,
    /// Tokens before which no text ends
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) min_tokens: usize,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global normalisation")]
pub(crate) struct GlobalArgs {
    /// Where the cut of the truncation is made up for
    #[arg(long, value_name = "WHERE", default_value = "local")]
    pub(crate) normalise: Normalisation,
    /// How globally normalised texts are drawn
    #[arg(long, value_name = "NAME", default_value = "smc")]
    pub(crate) sampler: Sampler,
    /// imh: local texts for each text of the result; sir: local texts in the pool
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub(crate) proposals: usize,
    /// imh: keep all states of a chain after this many, not only the last
    #[arg(long, value_name = "N")]
    pub(crate) burn_in: Option<usize>,
    /// imh: run so many times, each on a bootstrap sample of the same local texts, as the paper does
    #[arg(long, value_name = "RUNS")]
    pub(crate) bootstrap: Option<usize>,
    /// imh: leave out texts without a letter or digit, as the paper does
    #[arg(long)]
    pub(crate) prune: bool,
    /// rejection: local texts to draw at most for each prompt
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(crate) max_draws: usize,
    /// smc: resample when the effective sample size is below this share of the texts
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    pub(crate) resample_below: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Normalisation {
    /// At every step: ordinary sampling
    Local,
    /// Once over whole texts: the model's own distribution on the texts that truncation leaves
    Global,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sampler {
    /// Independent Metropolis–Hastings, one chain for each text
    Imh,
    /// Exact rejection
    Rejection,
    /// Importance resampling from a pool
    Sir,
    /// Sequential Monte Carlo, all texts together
    Smc,
}

#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// The model; MODEL+MODEL is an ensemble of several
    #[arg(value_name = "MODEL")]
    pub(crate) model: Voices,
    /// System prompt
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Arithmetic of the model; what is not f32 is faster, and rounds
    #[arg(long, value_name = "NAME", value_enum, default_value = "f32")]
    pub(crate) compute: ComputeArg,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) how: TogetherArgs,
}

impl DrawArgs {
    /// Without rules on tokens; `temperature` is the usual one.
    pub(crate) fn spec(self, temperature: f64) -> DecodingSpec {
        DecodingSpec {
            sampling: Sampling { temperature: self.temperature.unwrap_or(temperature), ..Sampling::default() },
            stop: self.stop,
            end_tokens: if self.ignore_end { EndTokens::Ignore } else { EndTokens::End },
            max_tokens: self.max_tokens,
            seed: self.seed,
            ..DecodingSpec::default()
        }
    }
}

impl SamplingArgs {
    pub(crate) fn spec(self, alternatives: usize, temperature: f64) -> DecodingSpec {
        let truncation = Truncation { top_k: self.top_k, top_p: self.top_p, min_p: self.min_p, typical: self.typical };
        let decoding = self.draw.spec(temperature);
        DecodingSpec {
            sampling: Sampling {
                truncation,
                repetition_penalty: self.repetition_penalty,
                presence_penalty: self.presence_penalty,
                ..decoding.sampling
            },
            stop_ids: self.stop_ids,
            min_tokens: self.min_tokens,
            alternatives,
            ..decoding
        }
    }
}
