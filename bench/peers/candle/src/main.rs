//! Times candle-transformers on a GGUF file, in the way of `lathe bench`.
//!
//! usage: peer-candle MODEL.gguf [--prompt 512] [--decode 64] [--runs 5]
//!
//! Its quantised models compute the logits of the last position only, so reading with the logits of all positions is not
//! timed. Several sequences at once fail in those that expect contiguous rows, and are then a note. Threads are those of
//! `RAYON_NUM_THREADS`. Prints one JSON line for each thing timed: the seconds of every run, after one that does not count.

use std::error::Error;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::time::Instant;

use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Tensor};
use candle_transformers::models::{quantized_gemma3, quantized_llama, quantized_qwen2};
use serde_json::json;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Tokens before the first one that is written, as in lathe and the other peers.
const PROMPT_BEFORE_WRITING: usize = 16;
/// A row that has taken this many seconds ends after its first run that counts.
const LONG: f64 = 30.0;

enum Model {
    Llama(quantized_llama::ModelWeights),
    Qwen2(quantized_qwen2::ModelWeights),
    Gemma3(quantized_gemma3::ModelWeights),
}

struct Options {
    gguf: PathBuf,
    prompt: usize,
    decode: usize,
    runs: usize,
}

fn main() -> Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    let started = Instant::now();
    let (mut model, vocabulary) = Model::load(&options.gguf)?;
    print(json!({"what": "loading", "seconds": [started.elapsed().as_secs_f64()]}));

    let n = options.prompt;
    let prompt = ids(1, n, vocabulary)?;
    timed(&options, &format!("reading {n} tokens, logits of the last"), n, || {
        let started = Instant::now();
        model.forward(&prompt, 0)?;
        Ok(started.elapsed().as_secs_f64())
    })?;
    for batch in [1, 16] {
        let start = ids(batch, PROMPT_BEFORE_WRITING, vocabulary)?;
        let next = ids(batch, 1, vocabulary)?;
        timed(
            &options,
            &format!("writing {} tokens, {batch} at once", options.decode),
            batch * options.decode,
            || {
                model.forward(&start, 0)?;
                let started = Instant::now();
                for position in PROMPT_BEFORE_WRITING..PROMPT_BEFORE_WRITING + options.decode {
                    model.forward(&next, position)?;
                }
                Ok(started.elapsed().as_secs_f64())
            },
        )?;
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes: Option<u64> = peak.and_then(|line| line.split_whitespace().next()?.parse().ok());
    print(json!({"what": "peak memory", "bytes": kilobytes.map(|kilobytes| kilobytes * 1024)}));
    Ok(())
}

impl Model {
    /// The model and the size of its vocabulary.
    fn load(gguf: &PathBuf) -> Result<(Self, usize)> {
        let mut file = BufReader::new(File::open(gguf)?);
        let content = Content::read(&mut file)?;
        let architecture = content.metadata.get("general.architecture").ok_or("no architecture")?.to_string()?.clone();
        let embedding = content.tensor_infos.get("token_embd.weight").ok_or("no embedding")?;
        let vocabulary = embedding.shape.dims()[0];
        let device = &Device::Cpu;
        let model = match architecture.as_str() {
            "llama" => Self::Llama(quantized_llama::ModelWeights::from_gguf(content, &mut file, device)?),
            "qwen2" => Self::Qwen2(quantized_qwen2::ModelWeights::from_gguf(content, &mut file, device)?),
            "gemma3" => Self::Gemma3(quantized_gemma3::ModelWeights::from_gguf(content, &mut file, device)?),
            other => return Err(format!("no model for {other}").into()),
        };
        Ok((model, vocabulary))
    }

    /// Logits of the last position of every sequence; position 0 begins anew.
    fn forward(&mut self, ids: &Tensor, position: usize) -> Result<Tensor> {
        Ok(match self {
            Self::Llama(model) => model.forward(ids, position)?,
            Self::Qwen2(model) => model.forward(ids, position)?,
            Self::Gemma3(model) => model.forward(ids, position)?,
        })
    }
}

/// Arbitrary tokens, `[batch, count]`.
fn ids(batch: usize, count: usize, vocabulary: usize) -> Result<Tensor> {
    let ids =
        (0..batch * count).map(|i| u32::try_from(i * 7919 % vocabulary)).collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(Tensor::from_vec(ids, (batch, count), &Device::Cpu)?)
}

fn timed(options: &Options, what: &str, tokens: usize, mut run: impl FnMut() -> Result<f64>) -> Result<()> {
    let mut seconds = Vec::new();
    let mut taken = 0.0;
    for i in 0..=options.runs {
        let of_run = match run() {
            Ok(of_run) => of_run,
            Err(error) => {
                print(json!({"what": what, "note": error.to_string().lines().next()}));
                return Ok(());
            }
        };
        taken += of_run;
        if i > 0 {
            seconds.push(of_run);
        }
        if taken > LONG && i >= 1 {
            break;
        }
    }
    print(json!({"what": what, "tokens": tokens, "seconds": seconds}));
    Ok(())
}

fn print(mut row: serde_json::Value) {
    row["who"] = "candle-transformers 0.11".into();
    println!("{row}");
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self { gguf: PathBuf::new(), prompt: 512, decode: 64, runs: 5 };
        while let Some(argument) = arguments.next() {
            let mut number = || Ok::<_, Box<dyn Error>>(arguments.next().ok_or("a number is missing")?.parse()?);
            match argument.as_str() {
                "--prompt" => options.prompt = number()?,
                "--decode" => options.decode = number()?,
                "--runs" => options.runs = number()?,
                _ => options.gguf = argument.into(),
            }
        }
        Ok(options)
    }
}
