//! Sequential Monte Carlo: a population of strings is written together, and resampled when its weights differ too much.
//!
//! Particles go on by local decoding; a step multiplies a particle's weight by the mass m of its kept set. When the
//! effective sample size falls below a share of the population, particles are drawn anew in proportion to their weights
//! (systematic resampling), and all weigh the same again. A string that has ended keeps its weight. At the end the
//! population is resampled once more, so that its strings are equally weighted draws of the target, up to an error that
//! falls with the population's size. The product of mean weights at resamplings is an unbiased estimate of Z.

use lathe_model::KvCache;
use serde::{Deserialize, Serialize};

use super::diagnostics::Diagnostics;
use super::importance::{effective_sample_size, log_mean_exp, normalised, systematic};
use super::{Chosen, Proposal, SELECTION_STREAM, Selection};
use crate::generate::{Engine, Turn, ended};
use crate::stop::Text;
use crate::{DecodeError, Decoding, Generation, History, Request, Step, Writer, uniform};

/// A population.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Population {
    /// Strings that are written together.
    pub particles: usize,
    /// Share of the population below which the effective sample size calls for resampling, in 0..=1.
    pub resample_below: f64,
}

/// What came of a population.
#[derive(Clone, Debug, PartialEq)]
pub struct SmcRun {
    /// The strings at the end, before the last resampling.
    pub particles: Vec<Generation>,
    /// Which of them are the result.
    pub selection: Selection,
    /// Steps before which the population was resampled.
    pub resampled: Vec<usize>,
    /// Different first ancestors of the result: how many strings it goes back to at its first tokens.
    pub ancestors: usize,
}

/// Writes a population after one prompt. Particle i draws as item `request.item + i`.
///
/// # Errors
/// No particles, an option out of its range, a prompt that cannot be used; the model fails.
pub fn smc(
    writer: &Writer<'_>,
    decoding: &Decoding,
    request: &Request,
    population: &Population,
    on_step: &mut dyn FnMut(usize),
) -> Result<SmcRun, DecodeError> {
    population.check()?;
    decoding.check()?;
    let n = population.particles;
    let mut cache = KvCache::new(writer.decoder.spec(), n + 1);
    let mut engine = Engine::new(writer, decoding, &mut cache);
    let unending = engine.unending();
    let mut particles = Vec::with_capacity(n);
    for slot in 0..n {
        let known = engine.begin(request, slot, Some(&request.prompt))?;
        particles.push(Particle::new(request, known));
    }
    let room = writer.decoder.spec().context_length - request.prompt.len();
    let max_tokens = decoding.max_tokens.min(room);
    let stream = SELECTION_STREAM + request.item;
    let swarm = run(population, |step| uniform(decoding.seed, stream, step as u64), &mut |action| match action {
        Action::Become(ancestors) => {
            for (slot, from) in ancestors.iter().enumerate().filter(|(slot, from)| *slot != **from) {
                particles[slot] = particles[*from].clone();
                engine.cache.copy(*from, slot);
            }
            Ok::<_, DecodeError>(Vec::new())
        }
        Action::Step => {
            let going: Vec<usize> = (0..n).filter(|slot| particles[*slot].ended.is_none()).collect();
            if going.is_empty() {
                return Ok(vec![None; n]);
            }
            on_step(going.len());
            let turns: Vec<Turn<'_>> =
                going.iter().map(|slot| particles[*slot].turn(request, *slot, &unending)).collect();
            let steps = engine.next(&turns)?;
            let mut increments = vec![None; n];
            for (slot, step) in going.into_iter().zip(steps) {
                increments[slot] = Some(step.log_mass);
                particles[slot].take(step, max_tokens, decoding);
            }
            Ok(increments)
        }
    })?;
    Ok(finished(particles, swarm, request))
}

impl Population {
    /// Checks the numbers.
    ///
    /// # Errors
    /// No particles; a share outside 0..=1.
    pub fn check(&self) -> Result<(), DecodeError> {
        let bad = |field, problem: String| Err(DecodeError::Option { field, problem, hint: None });
        if self.particles == 0 {
            return bad("--samples", "0 particles give nothing".into());
        }
        if !(0.0..=1.0).contains(&self.resample_below) {
            return bad("--resample-below", format!("{} is no share", self.resample_below));
        }
        Ok(())
    }
}

/// What a population is asked to do.
enum Action<'a> {
    /// Write one token of every string that has not ended, and return its log m; none for one that has.
    Step,
    /// Let particle i become a copy of particle `ancestors[i]`. One that is copied stays where it is.
    Become(&'a [usize]),
}

/// log m of every particle's step; none for one that has ended.
type Increments = Vec<Option<f64>>;

/// Weights of a population.
struct Swarm {
    /// Since the last resampling.
    log_weights: Vec<f64>,
    /// Of all resamplings so far.
    log_z: f64,
    /// Squared relative error of Z so far, by the delta method.
    error: f64,
    resampled: Vec<usize>,
    first_ancestors: Vec<usize>,
    /// Final resampling: index of the particle of each string of the result.
    result: Vec<usize>,
}

/// The algorithm, without knowing what a particle is. `uniform(step)` places the resampling before `step`.
fn run<E>(
    population: &Population,
    uniform: impl Fn(usize) -> f64,
    act: &mut dyn FnMut(Action<'_>) -> Result<Increments, E>,
) -> Result<Swarm, E> {
    let n = population.particles;
    let mut swarm = Swarm {
        log_weights: vec![0.0; n],
        log_z: 0.0,
        error: 0.0,
        resampled: Vec::new(),
        first_ancestors: (0..n).collect(),
        result: Vec::new(),
    };
    for step in 0.. {
        let increments = act(Action::Step)?;
        if increments.iter().all(Option::is_none) {
            let at = uniform(step);
            swarm.result = swarm.resample(at);
            break;
        }
        for (log_weight, increment) in swarm.log_weights.iter_mut().zip(&increments) {
            *log_weight += increment.unwrap_or(0.0);
        }
        if effective_sample_size(&swarm.log_weights) < population.resample_below * n as f64 {
            let ancestors = swarm.resample(uniform(step));
            swarm.resampled.push(step + 1);
            act(Action::Become(&ancestors))?;
        }
    }
    Ok(swarm)
}

impl Swarm {
    /// Draws the population anew. A particle that is drawn at all is its own ancestor; the others give their places to
    /// further copies.
    fn resample(&mut self, at: f64) -> Vec<usize> {
        let n = self.log_weights.len();
        self.log_z += log_mean_exp(&self.log_weights);
        self.error += 1.0 / effective_sample_size(&self.log_weights) - 1.0 / n as f64;
        let counts = systematic(&normalised(&self.log_weights), at);
        let mut copies =
            counts.iter().enumerate().flat_map(|(i, count)| std::iter::repeat_n(i, count.saturating_sub(1)));
        let ancestors: Vec<usize> =
            (0..n).map(|i| if counts[i] > 0 { i } else { copies.next().unwrap_or(i) }).collect();
        self.first_ancestors = ancestors.iter().map(|from| self.first_ancestors[*from]).collect();
        self.log_weights.fill(0.0);
        ancestors
    }
}

#[derive(Clone)]
struct Particle {
    ids: Vec<u32>,
    known: usize,
    steps: Vec<Step>,
    text: Text,
    ended: Option<crate::Ended>,
}

impl Particle {
    fn new(request: &Request, known: usize) -> Self {
        Self { ids: request.prompt.clone(), known, steps: Vec::new(), text: Text::default(), ended: None }
    }

    fn turn<'a>(&'a self, request: &Request, slot: usize, unending: &'a [u32]) -> Turn<'a> {
        let (prompt, drawn) = self.ids.split_at(request.prompt.len());
        Turn {
            item: request.item + slot as u64,
            slot,
            position: self.known,
            ids: &self.ids[self.known..],
            history: History { prompt, drawn, forbidden: unending },
        }
    }

    fn take(&mut self, step: Step, max_tokens: usize, decoding: &Decoding) {
        self.known = self.ids.len();
        self.ids.push(step.id);
        self.ended = ended(&mut self.text, step.id, &step.bytes, self.steps.len() + 1, max_tokens, decoding);
        self.steps.push(step);
    }
}

fn finished(particles: Vec<Particle>, swarm: Swarm, request: &Request) -> SmcRun {
    let particles: Vec<Generation> = particles
        .into_iter()
        .enumerate()
        .map(|(slot, particle)| Generation {
            item: request.item + slot as u64,
            prompt_tokens: request.prompt.len(),
            text: particle.text.into_bytes(),
            steps: particle.steps,
            ended: particle.ended.unwrap_or(crate::Ended::Length),
        })
        .collect();
    let as_proposal =
        |particle: &Generation| Proposal { log_weight: particle.log_weight(), censored: particle.is_censored() };
    let pool: Vec<Proposal> = particles.iter().map(as_proposal).collect();
    let chosen: Vec<Chosen> =
        swarm.result.iter().map(|particle| Chosen { proposal: *particle, chain: 0, run: 0 }).collect();
    let mut ancestors = swarm.first_ancestors;
    ancestors.sort_unstable();
    ancestors.dedup();
    let mut diagnostics = Diagnostics::of(&pool, &chosen);
    diagnostics.weigh_population(swarm.log_z, swarm.error, &particles, ancestors.len());
    SmcRun {
        particles,
        selection: Selection { chosen, diagnostics },
        resampled: swarm.resampled,
        ancestors: ancestors.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Toy, frequencies_agree};
    use super::*;

    /// A population of the toy's strings.
    fn swarm(toy: &Toy, particles: usize, seed: u64) -> (Vec<usize>, Swarm) {
        let population = Population { particles, resample_below: 0.9 };
        let mut paths: Vec<Vec<u32>> = vec![Vec::new(); particles];
        let swarm = run(&population, |step| uniform(seed, SELECTION_STREAM, step as u64), &mut |action| {
            match action {
                Action::Become(ancestors) => {
                    // What is copied from must still be there when it is copied.
                    ancestors.iter().enumerate().for_each(|(slot, from)| paths[slot] = paths[*from].clone());
                    Ok::<_, std::convert::Infallible>(Vec::new())
                }
                Action::Step => Ok(paths
                    .iter_mut()
                    .enumerate()
                    .map(|(item, path)| {
                        let step = toy.step(path, uniform(seed, item as u64, path.len() as u64))?;
                        path.push(step.id);
                        Some(step.log_mass)
                    })
                    .collect()),
            }
        });
        let Ok(swarm) = swarm;
        (swarm.result.iter().map(|i| toy.index(&paths[*i])).collect(), swarm)
    }

    #[test]
    fn the_target_is_reached_and_z_is_unbiased() {
        let toy = Toy::a();
        let (mut counts, mut z) = ([0usize; 4], Vec::new());
        for seed in 0..400 {
            let (strings, swarm) = swarm(&toy, 100, seed);
            strings.into_iter().for_each(|string| counts[string] += 1);
            z.push(swarm.log_z.exp());
        }
        frequencies_agree(&counts, &toy.global());
        let mean = z.iter().sum::<f64>() / z.len() as f64;
        let variance = z.iter().map(|z| (z - mean).powi(2)).sum::<f64>() / 399.0;
        assert!((mean - 0.669).abs() < 4.0 * (variance / 400.0).sqrt() + 1e-12, "{mean}");
    }

    #[test]
    fn a_strong_distortion_is_resampled_away() {
        let toy = Toy::b();
        let mut counts = [0usize; 4];
        let mut resampled = 0;
        for seed in 0..400 {
            let (strings, swarm) = swarm(&toy, 100, seed);
            strings.into_iter().for_each(|string| counts[string] += 1);
            resampled += swarm.resampled.len();
        }
        assert!(resampled > 0);
        frequencies_agree(&counts, &toy.global());
    }

    #[test]
    fn one_particle_is_local_decoding() {
        let toy = Toy::a();
        let mut counts = [0usize; 4];
        for seed in 0..20_000 {
            counts[swarm(&toy, 1, seed).0[0]] += 1;
        }
        frequencies_agree(&counts, &toy.local());
    }

    #[test]
    fn survivors_stay_where_they_are() {
        let mut swarm = Swarm {
            log_weights: vec![f64::NEG_INFINITY, 0.5f64.ln(), f64::NEG_INFINITY, 0.5f64.ln()],
            log_z: 0.0,
            error: 0.0,
            resampled: Vec::new(),
            first_ancestors: vec![0, 1, 2, 3],
            result: Vec::new(),
        };
        assert_eq!(swarm.resample(0.5), [1, 1, 3, 3]);
        assert!((swarm.log_z - 0.25f64.ln()).abs() < 1e-12);
        assert_eq!(swarm.log_weights, [0.0; 4]);
    }
}
