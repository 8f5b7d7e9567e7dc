//! Encoders of Q4_K, Q5_K and Q6_K: a search for the scale of each group, then 6-bit or 8-bit scales under one or two f16.
//!
//! Levels on an evenly spaced grid and the grid's best scale depend on each other. The search tries a number of grids near
//! the one that spans the group's range, rounds the numbers to each, and solves the weighted least-squares problem for the
//! scale (and minimum) that serve these levels best. What is searched, in which order and with which weights is ggml's
//! (`make_qkx2_quants` and `make_qx_quants` without an importance matrix), and so is the order of every sum: the
//! bytes are those of llama.cpp's quantiser.
//!
//! These sums run along a group, one addition after the other. The groups of a block are therefore worked on side by side:
//! a table has one row for each position in a group and one column for each group, and the inner loops run over columns.

use half::f16;

use super::k::two_bits;
use super::{TooLarge, stored_scale};

/// Numbers beyond this would need scales beyond f16 in any case; below it no sum of the searches overflows.
const SEARCHABLE: f32 = 1e9;

/// ggml takes a Q6_K group or block of smaller numbers for zeros (`GROUP_MAX_EPS`).
const NEGLIGIBLE: f32 = 1e-15;

pub(super) fn q4_k(x: &[f32; 256], b: &mut [u8; 144]) -> Result<(), TooLarge> {
    let block = affine_block(x, &Candidates { top: 15.0, first: -1.0, count: 21 })?;
    b[..16].copy_from_slice(&block.scales);
    pack_nibbles(&block.levels, &mut b[16..]);
    Ok(())
}

pub(super) fn q5_k(x: &[f32; 256], b: &mut [u8; 176]) -> Result<(), TooLarge> {
    let block = affine_block(x, &Candidates { top: 31.0, first: -0.5, count: 16 })?;
    b[..16].copy_from_slice(&block.scales);
    let (fifths, nibbles) = b[16..].split_at_mut(32);
    for (g, levels) in block.levels.as_chunks::<32>().0.iter().enumerate() {
        for (fifth, level) in fifths.iter_mut().zip(levels) {
            *fifth |= (level >> 4) << g;
        }
    }
    pack_nibbles(&block.levels, nibbles);
    Ok(())
}

pub(super) fn q6_k(x: &[f32; 256], b: &mut [u8; 210]) -> Result<(), TooLarge> {
    check_searchable(x)?;
    let columns = by_position::<16, 16>(x);
    let fit = fit_symmetric(&columns);
    let (mut most, mut extreme) = (0.0, 0.0);
    for scale in fit.scale {
        if scale.abs() > most {
            (most, extreme) = (scale.abs(), scale);
        }
    }
    if most < NEGLIGIBLE {
        return Ok(());
    }
    let inverse = -128.0 / extreme;
    let stored = stored_scale(1.0 / inverse)?;
    b[208..].copy_from_slice(&stored);
    for (g, numbers) in x.as_chunks::<16>().0.iter().enumerate() {
        let scale = nearest(inverse * fit.scale[g]).min(127.0);
        b[192 + g] = scale as i8 as u8;
        let d = f16::from_le_bytes(stored).to_f32() * scale;
        let (half, within, at) = (g / 8, g % 8, two_bits(g));
        for (l, &v) in numbers.iter().enumerate() {
            // A group whose scale rounds to zero keeps the levels of its search, though they no longer count.
            let q = if d == 0.0 { fit.inverse[g] * v } else { v / d };
            let level = if fit.scale[g] == 0.0 { 0 } else { (nearest(q).clamp(-32.0, 31.0) + 32.0) as u8 };
            b[64 * half + 16 * (within % 4) + l] |= (level & 15) << (4 * (within / 4));
            b[128 + at.byte + l] |= (level >> 4) << at.shift;
        }
    }
    Ok(())
}

/// The grids that are tried on a group of Q4_K or Q5_K: they have `top + first`, `top + first + 0.1`, … steps in the
/// group's range.
struct Candidates {
    /// The highest level.
    top: f32,
    first: f32,
    count: usize,
}

/// A block of Q4_K or Q5_K.
struct AffineBlock {
    /// `d`, `dmin` and the packed scales and minima of the groups.
    scales: [u8; 16],
    levels: [u8; 256],
}

fn affine_block(x: &[f32; 256], candidates: &Candidates) -> Result<AffineBlock, TooLarge> {
    check_searchable(x)?;
    let fit = fit_affine(&by_position::<32, 8>(x), candidates);
    let (d, scales) = six_bits(&fit.scale)?;
    let (dmin, minima) = six_bits(&fit.low.map(|low| -low))?;
    let mut levels = [0; 256];
    for (g, (levels, x)) in levels.as_chunks_mut::<32>().0.iter_mut().zip(x.as_chunks::<32>().0).enumerate() {
        let dl = f16::from_le_bytes(d).to_f32() * f32::from(scales[g]);
        let ml = f16::from_le_bytes(dmin).to_f32() * f32::from(minima[g]);
        for (level, &v) in levels.iter_mut().zip(x) {
            // A group whose scale rounds to zero keeps the levels of its search, though they no longer count.
            let q = if dl == 0.0 { fit.inverse[g] * (v - fit.origin[g]) } else { (v + ml) / dl };
            *level = nearest(q).clamp(0.0, candidates.top) as u8;
        }
    }
    let mut packed = [0; 16];
    packed[..2].copy_from_slice(&d);
    packed[2..4].copy_from_slice(&dmin);
    packed[4..].copy_from_slice(&pack_k_scales(&scales, &minima));
    Ok(AffineBlock { scales: packed, levels })
}

/// What the search found for each of eight groups: `x = scale level + low`, with `low <= 0`.
struct AffineFit {
    scale: [f32; 8],
    low: [f32; 8],
    /// The grid whose levels these are for: `level = inverse (x - origin)`, rounded.
    inverse: [f32; 8],
    origin: [f32; 8],
}

/// Weights are root mean square of the group plus magnitude. A better fit moves the lower end of the grids that are tried
/// after it, as in ggml.
fn fit_affine(x: &[[f32; 8]; 32], candidates: &Candidates) -> AffineFit {
    let top = candidates.top;
    let mut squares = [0.0f32; 8];
    let (mut low, mut high) = (x[0], x[0]);
    for x in x {
        for g in 0..8 {
            squares[g] += x[g] * x[g];
            low[g] = if x[g] < low[g] { x[g] } else { low[g] };
            high[g] = if x[g] > high[g] { x[g] } else { high[g] };
        }
    }
    // Minima are stored without a sign and subtracted.
    low = low.map(|low| if low > 0.0 { 0.0 } else { low });
    let flat: [bool; 8] = std::array::from_fn(|g| low[g] == high[g]);
    let mean = squares.map(|sum| (sum / 32.0).sqrt());
    let mut weights = [[0.0f32; 8]; 32];
    let (mut sum_w, mut sum_x) = ([0.0f32; 8], [0.0f32; 8]);
    for (w, x) in weights.iter_mut().zip(x) {
        for g in 0..8 {
            w[g] = mean[g] + x[g].abs();
            sum_w[g] += w[g];
            sum_x[g] += w[g] * x[g];
        }
    }

    let mut levels = [[0.0f32; 8]; 32];
    let mut inverse: [f32; 8] = std::array::from_fn(|g| top / (high[g] - low[g]));
    let mut scale = inverse.map(|inverse| 1.0 / inverse);
    let mut origin = low;
    place(x, &low, &inverse, top, &mut levels);
    let mut least = weighted_error(x, &weights, &levels, &scale, &low);

    for step in 0..candidates.count {
        let steps = candidates.first + 0.1 * step as f32 + top;
        let tried: [f32; 8] = std::array::from_fn(|g| steps / (high[g] - low[g]));
        place(x, &low, &tried, top, &mut levels);
        let (mut sum_l, mut sum_ll, mut sum_lx) = ([0.0f32; 8], [0.0f32; 8], [0.0f32; 8]);
        for ((x, w), l) in x.iter().zip(&weights).zip(&levels) {
            for g in 0..8 {
                let wl = w[g] * l[g];
                sum_l[g] += wl;
                sum_ll[g] += wl * l[g];
                sum_lx[g] += wl * x[g];
            }
        }
        // The two normal equations, by Cramer's rule; with the minimum held at 0 where it would become positive.
        let (mut better, mut lower, mut determinant) = ([0.0f32; 8], [0.0f32; 8], [0.0f32; 8]);
        for g in 0..8 {
            determinant[g] = sum_w[g] * sum_ll[g] - sum_l[g] * sum_l[g];
            better[g] = (sum_w[g] * sum_lx[g] - sum_x[g] * sum_l[g]) / determinant[g];
            lower[g] = (sum_ll[g] * sum_x[g] - sum_l[g] * sum_lx[g]) / determinant[g];
            if lower[g] > 0.0 {
                (better[g], lower[g]) = (sum_lx[g] / sum_ll[g], 0.0);
            }
        }
        let error = weighted_error(x, &weights, &levels, &better, &lower);
        for g in 0..8 {
            if determinant[g] > 0.0 && error[g] < least[g] {
                (inverse[g], origin[g]) = (tried[g], low[g]);
                (least[g], scale[g], low[g]) = (error[g], better[g], lower[g]);
            }
        }
    }
    for g in (0..8).filter(|&g| flat[g]) {
        (scale[g], inverse[g]) = (0.0, 0.0);
    }
    AffineFit { scale, low, inverse, origin }
}

/// Rounds every number to a level of its group's grid.
#[inline(always)]
fn place(x: &[[f32; 8]; 32], low: &[f32; 8], inverse: &[f32; 8], top: f32, levels: &mut [[f32; 8]; 32]) {
    for (l, x) in levels.iter_mut().zip(x) {
        for g in 0..8 {
            l[g] = nearest(inverse[g] * (x[g] - low[g])).clamp(0.0, top);
        }
    }
}

#[inline(always)]
fn weighted_error(
    x: &[[f32; 8]; 32],
    weights: &[[f32; 8]; 32],
    levels: &[[f32; 8]; 32],
    scale: &[f32; 8],
    low: &[f32; 8],
) -> [f32; 8] {
    let mut error = [0.0f32; 8];
    for ((x, w), l) in x.iter().zip(weights).zip(levels) {
        for g in 0..8 {
            let difference = scale[g] * l[g] + low[g] - x[g];
            error[g] += w[g] * (difference * difference);
        }
    }
    error
}

/// What the search found for each of sixteen groups: `x = scale q` with `q` from -32 to 31. Scales may be negative: the
/// number of the largest magnitude goes to the side that reaches further.
struct SymmetricFit {
    /// 0 for a group of zeros.
    scale: [f32; 16],
    /// The grid whose levels these are for: `q = inverse x`, rounded.
    inverse: [f32; 16],
}

/// Weights are squares of the numbers. The grids have 31.1, 31.2, … 32.9 steps between zero and the largest magnitude; the
/// one with 32 is tried first.
fn fit_symmetric(x: &[[f32; 16]; 16]) -> SymmetricFit {
    let (mut most, mut extreme) = ([0.0f32; 16], [0.0f32; 16]);
    for x in x {
        for g in 0..16 {
            let larger = x[g].abs() > most[g];
            extreme[g] = if larger { x[g] } else { extreme[g] };
            most[g] = if larger { x[g].abs() } else { most[g] };
        }
    }
    let mut inverse = extreme.map(|extreme| -32.0 / extreme);
    let (sum_lx, sum_ll) = symmetric_sums(x, &inverse);
    let mut scale: [f32; 16] = std::array::from_fn(|g| if sum_ll[g] == 0.0 { 0.0 } else { sum_lx[g] / sum_ll[g] });
    // What the fit takes off the weighted sum of squares; the most of it leaves the least error.
    let mut gain: [f32; 16] = std::array::from_fn(|g| scale[g] * sum_lx[g]);
    for step in (-9..=9).filter(|&step| step != 0) {
        let steps = -(32.0 + 0.1 * step as f32);
        let tried = extreme.map(|extreme| steps / extreme);
        let (sum_lx, sum_ll) = symmetric_sums(x, &tried);
        for g in 0..16 {
            if sum_ll[g] > 0.0 && sum_lx[g] * sum_lx[g] > gain[g] * sum_ll[g] {
                inverse[g] = tried[g];
                scale[g] = sum_lx[g] / sum_ll[g];
                gain[g] = scale[g] * sum_lx[g];
            }
        }
    }
    for g in (0..16).filter(|&g| most[g] < NEGLIGIBLE) {
        scale[g] = 0.0;
    }
    SymmetricFit { scale, inverse }
}

/// Weighted sums of `q x` and `q q` over each group.
#[inline(always)]
fn symmetric_sums(x: &[[f32; 16]; 16], inverse: &[f32; 16]) -> ([f32; 16], [f32; 16]) {
    let (mut sum_lx, mut sum_ll) = ([0.0f32; 16], [0.0f32; 16]);
    for x in x {
        for g in 0..16 {
            let q = nearest(inverse[g] * x[g]).clamp(-32.0, 31.0);
            let w = x[g] * x[g];
            sum_lx[g] += w * x[g] * q;
            sum_ll[g] += w * q * q;
        }
    }
    (sum_lx, sum_ll)
}

/// Eight values of at least 0 as multiples, up to 63, of an f16.
fn six_bits(values: &[f32; 8]) -> Result<([u8; 2], [u8; 8]), TooLarge> {
    let most = values.iter().fold(0.0f32, |most, &value| most.max(value));
    let inverse = if most > 0.0 { 63.0 / most } else { 0.0 };
    Ok((stored_scale(most / 63.0)?, values.map(|value| nearest(inverse * value).clamp(0.0, 63.0) as u8)))
}

/// The inverse of `k_scales` in `k.rs`.
fn pack_k_scales(scales: &[u8; 8], minima: &[u8; 8]) -> [u8; 12] {
    let mut packed = [0; 12];
    for i in 0..4 {
        packed[i] = scales[i] | scales[i + 4] >> 4 << 6;
        packed[i + 4] = minima[i] | minima[i + 4] >> 4 << 6;
        packed[i + 8] = (scales[i + 4] & 15) | minima[i + 4] << 4;
    }
    packed
}

/// Low four bits of the levels of Q4_K and Q5_K: two groups share 32 bytes.
fn pack_nibbles(levels: &[u8; 256], nibbles: &mut [u8]) {
    for (nibbles, levels) in nibbles.chunks_exact_mut(32).zip(levels.as_chunks::<64>().0) {
        for (l, nibble) in nibbles.iter_mut().enumerate() {
            *nibble = (levels[l] & 15) | levels[l + 32] << 4;
        }
    }
}

fn check_searchable(x: &[f32; 256]) -> Result<(), TooLarge> {
    if x.iter().all(|v| v.abs() < SEARCHABLE) { Ok(()) } else { Err(TooLarge) }
}

/// `L` rows of one number of each of the `G` groups.
fn by_position<const L: usize, const G: usize>(x: &[f32; 256]) -> [[f32; G]; L] {
    std::array::from_fn(|l| std::array::from_fn(|g| x[L * g + l]))
}

/// The nearest integer, halves to the even one: adding this constant leaves no bits for a fraction. (`round_ties_even` is
/// a call for every number on processors from before 2008, for which this is compiled too.)
#[inline(always)]
fn nearest(x: f32) -> f32 {
    const SHIFT: f32 = 1.5 * (1 << 23) as f32;
    x + SHIFT - SHIFT
}
