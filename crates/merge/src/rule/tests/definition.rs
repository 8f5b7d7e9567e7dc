//! What the rules say, in f64 on whole vectors, without tiles, Gram matrices or thresholds.

use lathe_kernels::weights::draw;

use super::*;
use crate::rule::Over;
use crate::rule::stream::Stream;

type Vector = Vec<f64>;

/// The result of a rule that has one.
pub(super) fn define(rule: &Rule, inputs: &Memory) -> Vector {
    let models: Vec<Vector> = inputs.models.iter().map(|model| model.iter().map(|x| f64::from(*x)).collect()).collect();
    let width = if inputs.shape.len() < 2 { inputs.len() } else { inputs.shape[inputs.shape.len() - 1] };
    match rule {
        Rule::Passthrough { scale } => times(&models[0], *scale),
        Rule::Linear { weights, normalize } => sum(&models, &normalized(weights, *normalize)),
        Rule::Slerp { t } => {
            let cosine = cosine(&models[0], &models[1]);
            between(&models[0], &models[1], *t, cosine.is_nan() || cosine.abs() > 0.9995)
        }
        Rule::Nuslerp { weights, has_base, over } => {
            let (base, models) = from_base(&models, *has_base);
            let t = weights[1] / (weights[0] + weights[1]);
            let one = |a: &[f64], b: &[f64]| {
                let cosine = cosine(a, b);
                between(a, b, t, cosine.is_nan() || 1.0 - cosine.abs() < 1e-12)
            };
            // Numbers in a row are one vector, however one looks at them.
            let over = if inputs.shape.len() < 2 { &Over::Tensor } else { over };
            let out = match over {
                Over::Tensor => one(&models[0], &models[1]),
                Over::Rows => {
                    models[0].chunks(width).zip(models[1].chunks(width)).flat_map(|(a, b)| one(a, b)).collect()
                }
                Over::Columns => {
                    let column = |x: &[f64], c: usize| x.iter().skip(c).step_by(width).copied().collect::<Vector>();
                    let columns: Vec<Vector> =
                        (0..width).map(|c| one(&column(&models[0], c), &column(&models[1], c))).collect();
                    (0..inputs.len()).map(|i| columns[i % width][i / width]).collect()
                }
            };
            plus(&base, &out)
        }
        Rule::Multislerp { weights, normalize, has_base, .. } => {
            let (base, models) = from_base(&models, *has_base);
            let weights = normalized(weights, *normalize);
            let units: Vec<Vector> = models.iter().map(|x| times(x, 1.0 / length(x))).collect();
            let mean = sum(&units, &weights);
            let mean = times(&mean, 1.0 / length(&mean));
            let tangents: Vec<Vector> = units.iter().map(|u| plus(u, &times(&mean, -dot(u, &mean)))).collect();
            let tangent = sum(&tangents, &weights);
            let angle = length(&tangent);
            let turned =
                plus(&times(&mean, angle.cos()), &times(&tangent, if angle > 0.0 { angle.sin() / angle } else { 0.0 }));
            let scale: f64 = models.iter().zip(&weights).map(|(x, w)| w * length(x)).sum();
            plus(&base, &times(&turned, scale))
        }
        Rule::Karcher { max_iter, tol } => {
            let units: Vec<Vector> = models.iter().map(|x| times(x, 1.0 / length(x))).collect();
            let share = 1.0 / models.len() as f64;
            let mean = sum(&units, &vec![share; models.len()]);
            let mut point = times(&mean, 1.0 / length(&mean));
            for _ in 0..*max_iter {
                let mut tangent = vec![0.0; point.len()];
                for unit in &units {
                    let along = dot(unit, &point).clamp(-1.0, 1.0);
                    let angle = along.acos();
                    let away = plus(unit, &times(&point, -along));
                    let ratio = if angle < 1e-7 { 1.0 } else { angle / angle.sin() };
                    tangent = plus(&tangent, &times(&away, share * ratio));
                }
                let step = length(&tangent);
                if step > 0.0 {
                    point = plus(&times(&point, step.cos()), &times(&tangent, step.sin() / step));
                }
                if step < *tol {
                    break;
                }
            }
            times(&point, share * models.iter().map(|x| length(x)).sum::<f64>())
        }
        Rule::ModelStock { by_rows } => {
            let (base, models) = from_base(&models, true);
            let width = if *by_rows { width } else { inputs.len() };
            let rows = (0..inputs.len()).step_by(width).flat_map(|at| {
                let rows: Vec<&[f64]> = models.iter().map(|x| &x[at..at + width]).collect();
                let pairs: Vec<f64> = (0..rows.len())
                    .flat_map(|a| (0..a).map(move |b| (a, b)))
                    .map(|(a, b)| cosine(rows[a], rows[b]))
                    .collect();
                let cosine = pairs.iter().sum::<f64>() / pairs.len() as f64;
                let count = rows.len() as f64;
                let t = (count * cosine / (1.0 + (count - 1.0) * cosine)).clamp(0.0, 1.0);
                let t = if cosine <= 0.0 { 0.0 } else { t };
                (0..width).map(|i| t * rows.iter().map(|row| row[i]).sum::<f64>() / count).collect::<Vector>()
            });
            plus(&base, &rows.collect::<Vector>())
        }
        Rule::Deltas(deltas) => define_deltas(deltas, inputs, &models, width),
        Rule::Sce { select_topk } => define_sce(*select_topk, &models),
        Rule::Nearswap { t } => {
            let step = |(a, b): (&f64, &f64)| {
                let weight = (t / (a - b).abs()).clamp(0.0, 1.0);
                if a == b { *a } else { (1.0 - weight) * a + weight * b }
            };
            models[0].iter().zip(&models[1]).map(step).collect()
        }
    }
}

fn define_deltas(rule: &Deltas, inputs: &Memory, models: &[Vector], width: usize) -> Vector {
    let (base, deltas) = from_base(models, true);
    let sparse: Vec<Vector> = (0..deltas.len())
        .map(|model| {
            let delta = &deltas[model];
            let probabilities = keep(rule.sparsify[model], inputs, model, delta.len(), width);
            let kept: Vector =
                delta.iter().zip(&probabilities).map(|(d, (kept, _))| if *kept { *d } else { 0.0 }).collect();
            match rule.rescale {
                Rescale::None => kept,
                Rescale::InverseDensity => kept.iter().zip(&probabilities).map(|(d, (_, p))| d / p).collect(),
                Rescale::L1 => {
                    let size = |x: &[f64]| x.iter().map(|x| x.abs()).sum::<f64>();
                    if size(&kept) > 0.0 { times(&kept, size(delta) / size(&kept)) } else { kept }
                }
            }
        })
        .collect();
    let votes: Vec<Vector> = sparse.iter().zip(&rule.weights).map(|(d, w)| times(d, *w)).collect();
    let out = (0..base.len()).map(|i| {
        let tally: f64 = votes.iter().map(|v| v[i]).sum();
        let elected = if tally >= 0.0 { 1.0 } else { -1.0 };
        let agrees = |v: f64| v != 0.0 && v.signum() == elected;
        let mut counts: Vec<bool> = votes.iter().map(|v| rule.consensus == Consensus::Sum || agrees(v[i])).collect();
        if let Consensus::Protect { slack } = rule.consensus
            && votes[0][i] != 0.0
            && !agrees(votes[0][i])
            && votes[1..].iter().all(|v| v[i].abs() <= (1.0 + slack) * votes[0][i].abs())
        {
            counts.fill(false);
            counts[0] = true;
        }
        let counted = |x: &dyn Fn(usize) -> f64| (0..counts.len()).filter(|m| counts[*m]).map(x).sum::<f64>();
        let (total, weight) = (counted(&|m| votes[m][i]), counted(&|m| rule.weights[m]));
        let divisor = if !rule.normalize || weight == 0.0 { 1.0 } else { weight };
        base[i] + rule.lambda * total / divisor
    });
    out.collect()
}

/// What of a model's difference is kept, and with which probability.
fn keep(sparsify: Sparsify, inputs: &Memory, model: usize, len: usize, width: usize) -> Vec<(bool, f64)> {
    let sizes: Vec<f32> = inputs.models[model + 1].iter().zip(&inputs.models[0]).map(|(x, b)| (x - b).abs()).collect();
    // Largest first, and of equal ones the first.
    let mut order: Vec<usize> = (0..len).collect();
    order.sort_by(|a, b| sizes[*b].total_cmp(&sizes[*a]).then(a.cmp(b)));
    let stream = Stream::new(MASK.seed, MASK.tensor, model);
    let drawn = |i: usize, p: f64| f64::from(draw(stream.from(i).keys, i as u32)) < p * 2.0f64.powi(32);
    let mut kept = vec![(false, 1.0); len];
    match sparsify {
        Sparsify::All => kept.fill((true, 1.0)),
        Sparsify::Largest { density } => {
            let many = ((density * len as f64) as usize).max(1);
            kept.fill((false, density));
            order[..many].iter().for_each(|i| kept[*i].0 = true);
        }
        Sparsify::Middle { density, gamma } => {
            let many = ((density * len as f64) as usize).max(1);
            let dropped = ((gamma * len as f64) as usize).min(len - many);
            kept.fill((false, density));
            order[dropped..dropped + many].iter().for_each(|i| kept[*i].0 = true);
        }
        Sparsify::Random { density } => {
            kept.iter_mut().enumerate().for_each(|(i, kept)| *kept = (density == 1.0 || drawn(i, density), density));
        }
        Sparsify::RandomByRank { density, epsilon } => {
            for row in (0..len).step_by(width) {
                let mut order: Vec<usize> = (row..row + width).collect();
                order.sort_by(|a, b| sizes[*a].total_cmp(&sizes[*b]).then(a.cmp(b)));
                for (rank, i) in order.into_iter().enumerate() {
                    let share = if width == 1 { 0.5 } else { rank as f64 / (width - 1) as f64 };
                    let p = density - epsilon + 2.0 * epsilon * share;
                    kept[i] = if density == 1.0 { (true, 1.0) } else { (drawn(i, p), p) };
                }
            }
        }
    }
    kept
}

fn define_sce(topk: f64, models: &[Vector]) -> Vector {
    let (base, deltas) = from_base(models, true);
    let count = deltas.len() as f64;
    let variance = |i: usize| {
        let mean = deltas.iter().map(|d| d[i]).sum::<f64>() / count;
        deltas.iter().map(|d| (d[i] - mean).powi(2)).sum::<f64>() as f32
    };
    let variances: Vec<f32> = (0..base.len()).map(variance).collect();
    let mut order: Vec<usize> = (0..base.len()).collect();
    order.sort_by(|a, b| variances[*b].total_cmp(&variances[*a]).then(a.cmp(b)));
    let varying = variances.iter().filter(|v| **v > 0.0).count();
    let many = if topk == 1.0 || varying == 0 { base.len() } else { ((topk * varying as f64) as usize).max(1) };
    let mut selected = vec![0.0; base.len()];
    order[..many].iter().for_each(|i| selected[*i] = 1.0);
    let masked: Vec<Vector> = deltas.iter().map(|d| d.iter().zip(&selected).map(|(d, s)| d * s).collect()).collect();
    let weights: Vector = masked.iter().map(|d| dot(d, d)).collect();
    let out = (0..base.len()).map(|i| {
        let elected = if masked.iter().map(|d| d[i]).sum::<f64>() >= 0.0 { 1.0 } else { -1.0 };
        let counts = |m: &usize| masked[*m][i] * elected > 0.0;
        let total: f64 = (0..masked.len()).filter(counts).map(|m| weights[m] * masked[m][i]).sum();
        let weight: f64 = (0..masked.len()).filter(counts).map(|m| weights[m]).sum();
        base[i] + if weight > 0.0 { total / weight } else { 0.0 }
    });
    out.collect()
}

fn between(a: &[f64], b: &[f64], t: f64, straight: bool) -> Vector {
    if straight {
        return plus(&times(a, 1.0 - t), &times(b, t));
    }
    let angle = cosine(a, b).acos();
    plus(&times(a, ((1.0 - t) * angle).sin() / angle.sin()), &times(b, (t * angle).sin() / angle.sin()))
}

fn from_base(models: &[Vector], has_base: bool) -> (Vector, Vec<Vector>) {
    if !has_base {
        return (vec![0.0; models[0].len()], models.to_vec());
    }
    let minus = times(&models[0], -1.0);
    (models[0].clone(), models[1..].iter().map(|x| plus(x, &minus)).collect())
}

fn normalized(weights: &[f64], normalize: bool) -> Vector {
    let sum: f64 = if normalize { weights.iter().sum() } else { 1.0 };
    weights.iter().map(|w| w / sum).collect()
}

fn sum(vectors: &[Vector], weights: &[f64]) -> Vector {
    vectors.iter().zip(weights).fold(vec![0.0; vectors[0].len()], |all, (x, w)| plus(&all, &times(x, *w)))
}

fn plus(a: &[f64], b: &[f64]) -> Vector {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn times(a: &[f64], factor: f64) -> Vector {
    a.iter().map(|a| a * factor).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn length(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

/// NaN where one has no direction.
fn cosine(a: &[f64], b: &[f64]) -> f64 {
    (dot(a, b) / (length(a) * length(b))).clamp(-1.0, 1.0)
}
