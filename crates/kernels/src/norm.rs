//! Root-mean-square and layer normalisation of rows, forward and backward.
//!
//! For a row `x` of width `d`: RMS norm is `y = x / sqrt(mean(x²) + eps) · g`, layer norm is
//! `y = (x - mean) / sqrt(var + eps) · g + b`. Callers that store `g - 1` (Gemma) add the one before the call.

use rayon::prelude::*;

use crate::isa::dispatch;
use crate::vector::sum_of;

/// Which normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Division by the root mean square.
    Rms,
    /// Subtraction of the mean, division by the standard deviation.
    Layer,
}

/// Rows below this many values are normalised on the calling thread.
const PARALLEL_FROM: usize = 1 << 15;

/// Rows whose gradients of weight and bias are added in f32.
const BLOCK_ROWS: usize = 32;

/// Normalises the rows of `x`, `[rows, d]`, into `out`. `weight` and `bias` are `[d]`; `None` is 1 and 0.
pub fn forward(
    kind: Kind,
    x: &[f32],
    d: usize,
    weight: Option<&[f32]>,
    bias: Option<&[f32]>,
    eps: f32,
    out: &mut [f32],
) {
    assert!(x.len() == out.len() && x.len().is_multiple_of(d.max(1)), "rows of {d}");
    let row = |(x, out): (&[f32], &mut [f32])| forward_row(kind, x, weight, bias, eps, out);
    if x.len() < PARALLEL_FROM {
        x.chunks_exact(d.max(1)).zip(out.chunks_exact_mut(d.max(1))).for_each(row);
    } else {
        x.par_chunks_exact(d).zip(out.par_chunks_exact_mut(d)).for_each(row);
    }
}

dispatch! {
    fn forward_row(kind: Kind, x: &[f32], weight: Option<&[f32]>, bias: Option<&[f32]>, eps: f32, out: &mut [f32]) {
        let (mean, scale) = moments(kind, x, eps);
        for (out, x) in out.iter_mut().zip(x) {
            *out = (x - mean) * scale;
        }
        if let Some(weight) = weight {
            for (out, g) in out.iter_mut().zip(weight) {
                *out *= g;
            }
        }
        if let Some(bias) = bias {
            for (out, b) in out.iter_mut().zip(bias) {
                *out += b;
            }
        }
    }
}

/// Mean (0 for RMS) and reciprocal deviation of a row.
#[inline(always)]
fn moments(kind: Kind, x: &[f32], eps: f32) -> (f32, f32) {
    let d = x.len() as f32;
    let mean = match kind {
        Kind::Rms => 0.0,
        Kind::Layer => sum_of([x], |[x]| x) / d,
    };
    let square = sum_of([x], |[x]| (x - mean) * (x - mean)) / d;
    (mean, 1.0 / (square + eps).sqrt())
}

/// Gradients of [`forward`]: `dx` is written, `dweight` and `dbias` are added to.
///
/// With `z` the normalised row and `h = dy · g`: `dx = (h - mean(h) - z · mean(h · z)) / deviation`, where `mean(h)`
/// is left out for RMS. The sums over rows are taken in blocks of 32 rows, whatever the number of threads,
/// and those are added in f64.
#[expect(clippy::too_many_arguments, reason = "one operation's operands")]
pub fn backward(
    kind: Kind,
    x: &[f32],
    d: usize,
    weight: Option<&[f32]>,
    eps: f32,
    dy: &[f32],
    dx: &mut [f32],
    dweight: &mut [f32],
    dbias: &mut [f32],
) {
    assert!(x.len() == dy.len() && x.len() == dx.len() && x.len().is_multiple_of(d.max(1)), "rows of {d}");
    let block = (BLOCK_ROWS * d).max(1);
    let blocks = x.par_chunks(block).zip(dy.par_chunks(block)).zip(dx.par_chunks_mut(block));
    let sums: Vec<[Vec<f32>; 2]> = blocks
        .map(|((x, dy), dx)| {
            let (mut z, mut dweight, mut dbias) = (vec![0.0; d], vec![0.0; dweight.len()], vec![0.0; dbias.len()]);
            for ((x, dy), dx) in x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d)) {
                backward_row(kind, x, weight, eps, dy, &mut z, dx);
                add_row(dy, &z, &mut dweight, &mut dbias);
            }
            [dweight, dbias]
        })
        .collect();
    for (index, total) in [dweight, dbias].into_iter().enumerate() {
        for (i, total) in total.iter_mut().enumerate() {
            let sum: f64 = sums.iter().map(|of_block| f64::from(of_block[index][i])).sum();
            #[expect(clippy::cast_possible_truncation, reason = "gradients are f32")]
            let sum = (f64::from(*total) + sum) as f32;
            *total = sum;
        }
    }
}

dispatch! {
    fn add_row(dy: &[f32], z: &[f32], dweight: &mut [f32], dbias: &mut [f32]) {
        for ((dweight, dy), z) in dweight.iter_mut().zip(dy).zip(z) {
            *dweight = dy.mul_add(*z, *dweight);
        }
        for (dbias, dy) in dbias.iter_mut().zip(dy) {
            *dbias += dy;
        }
    }
}

dispatch! {
    fn backward_row(kind: Kind, x: &[f32], weight: Option<&[f32]>, eps: f32, dy: &[f32], z: &mut [f32], dx: &mut [f32]) {
        let d = x.len();
        let (mean, scale) = moments(kind, x, eps);
        for (z, x) in z.iter_mut().zip(x) {
            *z = (x - mean) * scale;
        }
        match weight {
            Some(g) => {
                for ((dx, dy), g) in dx.iter_mut().zip(dy).zip(g) {
                    *dx = dy * g;
                }
            }
            None => dx.copy_from_slice(dy),
        }
        let mean_h = match kind {
            Kind::Rms => 0.0,
            Kind::Layer => sum_of([dx], |[x]| x) / d as f32,
        };
        let mean_hz = sum_of([dx, z], |[dx, z]| dx * z) / d as f32;
        for (dx, z) in dx.iter_mut().zip(z.iter()) {
            *dx = (*dx - mean_h - z * mean_hz) * scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worked_rows() {
        let x = [3.0, 4.0, 1.0, -1.0];
        let mut out = [0.0; 4];
        forward(Kind::Rms, &x, 2, Some(&[2.0, 1.0]), None, 0.0, &mut out);
        let rms = 12.5f32.sqrt();
        for (out, expected) in out.iter().zip([6.0 / rms, 4.0 / rms, 2.0, -1.0]) {
            assert!((out - expected).abs() < 1e-6, "{out} {expected}");
        }
        forward(Kind::Layer, &x, 2, None, Some(&[0.5, 0.5]), 0.0, &mut out);
        assert_eq!(out, [-0.5, 1.5, 1.5, -0.5]);
    }

    #[test]
    fn gradients_of_many_rows_are_the_same_bits_on_any_number_of_threads() {
        let (rows, d) = (5 * BLOCK_ROWS + 3, 37);
        let (x, dy) = (crate::noise(rows * d, 1), crate::noise(rows * d, 2));
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            let (mut dx, mut dg, mut db) = (vec![0.0; rows * d], vec![0.0; d], vec![0.0; d]);
            pool.install(|| backward(Kind::Layer, &x, d, None, 1e-5, &dy, &mut dx, &mut dg, &mut db));
            (dx, dg, db)
        };
        let (dx, dg, db) = run(1);
        assert_eq!((dx, dg, db.clone()), run(3));
        for (i, db) in db.iter().enumerate() {
            let expected: f64 = dy.chunks_exact(d).map(|row| f64::from(row[i])).sum();
            assert!((f64::from(*db) - expected).abs() < 1e-5, "{db} {expected}");
        }
    }

    #[test]
    fn gradients_equal_finite_differences() {
        for kind in [Kind::Rms, Kind::Layer] {
            for d in [1, 3, 16, 37] {
                let x: Vec<f32> = (0..2 * d).map(|i| ((i * 7 + 3) % 11) as f32 * 0.3 - 1.4).collect();
                let g: Vec<f32> = (0..d).map(|i| 0.5 + (i % 5) as f32 * 0.2).collect();
                let b = vec![0.1; d];
                let dy: Vec<f32> = (0..2 * d).map(|i| ((i * 5 + 1) % 7) as f32 * 0.2 - 0.5).collect();
                let loss = |x: &[f32], g: &[f32], b: &[f32]| {
                    let mut y = vec![0.0; 2 * d];
                    forward(kind, x, d, Some(g), Some(b), 0.1, &mut y);
                    y.iter().zip(&dy).map(|(y, dy)| f64::from(y * dy)).sum::<f64>()
                };
                let (mut dx, mut dg, mut db) = (vec![0.0; 2 * d], vec![0.0; d], vec![0.0; d]);
                backward(kind, &x, d, Some(&g), 0.1, &dy, &mut dx, &mut dg, &mut db);
                let h = 1e-2f32;
                let difference = |v: &[f32], i: usize, f: &dyn Fn(&[f32]) -> f64| {
                    let (mut up, mut down) = (v.to_vec(), v.to_vec());
                    up[i] += h;
                    down[i] -= h;
                    ((f(&up) - f(&down)) / f64::from(2.0 * h)) as f32
                };
                for (i, dx) in dx.iter().enumerate() {
                    let expected = difference(&x, i, &|x| loss(x, &g, &b));
                    assert!((dx - expected).abs() < 5e-3, "{kind:?} dx[{i}] {dx} {expected}");
                }
                for (i, (dg, db)) in dg.iter().zip(&db).enumerate() {
                    let expected = difference(&g, i, &|g| loss(&x, g, &b));
                    assert!((dg - expected).abs() < 5e-3, "{kind:?} dg[{i}] {dg} {expected}");
                    let expected = difference(&b, i, &|b| loss(&x, &g, b));
                    assert!((db - expected).abs() < 5e-3, "{kind:?} db[{i}] {db} {expected}");
                }
            }
        }
    }
}
