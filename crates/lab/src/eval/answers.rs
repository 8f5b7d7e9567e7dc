//! Who is asked what: answers from disk where they are, from models where they are not.

use std::ops::ControlFlow;
use std::path::PathBuf;

use lathe_model::reference::ModelReference;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::items::{chosen, written};
use super::questions::{Ask, Choice};
use super::subject::{Failed, Manner, OptionScore, Overlong, Subject, Writing, Written};
use super::task::Score;
use super::together::Together;
use super::{Asked, EvalSpec, ItemRecord, items};
use crate::ensemble::{EnsembleSpec, Members, Writing as EnsembleWriting};
use crate::generate::Turn;
use crate::load::fingerprint;
use crate::store::Store;
use crate::{Compute, Context, Error, Loaded, load};

/// The answers of one model or ensemble to one task.
pub(super) struct Collected {
    pub(super) items: Vec<ItemRecord>,
    /// Questions that an earlier run had asked.
    pub(super) resumed: usize,
    pub(super) seconds: f64,
    pub(super) target: Option<PathBuf>,
}

/// The answers of all models, then of all ensembles, each to all tasks.
pub(super) fn answers(
    spec: &EvalSpec,
    names: &[String],
    tasks: &[Asked],
    context: &Context<'_>,
) -> Result<Vec<Vec<Collected>>, Error> {
    let (of_models, of_ensembles) = names.split_at(spec.models.len());
    // What is in the way is said before a model is loaded.
    let plan = |models: &[ModelReference], ensemble, name| {
        let sums = models.iter().map(|model| fingerprint(model, context));
        let sums = spec.out.is_some().then(|| sums.collect::<Result<Vec<_>, _>>()).transpose()?;
        let sum = sums.map(|sums| sums.join("+"));
        tasks.iter().map(|task| Plan::of(spec, sum.as_deref(), ensemble, name, task)).collect::<Result<Vec<_>, Error>>()
    };
    let mut plans = Vec::with_capacity(names.len());
    for (model, name) in spec.models.iter().zip(of_models) {
        plans.push(plan(std::slice::from_ref(model), None, name)?);
    }
    for (ensemble, name) in spec.ensembles.iter().zip(of_ensembles) {
        for score in tasks.iter().map(|task| &task.task.score) {
            ensemble.check(&writing(score))?;
        }
        plans.push(plan(&ensemble.members, Some(ensemble), name)?);
    }
    let ensemble_plans = plans.split_off(spec.models.len());
    let manner = Manner { turn: spec.turn.clone(), overlong: spec.overlong, batch: spec.batch };
    let mut answered = Vec::with_capacity(names.len());
    for ((model, name), plans) in spec.models.iter().zip(of_models).zip(plans) {
        answered.push(by_model(Who::Named(model), name, plans, spec, tasks, &manner, context)?);
    }
    answered.extend(by_ensembles(of_ensembles, ensemble_plans, spec, tasks, &manner, context)?);
    Ok(answered)
}

/// A model that answers: one that is loaded when something is asked, or that was before.
#[derive(Clone, Copy)]
enum Who<'a> {
    Named(&'a ModelReference),
    Loaded(&'a Loaded),
}

/// The answers of a model that is loaded; nothing is kept.
pub(super) fn answers_of(
    loaded: &Loaded,
    name: &str,
    spec: &EvalSpec,
    tasks: &[Asked],
    context: &Context<'_>,
) -> Result<Vec<Collected>, Error> {
    let plans = tasks.iter().map(|task| Plan::of(spec, None, None, name, task)).collect::<Result<_, _>>()?;
    let manner = Manner { turn: spec.turn.clone(), overlong: spec.overlong, batch: spec.batch };
    by_model(Who::Loaded(loaded), name, plans, spec, tasks, &manner, context)
}

/// One model answers all tasks.
fn by_model(
    who: Who<'_>,
    name: &str,
    plans: Vec<Plan>,
    spec: &EvalSpec,
    tasks: &[Asked],
    manner: &Manner,
    context: &Context<'_>,
) -> Result<Vec<Collected>, Error> {
    let within = spec.compute.within(context)?;
    let mut own = None;
    let mut answered = Vec::with_capacity(tasks.len());
    for (task, plan) in tasks.iter().zip(plans) {
        let target = plan.target;
        answered.push(match plan.answers {
            Answers::Finished(items) => Collected { resumed: items.len(), items, seconds: 0.0, target },
            Answers::Begun(store) => {
                let loaded = match (who, &mut own) {
                    (Who::Loaded(loaded), _) => loaded,
                    (Who::Named(_), Some(loaded)) => &*loaded,
                    (Who::Named(model), none) => none.insert(load(model, &within)?),
                };
                let resumed = store.len();
                let mut asking = Asking::new(vec![(store, plan.run)], task);
                let subject = Subject { loaded, manner };
                let (asked, seconds) = context.timed(|| {
                    context.stage(&format!("{name}: {}", task.task.name), asking.missing(), "questions", || match &task
                        .task
                        .score
                    {
                        Score::Likelihood { .. } => {
                            let (places, options) = asking.options();
                            let asked = subject.choices(&options, &mut |at, scores| {
                                asking.keep(0, places[at], Answer::Scores(scores), context)
                            });
                            asking.result(asked, &places, name)
                        }
                        Score::Generation { max_tokens, stop, .. } => {
                            let (places, prompts) = asking.prompts();
                            let writing = Writing { max_tokens: *max_tokens, stop };
                            let asked = subject.answers(&prompts, &writing, &mut |at, answer| {
                                asking.keep(0, places[at], Answer::Text(answer), context)
                            });
                            asking.result(asked, &places, name)
                        }
                    })
                });
                asked?;
                let items = asking.finish()?.remove(0);
                Collected { items, resumed, seconds, target }
            }
        });
    }
    Ok(answered)
}

/// All ensembles answer all tasks, question by question.
fn by_ensembles(
    names: &[String],
    plans: Vec<Vec<Plan>>,
    spec: &EvalSpec,
    tasks: &[Asked],
    manner: &Manner,
    context: &Context<'_>,
) -> Result<Vec<Vec<Collected>>, Error> {
    let mut references: Vec<ModelReference> = Vec::new();
    let places: Vec<Vec<usize>> = spec
        .ensembles
        .iter()
        .map(|ensemble| {
            let place = |model: &ModelReference| {
                references.iter().position(|other| other == model).unwrap_or_else(|| {
                    references.push(model.clone());
                    references.len() - 1
                })
            };
            ensemble.members.iter().map(place).collect()
        })
        .collect();
    let mut members = None;
    let mut answered: Vec<Vec<Collected>> = names.iter().map(|_| Vec::with_capacity(tasks.len())).collect();
    let mut plans: Vec<_> = plans.into_iter().map(Vec::into_iter).collect();
    for task in tasks {
        // The ensembles that have questions left, with their places among all.
        let (mut stores, mut left, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        let mut finished: Vec<Option<Collected>> = Vec::with_capacity(names.len());
        for (at, plan) in plans.iter_mut().filter_map(Iterator::next).enumerate() {
            finished.push(match plan.answers {
                Answers::Finished(items) => {
                    Some(Collected { resumed: items.len(), items, seconds: 0.0, target: plan.target })
                }
                Answers::Begun(store) => {
                    targets.push((store.len(), plan.target));
                    stores.push((store, plan.run));
                    left.push(at);
                    None
                }
            });
        }
        if !left.is_empty() {
            let members = match &mut members {
                Some(members) => members,
                none => none.insert(Members::load(&references, spec.compute, context)?),
            };
            let ensembles: Vec<_> = left.iter().map(|at| (&spec.ensembles[*at], places[*at].clone())).collect();
            let together = Together { members, ensembles: &ensembles, manner };
            let mut asking = Asking::new(stores, task);
            let name = if left.len() == 1 { names[left[0]].as_str() } else { "ensembles" };
            let mut seconds = vec![0.0; left.len()];
            let mut since = (context.seconds)();
            let mut lap = |of: usize| {
                let now = (context.seconds)();
                seconds[of] += now - since;
                since = now;
            };
            context.stage(&format!("{name}: {}", task.task.name), asking.missing(), "questions", || {
                match &task.task.score {
                    Score::Likelihood { .. } => {
                        let (places, options) = asking.options();
                        let wanted = asking.wanted(&places);
                        let asked = together.choices(&options, &|of, at| wanted[of][at], &mut |of, at, scores| {
                            lap(of);
                            asking.keep(of, places[at], Answer::Scores(scores), context)
                        });
                        asking.result(asked, &places, name)
                    }
                    Score::Generation { max_tokens, stop, .. } => {
                        let (places, prompts) = asking.prompts();
                        let wanted = asking.wanted(&places);
                        let writing = Writing { max_tokens: *max_tokens, stop };
                        let wanted = |of: usize, at: usize| wanted[of][at];
                        let asked = together.answers(&prompts, &writing, &wanted, context, &mut |of, at, answer| {
                            lap(of);
                            asking.keep(of, places[at], Answer::Text(answer), context)
                        });
                        asking.result(asked, &places, name)
                    }
                }
            })?;
            let items = asking.finish()?;
            for (((at, items), (resumed, target)), seconds) in left.iter().zip(items).zip(targets).zip(seconds) {
                finished[*at] = Some(Collected { items, resumed, seconds, target });
            }
        }
        answered.iter_mut().zip(finished).for_each(|(of, finished)| of.extend(finished));
    }
    Ok(answered)
}

/// How an ensemble would write answers, as far as its options depend on it.
fn writing(score: &Score) -> EnsembleWriting {
    let max_tokens = match score {
        Score::Generation { max_tokens, .. } => *max_tokens,
        Score::Likelihood { .. } => 1,
    };
    EnsembleWriting::greedy(max_tokens, &[])
}

/// What answers depend on: the first line of their partial file.
#[derive(Serialize)]
struct Head<'a> {
    lathe: &'static str,
    model_sha256: &'a str,
    task: &'a str,
    /// All that is asked, and what is right.
    questions_sha256: &'a str,
    score: &'a Score,
    turn: &'a Turn,
    overlong: Overlong,
    compute: Compute,
    #[serde(skip_serializing_if = "Option::is_none")]
    ensemble: Option<&'a EnsembleSpec>,
}

/// Where the answers of one model to one task come from.
struct Plan {
    /// Hash of the head, which every line of answers has.
    run: String,
    target: Option<PathBuf>,
    answers: Answers,
}

enum Answers {
    Finished(Vec<ItemRecord>),
    Begun(Store<ItemRecord>),
}

impl Plan {
    fn of(
        spec: &EvalSpec,
        model_sha256: Option<&str>,
        ensemble: Option<&EnsembleSpec>,
        model: &str,
        task: &Asked,
    ) -> Result<Self, Error> {
        let (Some(out), Some(model_sha256)) = (&spec.out, model_sha256) else {
            let store = Store::open(None, || Ok(()))?;
            return Ok(Self { run: String::new(), target: None, answers: Answers::Begun(store) });
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        let file: String = model.chars().map(|c| if is_plain(c) { c } else { '-' }).collect();
        let target = out.join(format!("{file}.{}.jsonl", task.task.name));
        let head = Head {
            lathe: env!("CARGO_PKG_VERSION"),
            model_sha256,
            task: &task.task.name,
            questions_sha256: &task.sha256,
            score: &task.task.score,
            turn: &spec.turn,
            overlong: spec.overlong,
            compute: spec.compute,
            ensemble,
        };
        let digest = Sha256::digest(serde_json::to_vec(&head)?);
        let run: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let answers = if target.exists() {
            let items = items::read(&target)?;
            if items.len() != task.questions.questions.len() || items.iter().any(|item| item.run != run) {
                return Err(Error::Spec {
                    field: "--out",
                    problem: format!("{} has the answers of a run with other settings", target.display()),
                    hint: Some("repeat that run's settings to use them again, or choose another folder".into()),
                });
            }
            Answers::Finished(items)
        } else {
            Answers::Begun(Store::open(Some(&target), || Ok(head))?)
        };
        Ok(Self { run, target: Some(target), answers })
    }
}

/// An answer as it comes.
enum Answer {
    Scores(Vec<OptionScore>),
    Text(Written),
}

/// One task, put to one or several at once.
struct Asking<'a> {
    task: &'a Asked,
    /// Of each that is asked: its answers, and the hash that each of them carries.
    stores: Vec<(Store<ItemRecord>, String)>,
    failed: Option<Error>,
}

impl<'a> Asking<'a> {
    fn new(stores: Vec<(Store<ItemRecord>, String)>, task: &'a Asked) -> Self {
        Self { task, stores, failed: None }
    }

    /// Answers that are missing.
    fn missing(&self) -> u64 {
        let all = self.task.questions.questions.len() as u64;
        self.stores.iter().map(|(store, _)| all - store.len() as u64).sum()
    }

    /// Questions that somebody has not answered.
    fn open(&self) -> impl Iterator<Item = usize> + '_ {
        let lacks = |at: usize| self.stores.iter().any(|(store, _)| store.get(at as u64).is_none());
        (0..self.task.questions.questions.len()).filter(move |at| lacks(*at))
    }

    fn options(&self) -> (Vec<usize>, Vec<&'a [Choice]>) {
        let task = self.task;
        let of = |at: usize| match &task.questions.questions[at].ask {
            Ask::Choose { options, .. } => Some((at, options.as_slice())),
            Ask::Write { .. } => None,
        };
        self.open().filter_map(of).unzip()
    }

    fn prompts(&self) -> (Vec<usize>, Vec<&'a str>) {
        let task = self.task;
        let of = |at: usize| match &task.questions.questions[at].ask {
            Ask::Write { prompt, .. } => Some((at, prompt.as_str())),
            Ask::Choose { .. } => None,
        };
        self.open().filter_map(of).unzip()
    }

    /// Which of the questions at these places each that is asked has not answered.
    fn wanted(&self, places: &[usize]) -> Vec<Vec<bool>> {
        let of = |(store, _): &(Store<ItemRecord>, String)| {
            places.iter().map(|place| store.get(*place as u64).is_none()).collect()
        };
        self.stores.iter().map(of).collect()
    }

    /// Keeps an answer.
    fn keep(&mut self, of: usize, question: usize, answer: Answer, context: &Context<'_>) -> ControlFlow<()> {
        context.progress.advance(1);
        let asked = &self.task.questions.questions[question];
        let (store, run) = &mut self.stores[of];
        let item = match (answer, &self.task.task.score) {
            (Answer::Scores(scores), Score::Likelihood { headline }) => chosen(asked, &scores, *headline, run),
            (Answer::Text(text), _) => written(asked, text, &self.task.judges, run),
            (Answer::Scores(_), Score::Generation { .. }) => return ControlFlow::Continue(()),
        };
        match store.put(question as u64, item) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.failed = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    /// What went wrong, with the question's place in the data.
    fn result(&mut self, asked: Result<(), Failed>, places: &[usize], name: &str) -> Result<(), Error> {
        let record = |index: usize| self.task.questions.questions[places[index]].record;
        match asked {
            Ok(()) => self.failed.take().map_or(Ok(()), Err),
            Err(Failed::Task(error)) => Err(*error),
            Err(Failed::Question { index, problem, hint }) => Err(Error::Question {
                task: self.task.task.name.clone(),
                file: self.task.questions.file.clone(),
                record: record(index),
                problem,
                hint,
            }),
            Err(Failed::NotFinite { index }) => Err(Error::NotFinite {
                model: name.to_owned(),
                task: self.task.task.name.clone(),
                record: record(index),
            }),
        }
    }

    /// All answers of each that was asked, in order, under the names of their files.
    fn finish(self) -> Result<Vec<Vec<ItemRecord>>, Error> {
        let all = 0..self.task.questions.questions.len() as u64;
        self.stores
            .into_iter()
            .map(|(store, _)| {
                let items: Option<Vec<ItemRecord>> = all.clone().map(|index| store.get(index).cloned()).collect();
                let items = items.ok_or(Error::Interrupted)?;
                store.finish(&items)?;
                Ok(items)
            })
            .collect()
    }
}
