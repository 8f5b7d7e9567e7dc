//! From files to examples, their audit, and the order in which they are read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lathe_measure::run::{Document, windows};
use lathe_model::reference::data_file;
use lathe_tokenizer::{ChatTemplate, Markup, Tokenizer};
use lathe_tune::packing::best_fit_decreasing;
use lathe_tune::{Audit, Epochs, Example, Limits, Order, Reading, Shares, Source, prepare};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::records::{self, BadRecord, Encoder, Records};
use super::spec::{Packing, TuneSpec, refuse};
use super::start::Start;
use crate::documents::{read_texts, tokenise};
use crate::{Context, Error};

/// The data of a run before its first step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TuneAudit {
    /// Records or texts that were read, bad ones included.
    pub records: usize,
    /// How many are of each kind.
    pub kinds: BTreeMap<String, usize>,
    /// Records that were left out because they cannot be used.
    pub bad: Vec<BadRecord>,
    /// Prompts and completions whose border is inside of a token; the token counts as the completion's.
    pub joined: usize,
    /// Labels of the examples.
    #[serde(flatten)]
    pub labels: Audit,
    /// Tokens of an example at most.
    pub max_length: usize,
    /// Units that batches are made of: examples, or bins of them.
    pub units: usize,
    /// What a reader should know before the first step.
    pub warnings: Vec<String>,
}

/// What a run reads.
pub(super) struct Data {
    pub(super) examples: Vec<Example>,
    pub(super) audit: TuneAudit,
    pub(super) order: Order,
    /// SHA-256 of all examples.
    pub(super) sha256: String,
}

/// What turns records into the examples of one model.
pub(super) struct Reader<'a> {
    pub(super) spec: &'a TuneSpec,
    pub(super) tokenizer: Option<Tokenizer>,
    template: Option<ChatTemplate>,
    vocab_size: usize,
    limits: Limits,
}

impl<'a> Reader<'a> {
    pub(super) fn new(spec: &'a TuneSpec, start: &Start) -> Result<Self, Error> {
        /// Of an example, where nothing is said: much longer ones take much memory.
        const USUAL: usize = 1024;
        let decoder = start.spec();
        let (field, asked) = match spec.window {
            Some(window) => ("window", Some(window)),
            None => ("--max-length", spec.max_length),
        };
        let limit = decoder.context_length;
        let max_length = asked.unwrap_or(USUAL.min(limit));
        if max_length > limit {
            let problem = format!("{max_length} tokens do not fit the context of {} ({limit})", spec.model_name());
            return Err(refuse(field, problem, None));
        }
        let tokenizer = start.tokenizer()?;
        if let Some(tokenizer) = tokenizer.as_ref().filter(|tokenizer| tokenizer.vocab_size() > decoder.vocab_size) {
            let sizes = format!("{} tokens for a vocabulary of {}", tokenizer.vocab_size(), decoder.vocab_size);
            // Files of models that lathe opens may say more tokens than the model has rows; a new model need not.
            if spec.from_scratch.is_some() {
                return Err(refuse(
                    "--tokenizer",
                    sizes,
                    Some("vocab_size of the configuration has to hold all of them"),
                ));
            }
        }
        let template = if tokenizer.is_some() { start.chat_template()? } else { None };
        let limits = Limits { max_length, overlong: spec.overlong, end_tokens: start.end_tokens(tokenizer.as_ref()) };
        Ok(Self { spec, tokenizer, template, vocab_size: decoder.vocab_size, limits })
    }

    /// Records of files as examples that fit.
    pub(super) fn records(&self, files: &[PathBuf]) -> Result<(Vec<Example>, TuneAudit), Error> {
        let encoder = Encoder {
            tokenizer: self.tokenizer.as_ref(),
            template: self.template.as_ref(),
            vocab_size: self.vocab_size,
            loss_on: self.spec.loss_on,
            markup: if self.spec.parse_markup { Markup::Parse } else { Markup::Text },
        };
        let read = records::read(files, &encoder, self.spec.bad_records)?;
        let Records { examples, count, kinds, bad, joined } = read;
        let (examples, labels) = prepare(examples, &self.limits);
        let kinds = kinds.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect();
        let max_length = self.limits.max_length;
        let mut audit = TuneAudit { records: count, kinds, bad, joined, labels, max_length, ..TuneAudit::default() };
        audit.warnings = audit.labels.warnings();
        if !audit.bad.is_empty() {
            audit.warnings.insert(0, format!("{} of {count} records cannot be used and are left out", audit.bad.len()));
        }
        if joined > 0 {
            audit.warnings.push(format!(
                "in {joined} records a token holds the end of the prompt and the beginning of the completion: begin completions \
                 with the space"
            ));
        }
        Ok((examples, audit))
    }

    /// Everything that a run reads.
    pub(super) fn data(&self, context: &Context<'_>) -> Result<Data, Error> {
        let (examples, mut audit, order) = if self.spec.sources.is_empty() {
            let files = self.files(context)?;
            let (examples, audit) = context.stage("reading the data", 0, "", || self.records(&files))?;
            let order = self.epochs(&examples);
            (examples, audit, order)
        } else {
            self.sources(context)?
        };
        if examples.is_empty() {
            let field = if self.spec.sources.is_empty() { "data" } else { "sources" };
            let problem = format!("nothing in {} records is to be predicted", audit.records);
            return Err(refuse(field, problem, Some("--loss-on all predicts prompts too")));
        }
        audit.units = match &order {
            Order::Epochs(epochs) => epochs.units(),
            Order::Shares(_) => examples.len(),
        };
        Ok(Data { sha256: hash(&examples), examples, audit, order })
    }

    fn files(&self, context: &Context<'_>) -> Result<Vec<PathBuf>, Error> {
        let Some(package) = &self.spec.package else { return Ok(self.spec.data.clone()) };
        let files = self.spec.data.iter().map(|name| data_file(package, &name.to_string_lossy(), context.home));
        Ok(files.collect::<Result<_, _>>()?)
    }

    fn epochs(&self, examples: &[Example]) -> Order {
        let spec = self.spec;
        let mut units = match spec.packing {
            Packing::None => (0..examples.len()).map(|index| vec![index]).collect(),
            Packing::BestFit => {
                let lengths: Vec<usize> = examples.iter().map(|example| example.ids.len()).collect();
                best_fit_decreasing(&lengths, self.limits.max_length)
            }
        };
        if spec.order == Reading::File {
            units.iter_mut().for_each(|unit| unit.sort_unstable());
            units.sort_by_key(|unit| unit.first().copied());
        }
        let epochs = if spec.steps.is_some() { None } else { Some(spec.epochs.unwrap_or(1)) };
        Order::Epochs(Epochs::new(units, spec.batch, spec.accumulate, spec.order, spec.seed, epochs))
    }

    /// Windows of texts, as the measurements cut them.
    fn sources(&self, context: &Context<'_>) -> Result<(Vec<Example>, TuneAudit, Order), Error> {
        let missing = || refuse("sources", "the model has no tokenizer, so texts cannot be read", None);
        let tokenizer = self.tokenizer.as_ref().ok_or_else(missing)?;
        let (mut all, mut sources, mut records) = (Vec::new(), Vec::new(), 0);
        for source in &self.spec.sources {
            let texts = read_texts(&source.texts, context)?;
            let documents: Vec<Document> =
                texts.iter().map(|text| tokenise(tokenizer, &text.text)).collect::<Result<_, _>>()?;
            let windows = windows(&documents, self.limits.max_length);
            if windows.is_empty() {
                let problem = format!("none of {} texts has two tokens", texts.len());
                return Err(refuse("sources", problem, None));
            }
            records += texts.len();
            let first = all.len();
            let lengths = windows.iter().map(|window| (window.ids.len(), (window.ids.len() - window.context) as u64));
            sources.push(Source { texts: texts.len(), first, lengths: lengths.collect(), share: source.share });
            all.extend(windows.into_iter().map(|window| Example::from_position(window.ids, window.context)));
        }
        // Windows fit, and each predicts something: they keep their places.
        let limits = Limits { end_tokens: None, max_length: usize::MAX, ..self.limits.clone() };
        let (examples, labels) = prepare(all, &limits);
        let kinds = BTreeMap::from([("text".to_owned(), records)]);
        let max_length = self.limits.max_length;
        let audit = TuneAudit { records, kinds, labels, max_length, ..TuneAudit::default() };
        let tokens = self.spec.tokens.unwrap_or(max_length);
        Ok((examples, audit, Order::Shares(Shares::new(self.spec.seed, tokens, sources))))
    }
}

fn hash(examples: &[Example]) -> String {
    let mut all = Sha256::new();
    for example in examples {
        all.update((example.ids.len() as u64).to_le_bytes());
        example.ids.iter().for_each(|id| all.update(id.to_le_bytes()));
        for label in &example.labels {
            all.update(label.map_or(u64::MAX, u64::from).to_le_bytes());
        }
    }
    all.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
