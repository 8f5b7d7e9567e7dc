//! `metrics.jsonl`: a line for each step, on disk before the next one begins.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use lathe_tune::StepReport;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::store::write_lines;

/// Numbers of what is watched: by what it is, and by name.
pub type Watched = BTreeMap<String, BTreeMap<String, f64>>;

/// A step. Step 0 is the look before the first one and has nothing but that.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepLine {
    /// From 1.
    pub step: usize,
    /// Readings of the data that were complete before it.
    #[serde(default)]
    pub epoch: u64,
    /// Mean loss over the step's targets before its update: nats per token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Learning rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Length of the gradient before it was clipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradient_norm: Option<f64>,
    /// Tokens that were predicted.
    #[serde(default)]
    pub targets: u64,
    /// Tokens that were read.
    #[serde(default)]
    pub tokens: u64,
    /// Seconds of the step, without looks and checkpoints.
    #[serde(default)]
    pub seconds: f64,
    /// What is watched, after the step.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub watched: Watched,
}

impl StepLine {
    pub(super) fn of(report: &StepReport, epoch: u64, seconds: f64) -> Self {
        Self {
            step: report.step,
            epoch,
            loss: Some(report.loss),
            learning_rate: Some(report.rate),
            gradient_norm: Some(report.gradient_norm),
            targets: report.terms,
            tokens: report.tokens,
            seconds,
            watched: Watched::new(),
        }
    }
}

/// The file, open at its end, and its lines.
pub(super) struct Metrics {
    path: PathBuf,
    file: File,
    pub(super) lines: Vec<StepLine>,
}

impl Metrics {
    /// Opens the file of a run that goes on after `step` steps: later lines are removed, for these steps are done again.
    pub(super) fn open(path: &Path, step: Option<usize>) -> Result<Self, Error> {
        let mut lines = Vec::new();
        if let (Some(step), Ok(text)) = (step, std::fs::read_to_string(path)) {
            // The last line may have been cut.
            let read = text.lines().map_while(|line| serde_json::from_str::<StepLine>(line).ok());
            lines = read.filter(|line| line.step <= step).collect();
        }
        write_lines(path, &lines)?;
        let open = File::options().append(true).open(path);
        Ok(Self { file: open.map_err(|source| Error::Write { file: path.into(), source })?, path: path.into(), lines })
    }

    pub(super) fn append(&mut self, line: StepLine) -> Result<(), Error> {
        let mut bytes = serde_json::to_vec(&line)?;
        bytes.push(b'\n');
        self.file.write_all(&bytes).map_err(|source| Error::Write { file: self.path.clone(), source })?;
        self.lines.push(line);
        Ok(())
    }
}
