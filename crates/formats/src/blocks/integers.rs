//! Blocks as integers with scales: what a kernel that multiplies quantised weights reads, and what decoding multiplies out.

use super::{each, k, legacy};
use crate::element::ElementType;

/// A block of `N` numbers in `G` groups: `y = scale · level + offset`, the product rounded first.
pub(super) struct Integers<const N: usize, const G: usize> {
    pub(super) levels: [i8; N],
    pub(super) scales: [f32; G],
    /// Zeros for types that have none.
    pub(super) offsets: [f32; G],
}

/// How the rows of a quantised type read as integers ([`crate::TensorView::decode_integers`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntegerLayout {
    /// Neighbours in a row that share a scale.
    pub group_len: usize,
    /// The lowest level.
    pub lowest: i8,
    /// Number of levels.
    pub levels: usize,
    /// Whether groups have offsets.
    pub offset: GroupOffset,
    /// The precision that scales and offsets have.
    pub scale: ScalePrecision,
}

/// Whether groups have offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupOffset {
    /// `y = scale · level`
    Without,
    /// `y = scale · level + offset`
    With,
}

/// The precision that scales and offsets have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalePrecision {
    /// Half: the file stores them so.
    F16,
    /// Single: they are products of what the file stores.
    F32,
}

impl IntegerLayout {
    /// The layout of a type, if it is one of levels that are evenly spaced.
    pub(crate) fn of(element: ElementType) -> Option<Self> {
        use ElementType as E;
        use GroupOffset::{With, Without};
        use ScalePrecision::{F16, F32};
        let (group_len, lowest, levels, offset, scale) = match element {
            E::Q4_0 => (32, -8, 16, Without, F16),
            E::Q4_1 => (32, 0, 16, With, F16),
            E::Q5_0 => (32, -16, 32, Without, F16),
            E::Q5_1 => (32, 0, 32, With, F16),
            E::Q8_0 => (32, i8::MIN, 256, Without, F16),
            E::Q2_K => (16, 0, 4, With, F32),
            E::Q3_K => (16, -4, 8, Without, F32),
            E::Q4_K => (32, 0, 16, With, F32),
            E::Q5_K => (32, 0, 32, With, F32),
            E::Q6_K => (16, -32, 64, Without, F32),
            _ => return None,
        };
        Some(Self { group_len, lowest, levels, offset, scale })
    }
}

/// Splits whole blocks of a type that has an [`IntegerLayout`] into levels, scales and offsets.
pub(crate) fn split(element: ElementType, bytes: &[u8], levels: &mut [i8], scales: &mut [f32], offsets: &mut [f32]) {
    use ElementType as E;
    match element {
        E::Q4_0 => split_each(bytes, levels, scales, offsets, legacy::q4_0),
        E::Q4_1 => split_each(bytes, levels, scales, offsets, legacy::q4_1),
        E::Q5_0 => split_each(bytes, levels, scales, offsets, legacy::q5_0),
        E::Q5_1 => split_each(bytes, levels, scales, offsets, legacy::q5_1),
        E::Q8_0 => split_each(bytes, levels, scales, offsets, legacy::q8_0),
        E::Q2_K => split_each(bytes, levels, scales, offsets, k::q2_k),
        E::Q3_K => split_each(bytes, levels, scales, offsets, k::q3_k),
        E::Q4_K => split_each(bytes, levels, scales, offsets, k::q4_k),
        E::Q5_K => split_each(bytes, levels, scales, offsets, k::q5_k),
        E::Q6_K => split_each(bytes, levels, scales, offsets, k::q6_k),
        other => unreachable!("{other} has no integer layout"),
    }
}

fn split_each<const B: usize, const N: usize, const G: usize>(
    bytes: &[u8],
    levels: &mut [i8],
    scales: &mut [f32],
    offsets: &mut [f32],
    block: impl Fn(&[u8; B]) -> Integers<N, G>,
) {
    let blocks = bytes.as_chunks::<B>().0.iter();
    let groups = scales.as_chunks_mut::<G>().0.iter_mut().zip(offsets.as_chunks_mut::<G>().0);
    for ((b, levels), (scales, offsets)) in blocks.zip(levels.as_chunks_mut::<N>().0).zip(groups) {
        let integers = block(b);
        (*levels, *scales, *offsets) = (integers.levels, integers.scales, integers.offsets);
    }
}

/// Decodes blocks without offsets: `y = scale · level`.
#[inline(always)]
pub(super) fn products<const B: usize, const N: usize, const G: usize>(
    bytes: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8; B]) -> Integers<N, G>,
) {
    each(bytes, out, |b, y: &mut [f32; N]| {
        let Integers { levels, scales, .. } = block(b);
        for (g, (y, levels)) in y.chunks_exact_mut(N / G).zip(levels.chunks_exact(N / G)).enumerate() {
            y.iter_mut().zip(levels).for_each(|(y, level)| *y = scales[g] * f32::from(*level));
        }
    });
}

/// Decodes blocks with offsets: `y = scale · level + offset`.
#[inline(always)]
pub(super) fn sums<const B: usize, const N: usize, const G: usize>(
    bytes: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8; B]) -> Integers<N, G>,
) {
    each(bytes, out, |b, y: &mut [f32; N]| {
        let Integers { levels, scales, offsets } = block(b);
        for (g, (y, levels)) in y.chunks_exact_mut(N / G).zip(levels.chunks_exact(N / G)).enumerate() {
            y.iter_mut().zip(levels).for_each(|(y, level)| *y = scales[g] * f32::from(*level) + offsets[g]);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::decode;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn levels_and_scales_make_the_decoded_numbers(seed in any::<u64>()) {
            for element in ElementType::all() {
                let Some(layout) = IntegerLayout::of(element) else { continue };
                let blocks = 3;
                let mut state = seed | 1;
                let bytes: Vec<u8> = (0..blocks * element.block_bytes())
                    .map(|_| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        (state >> 56) as u8
                    })
                    .collect();
                let numbers = blocks * element.block_len();
                let mut expected = vec![0.0; numbers];
                decode(element, &bytes, &mut expected);
                let groups = numbers / layout.group_len;
                let (mut levels, mut scales, mut offsets) = (vec![0; numbers], vec![0.0; groups], vec![0.0; groups]);
                split(element, &bytes, &mut levels, &mut scales, &mut offsets);
                for (i, expected) in expected.iter().enumerate() {
                    let level = i16::from(levels[i]) - i16::from(layout.lowest);
                    prop_assert!(level >= 0 && (level as usize) < layout.levels, "{}: {}", element, levels[i]);
                    let g = i / layout.group_len;
                    let mut y = scales[g] * f32::from(levels[i]);
                    match layout.offset {
                        GroupOffset::With => y += offsets[g],
                        GroupOffset::Without => prop_assert_eq!(offsets[g], 0.0),
                    }
                    if layout.scale == ScalePrecision::F16 {
                        let kept = |x: f32| half::f16::from_f32(x).to_f32().to_bits() == x.to_bits() || x.is_nan();
                        prop_assert!(kept(scales[g]) && kept(offsets[g]));
                    }
                    prop_assert!(y.to_bits() == expected.to_bits() || y.is_nan() && expected.is_nan(), "{}", element);
                }
            }
        }
    }
}
