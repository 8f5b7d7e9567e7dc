//! Combinations of vectors that depend on nothing but their lengths and angles: from the Gram matrix to coefficients.

use lathe_kernels::weights::pair;

use super::remark::Remark;

/// Slerp takes the straight line above this cosine (an angle of 1.8 degrees).
const NEARLY_PARALLEL: f64 = 0.9995;

/// Vectors up to this length have no direction.
const NO_LENGTH: f64 = 1e-8;

/// NuSLERP takes the straight line where the sine is below 1e-8. A cosine of f64 sums cannot show so small a one; this
/// is how near to 1 or -1 it is then certain to be.
const NO_ANGLE: f64 = 1e-12;

/// Dot products of some vectors with one another.
#[derive(Clone, Copy)]
pub(super) struct Gram<'a> {
    pub products: &'a [f64],
    pub count: usize,
}

impl Gram<'_> {
    fn dot(&self, a: usize, b: usize) -> f64 {
        self.products[pair(a, b)]
    }

    fn length(&self, vector: usize) -> f64 {
        self.dot(vector, vector).sqrt()
    }

    fn lengths(&self) -> Vec<f64> {
        (0..self.count).map(|i| self.length(i)).collect()
    }

    /// Between -1 and 1; `None` where one of the two has no direction.
    fn cosine(&self, a: usize, b: usize) -> Option<f64> {
        let (of_a, of_b) = (self.length(a), self.length(b));
        let both = of_a > NO_LENGTH && of_b > NO_LENGTH;
        both.then(|| (self.dot(a, b) / of_a / of_b).clamp(-1.0, 1.0))
    }
}

/// Coefficients of the vectors, and what there is to say of them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mix {
    pub coefficients: Vec<f64>,
    pub remark: Option<Remark>,
}

impl Mix {
    fn line(t: f64, remark: Remark) -> Self {
        Self { coefficients: vec![1.0 - t, t], remark: Some(remark) }
    }
}

const ZERO: Remark = Remark::ZeroVector { vectors: 1, of: 1 };

/// sin((1−t)Ω)/sinΩ · v₀ + sin(tΩ)/sinΩ · v₁. K. Shoemake, Animating rotation with quaternion curves, 1985.
pub(super) fn slerp(gram: Gram<'_>, t: f64) -> Mix {
    match gram.cosine(0, 1) {
        None => Mix::line(t, ZERO),
        Some(cosine) if cosine.abs() > NEARLY_PARALLEL => Mix::line(t, straight(cosine)),
        Some(cosine) => Mix { coefficients: arc(cosine, t), remark: None },
    }
}

/// As [`slerp`], with t from two weights, and straight only where the arc is not defined.
pub(super) fn nuslerp(gram: Gram<'_>, weights: [f64; 2]) -> Mix {
    let sum = weights[0] + weights[1];
    let t = if sum.abs() < 1e-6 { 0.5 } else { weights[1] / sum };
    match gram.cosine(0, 1) {
        None => Mix::line(t, ZERO),
        Some(cosine) if 1.0 - cosine.abs() < NO_ANGLE => Mix::line(t, straight(cosine)),
        Some(cosine) => Mix { coefficients: arc(cosine, t), remark: None },
    }
}

fn straight(cosine: f64) -> Remark {
    Remark::StraightLine { cosine, vectors: 1, of: 1 }
}

fn arc(cosine: f64, t: f64) -> Vec<f64> {
    let angle = cosine.acos();
    let sine = angle.sin();
    // (Ends are themselves: sin(0) / sinΩ is 0 and sinΩ / sinΩ is 1.)
    vec![((1.0 - t) * angle).sin() / sine, (t * angle).sin() / sine]
}

/// The weighted mean of the directions, with the weighted mean of the lengths.
///
/// The method averages the tangents u_i − ⟨u_i, m⟩m at the normalised mean m and follows the average along the sphere.
/// As m is Σ w_i u_i over its own length, that average is zero, and m is the result. Where the mean is zero, two
/// directions have a line between them; more have not: `None`.
pub(super) fn multislerp(gram: Gram<'_>, weights: &[f64], eps: f64) -> Option<Mix> {
    let lengths = gram.lengths();
    let directed: Vec<f64> =
        lengths.iter().zip(weights).map(|(length, w)| if *length > eps { w / length } else { 0.0 }).collect();
    let remark = lengths.iter().any(|length| *length <= eps).then_some(ZERO);
    if lengths.iter().all(|length| *length <= eps) {
        return Some(Mix { coefficients: vec![0.0; gram.count], remark });
    }
    let square = quadratic(&directed, |a, b| gram.dot(a, b));
    let total: f64 = weights.iter().map(|w| w.abs()).sum();
    // Rounding of the products leaves about 1e-15 of what should be zero.
    if square <= (eps * eps).max(1e-12 * total * total) {
        let line = Mix { coefficients: weights.to_vec(), remark: Some(straight(-1.0)) };
        return (lengths.iter().filter(|length| **length > eps).count() <= 2).then_some(line);
    }
    let length: f64 = lengths.iter().zip(weights).map(|(length, w)| length * w).sum();
    let scale = length / square.sqrt();
    Some(Mix { coefficients: directed.iter().map(|c| c * scale).collect(), remark })
}

/// The point of the sphere with the least sum of squared angles to the directions, with the mean of the lengths
/// (those of zero vectors included). H. Karcher, Riemannian center of mass and mollifier smoothing, 1977.
pub(super) fn karcher(gram: Gram<'_>, max_iter: usize, tol: f64) -> Mix {
    let lengths = gram.lengths();
    let used: Vec<usize> = (0..gram.count).filter(|i| lengths[*i] > NO_LENGTH).collect();
    let mut coefficients = vec![0.0; gram.count];
    let mut remark = (used.len() < gram.count).then_some(ZERO);
    let mean_length = lengths.iter().sum::<f64>() / gram.count as f64;
    let cosine = |a: usize, b: usize| gram.dot(used[a], used[b]) / lengths[used[a]] / lengths[used[b]];
    let count = used.len() as f64;

    // The point is Σ point_i u_i.
    let mut point = vec![1.0 / count; used.len()];
    let square = quadratic(&point, cosine);
    if square > 1e-12 {
        point.iter_mut().for_each(|p| *p /= square.sqrt());
    } else if let Some(first) = point.first_mut() {
        // Directions that cancel have no mean to begin with.
        *first = 1.0;
        point[1..].fill(0.0);
    }
    let mut step = 0.0;
    for _ in 0..max_iter {
        let mut tangent = vec![0.0; used.len()];
        for i in 0..used.len() {
            let along: f64 = (0..used.len()).map(|j| point[j] * cosine(i, j)).sum::<f64>().clamp(-1.0, 1.0);
            let share = angle_over_sine(along) / count;
            tangent[i] += share;
            tangent.iter_mut().zip(&point).for_each(|(t, p)| *t -= share * along * p);
        }
        step = quadratic(&tangent, cosine).max(0.0).sqrt();
        if step > 0.0 {
            let (sine, cosine) = step.sin_cos();
            point.iter_mut().zip(&tangent).for_each(|(p, t)| *p = cosine * *p + sine * t / step);
        }
        let square = quadratic(&point, cosine);
        if square > 0.0 {
            point.iter_mut().for_each(|p| *p /= square.sqrt());
        }
        // The products' rounding is 1e-15, so that of a length is 3e-8.
        if step < tol.max(1e-7) {
            break;
        }
    }
    if step >= tol.max(1e-7) {
        remark = Some(Remark::NotConverged { step });
    }
    for (i, p) in used.iter().zip(&point) {
        coefficients[*i] = p * mean_length / lengths[*i];
    }
    Mix { coefficients, remark }
}

/// θ / sin θ for a cosine: 1 at an angle of zero. Opposite directions have no shortest way and do not pull.
fn angle_over_sine(cosine: f64) -> f64 {
    let sine = ((1.0 - cosine) * (1.0 + cosine)).sqrt();
    match (sine < 1e-7, cosine > 0.0) {
        (true, true) => 1.0,
        (true, false) => 0.0,
        _ => cosine.acos() / sine,
    }
}

/// Σ_ij c_i c_j m(i, j).
fn quadratic(c: &[f64], m: impl Fn(usize, usize) -> f64) -> f64 {
    let row = |i: usize| (0..c.len()).map(|j| c[i] * c[j] * m(i, j)).sum::<f64>();
    (0..c.len()).map(row).sum()
}

/// t · mean + (1 − t) · base with t = N cosθ / (1 + (N − 1) cosθ), cosθ the mean of the cosines between pairs of
/// differences; t is clamped to 0..=1. Model Stock, 2403.19522, equation 4 and its extension to N models.
pub(super) fn model_stock(gram: Gram<'_>) -> Mix {
    let count = gram.count as f64;
    let pairs = (0..gram.count).flat_map(|a| (0..a).map(move |b| (a, b)));
    let cosines: Vec<Option<f64>> = pairs.map(|(a, b)| gram.cosine(a, b)).collect();
    let cosine = cosines.iter().map(|cosine| cosine.unwrap_or(0.0)).sum::<f64>() / cosines.len() as f64;
    let t = count * cosine / (1.0 + (count - 1.0) * cosine);
    let remark = if cosines.contains(&None) {
        Some(ZERO)
    } else if cosine < 0.0 {
        Some(Remark::Clamped { t, vectors: 1, of: 1 })
    } else {
        None
    };
    let clamped = if cosine <= 0.0 { 0.0 } else { t.min(1.0) };
    Mix { coefficients: vec![clamped / count; gram.count], remark }
}
