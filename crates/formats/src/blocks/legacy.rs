//! Blocks of 32 with one scale: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and Q8_1.
//!
//! Decoders first, then encoders: one pass over the block finds the scale, with ggml's reference arithmetic to the last
//! bit (`quantize_row_*_ref`).

use super::{TooLarge, part, scale, stored_scale};

/// `f16 d | 16 bytes`: low nibbles are numbers 0 to 15, high nibbles 16 to 31. `y = d (q - 8)`.
pub(super) fn q4_0(b: &[u8; 18], y: &mut [f32; 32]) {
    let d = scale(b, 0);
    let qs: &[u8; 16] = part(b, 2);
    for l in 0..16 {
        y[l] = d * f32::from((qs[l] & 15) as i8 - 8);
        y[l + 16] = d * f32::from((qs[l] >> 4) as i8 - 8);
    }
}

/// `f16 d | f16 m | 16 bytes`, nibbles as in Q4_0. `y = d q + m`.
pub(super) fn q4_1(b: &[u8; 20], y: &mut [f32; 32]) {
    let (d, m) = (scale(b, 0), scale(b, 2));
    let qs: &[u8; 16] = part(b, 4);
    for l in 0..16 {
        y[l] = d * f32::from(qs[l] & 15) + m;
        y[l + 16] = d * f32::from(qs[l] >> 4) + m;
    }
}

/// `f16 d | u32 fifth bits | 16 bytes`: bit `i` of the u32 is bit 4 of number `i`. `y = d (q - 16)`.
pub(super) fn q5_0(b: &[u8; 22], y: &mut [f32; 32]) {
    let d = scale(b, 0);
    let high = u32::from_le_bytes(*part(b, 2));
    let qs: &[u8; 16] = part(b, 6);
    for l in 0..16 {
        let low_high = (high >> l << 4) & 16;
        let upper_high = (high >> (l + 16) << 4) & 16;
        y[l] = d * ((u32::from(qs[l] & 15) | low_high) as i32 - 16) as f32;
        y[l + 16] = d * ((u32::from(qs[l] >> 4) | upper_high) as i32 - 16) as f32;
    }
}

/// `f16 d | f16 m | u32 fifth bits | 16 bytes`, bits as in Q5_0. `y = d q + m`.
pub(super) fn q5_1(b: &[u8; 24], y: &mut [f32; 32]) {
    let (d, m) = (scale(b, 0), scale(b, 2));
    let high = u32::from_le_bytes(*part(b, 4));
    let qs: &[u8; 16] = part(b, 8);
    for l in 0..16 {
        let low_high = (high >> l << 4) & 16;
        let upper_high = (high >> (l + 16) << 4) & 16;
        y[l] = d * (u32::from(qs[l] & 15) | low_high) as i32 as f32 + m;
        y[l + 16] = d * (u32::from(qs[l] >> 4) | upper_high) as i32 as f32 + m;
    }
}

/// `f16 d | 32 signed bytes`. `y = d q`.
pub(super) fn q8_0(b: &[u8; 34], y: &mut [f32; 32]) {
    let d = scale(b, 0);
    let qs: &[u8; 32] = part(b, 2);
    for l in 0..32 {
        y[l] = d * f32::from(qs[l] as i8);
    }
}

/// `f16 d | f16 sum | 32 signed bytes`. `y = d q`; the sum of the values serves products and is not needed here.
pub(super) fn q8_1(b: &[u8; 36], y: &mut [f32; 32]) {
    let d = scale(b, 0);
    let qs: &[u8; 32] = part(b, 4);
    for l in 0..32 {
        y[l] = d * f32::from(qs[l] as i8);
    }
}

pub(super) fn encode_q4_0(x: &[f32; 32], b: &mut [u8; 18]) -> Result<(), TooLarge> {
    let (d, levels) = symmetric(x, 8.0)?;
    b[..2].copy_from_slice(&d);
    b[2..].copy_from_slice(&nibbles(&levels));
    Ok(())
}

pub(super) fn encode_q4_1(x: &[f32; 32], b: &mut [u8; 20]) -> Result<(), TooLarge> {
    let (scales, levels) = affine(x, 15.0)?;
    b[..4].copy_from_slice(&scales);
    b[4..].copy_from_slice(&nibbles(&levels));
    Ok(())
}

pub(super) fn encode_q5_0(x: &[f32; 32], b: &mut [u8; 22]) -> Result<(), TooLarge> {
    let (d, levels) = symmetric(x, 16.0)?;
    b[..2].copy_from_slice(&d);
    b[2..6].copy_from_slice(&fifth_bits(&levels));
    b[6..].copy_from_slice(&nibbles(&levels));
    Ok(())
}

pub(super) fn encode_q5_1(x: &[f32; 32], b: &mut [u8; 24]) -> Result<(), TooLarge> {
    let (scales, levels) = affine(x, 31.0)?;
    b[..4].copy_from_slice(&scales);
    b[4..8].copy_from_slice(&fifth_bits(&levels));
    b[8..].copy_from_slice(&nibbles(&levels));
    Ok(())
}

/// The number of the largest magnitude becomes 127 or -127. Halves are rounded away from zero.
pub(super) fn encode_q8_0(x: &[f32; 32], b: &mut [u8; 34]) -> Result<(), TooLarge> {
    let d = x.iter().fold(0.0f32, |most, v| most.max(v.abs())) / 127.0;
    let inverse = reciprocal(d);
    b[..2].copy_from_slice(&stored_scale(d)?);
    for (q, v) in b[2..].iter_mut().zip(x) {
        *q = (v * inverse).round() as i8 as u8;
    }
    Ok(())
}

/// Scale and levels of a type without a minimum, which has `2 half` levels: the number of the largest magnitude, with its
/// sign, becomes level 0, which stands for `-half`. That side has one level more than the other.
fn symmetric(x: &[f32; 32], half: f32) -> Result<([u8; 2], [u8; 32]), TooLarge> {
    let (mut most, mut extreme) = (0.0, 0.0);
    for &v in x {
        if v.abs() > most {
            (most, extreme) = (v.abs(), v);
        }
    }
    let d = extreme / -half;
    let inverse = reciprocal(d);
    let top = 2.0 * half - 1.0;
    // The sum is positive, so that cutting it off rounds to the nearest.
    let levels = x.map(|v| (v * inverse + (half + 0.5)).min(top) as u8);
    Ok((stored_scale(d)?, levels))
}

/// Scale and minimum, as stored, and levels 0 to `top` of a type with a minimum: the levels span the block's range.
fn affine(x: &[f32; 32], top: f32) -> Result<([u8; 4], [u8; 32]), TooLarge> {
    let (mut low, mut high) = (x[0], x[0]);
    for &v in x {
        low = if v < low { v } else { low };
        high = if v > high { v } else { high };
    }
    let d = (high - low) / top;
    let inverse = reciprocal(d);
    let levels = x.map(|v| ((v - low) * inverse + 0.5).min(top) as u8);
    let ([d0, d1], [m0, m1]) = (stored_scale(d)?, stored_scale(low)?);
    Ok(([d0, d1, m0, m1], levels))
}

/// A block of zeros has the scale 0, and its numbers the level of 0.
fn reciprocal(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Low four bits of the levels: numbers 0 to 15 in the low nibbles, 16 to 31 in the high ones.
fn nibbles(levels: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|l| (levels[l] & 15) | (levels[l + 16] << 4))
}

/// Bit 4 of level `i` as bit `i`.
fn fifth_bits(levels: &[u8; 32]) -> [u8; 4] {
    let bits = levels.iter().enumerate().fold(0u32, |bits, (i, level)| bits | u32::from(level >> 4 & 1) << i);
    bits.to_le_bytes()
}
