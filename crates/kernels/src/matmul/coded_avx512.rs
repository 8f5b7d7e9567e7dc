//! Coded weights with 512-bit vectors: decoded into a block, or multiplied by a few rows as they are decoded.

#![expect(unsafe_code, reason = "vector intrinsics on pointers")]

use std::arch::x86_64::{
    __m512, __m512i, _MM_HINT_T0, _mm_prefetch, _mm256_loadu_si256, _mm512_add_ps, _mm512_and_si512,
    _mm512_castsi512_ps, _mm512_cvtepi32_ps, _mm512_cvtph_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_mask_add_epi8, _mm512_mul_ps, _mm512_permutex2var_ps, _mm512_permutexvar_ps, _mm512_set1_epi8,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_slli_epi32, _mm512_srai_epi32, _mm512_srli_epi32,
    _mm512_storeu_ps,
};

use super::PANEL;
use super::coded::{Code, Coded, Coding, Groups, Offset, PAIRS, Scale};
use super::tile::Tile;

/// Decodes whole records into `out`, `[records · len][32]`, and asks for those that lie `next` bytes further on: they are
/// decoded next, and come from memory while these are multiplied.
pub(super) fn unpack(groups: &Groups, records: &[u8], next: usize, out: &mut [f32]) {
    let ((_, codes_at, _), record) = (groups.places(), groups.record());
    assert!(codes_at < record && records.len() / record * groups.len * PANEL == out.len(), "whole records");
    // SAFETY: the caller found AVX-512 on this machine; the lengths are checked above.
    unsafe {
        match groups.code {
            Code::Nibble(_) => unpack_with::<Nibbles>(groups, records, next, out),
            Code::NibbleAndBit(_) => unpack_with::<NibblesAndBits>(groups, records, next, out),
            Code::Byte => unpack_with::<Bytes>(groups, records, next, out),
        }
    }
}

/// `C[rows, 32] += A[rows, k] · B[k, 32]` for up to 4 rows and one panel of coded columns. `tile.b` and its stride are
/// not used.
///
/// # Safety
/// The machine has AVX-512; `tile` holds `rows` rows of `C` and, with `tile.k` the depth of the matrix, of `A`.
pub(super) unsafe fn few(b: &Coded, panel: usize, rows: usize, tile: &Tile) {
    // SAFETY: as above.
    unsafe {
        match rows {
            1 => few_rows::<1>(b, panel, tile),
            2 => few_rows::<2>(b, panel, tile),
            3 => few_rows::<3>(b, panel, tile),
            _ => few_rows::<4>(b, panel, tile),
        }
    }
}

unsafe fn few_rows<const ROWS: usize>(b: &Coded, panel: usize, tile: &Tile) {
    let (coding, bytes) = b.panel(panel);
    // SAFETY: as for `few`.
    unsafe {
        match coding {
            Coding::Bf16 => few_bf16::<ROWS>(bytes, tile),
            Coding::F16 => few_f16::<ROWS>(bytes, tile),
            Coding::Groups(groups) => match groups.code {
                Code::Nibble(_) => few_groups::<ROWS, Nibbles>(groups, bytes, tile),
                Code::NibbleAndBit(_) => few_groups::<ROWS, NibblesAndBits>(groups, bytes, tile),
                Code::Byte => few_groups::<ROWS, Bytes>(groups, bytes, tile),
            },
        }
    }
}

/// A vector of 32 values, one for each column.
type Line = [__m512; 2];

/// Codes of four neighbours in `k` as numbers. Implementations are inlined into functions that may use AVX-512.
trait Codes {
    /// `v(q)` of the 32 columns at steps `4 four` to `4 four + 3` of a record.
    unsafe fn values(codes: *const u8, bits: *const u8, four: usize, levels: Line) -> [Line; 4];
}

struct Nibbles;
impl Codes for Nibbles {
    #[inline(always)]
    unsafe fn values(codes: *const u8, _: *const u8, four: usize, levels: Line) -> [Line; 4] {
        // SAFETY: a record has 64 bytes for four steps. The permutation reads the low 4 bits of its indices only.
        unsafe {
            let x = _mm512_loadu_si512(codes.add(four * 2 * PANEL).cast());
            let at = |index| _mm512_permutexvar_ps(index, levels[0]);
            [
                [at(x), at(_mm512_srli_epi32::<4>(x))],
                [at(_mm512_srli_epi32::<8>(x)), at(_mm512_srli_epi32::<12>(x))],
                [at(_mm512_srli_epi32::<16>(x)), at(_mm512_srli_epi32::<20>(x))],
                [at(_mm512_srli_epi32::<24>(x)), at(_mm512_srli_epi32::<28>(x))],
            ]
        }
    }
}

struct NibblesAndBits;
impl Codes for NibblesAndBits {
    #[inline(always)]
    unsafe fn values(codes: *const u8, bits: *const u8, four: usize, levels: Line) -> [Line; 4] {
        // SAFETY: as above, and a record has 16 bytes of fifth bits for four steps.
        unsafe {
            let [low, high] = unsigned_nibbles(codes.add(four * 2 * PANEL), Some(bits.add(four * 16)));
            // The permutation of two tables reads the low 5 bits.
            let at = |index| _mm512_permutex2var_ps(levels[0], index, levels[1]);
            [
                [at(low), at(high)],
                [at(_mm512_srli_epi32::<8>(low)), at(_mm512_srli_epi32::<8>(high))],
                [at(_mm512_srli_epi32::<16>(low)), at(_mm512_srli_epi32::<16>(high))],
                [at(_mm512_srli_epi32::<24>(low)), at(_mm512_srli_epi32::<24>(high))],
            ]
        }
    }
}

struct Bytes;
impl Codes for Bytes {
    #[inline(always)]
    unsafe fn values(codes: *const u8, _: *const u8, four: usize, _: Line) -> [Line; 4] {
        // SAFETY: a record has 128 bytes for four steps.
        unsafe {
            let at = codes.add(four * 4 * PANEL);
            let (x, y) = (_mm512_loadu_si512(at.cast()), _mm512_loadu_si512(at.add(2 * PANEL).cast()));
            let float = |x| _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(x));
            [
                [float(_mm512_slli_epi32::<24>(x)), float(_mm512_slli_epi32::<24>(y))],
                [float(_mm512_slli_epi32::<16>(x)), float(_mm512_slli_epi32::<16>(y))],
                [float(_mm512_slli_epi32::<8>(x)), float(_mm512_slli_epi32::<8>(y))],
                [float(x), float(y)],
            ]
        }
    }
}

/// The nibbles of four steps as bytes: columns 0 to 15, columns 16 to 31; `bits` are fifth bits.
#[inline(always)]
pub(super) unsafe fn unsigned_nibbles(codes: *const u8, bits: Option<*const u8>) -> [__m512i; 2] {
    // SAFETY: the caller has 64 bytes of codes and 16 of bits.
    unsafe {
        let (x, four_bits) = (_mm512_loadu_si512(codes.cast()), _mm512_set1_epi8(15));
        let (low, high) = (_mm512_and_si512(x, four_bits), _mm512_and_si512(_mm512_srli_epi32::<4>(x), four_bits));
        let Some(bits) = bits.map(<*const u8>::cast::<u64>) else { return [low, high] };
        let sixteen = _mm512_set1_epi8(16);
        [
            _mm512_mask_add_epi8(low, bits.read_unaligned(), low, sixteen),
            _mm512_mask_add_epi8(high, bits.add(1).read_unaligned(), high, sixteen),
        ]
    }
}

/// Scales and offsets of a record.
#[inline(always)]
pub(super) unsafe fn scales(groups: &Groups, at: *const u8) -> Line {
    // SAFETY: the caller's record has 32 scales at `at`.
    unsafe {
        match groups.scale {
            Scale::F16 => [
                _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())),
                _mm512_cvtph_ps(_mm256_loadu_si256(at.add(PANEL).cast())),
            ],
            Scale::F32 => [_mm512_loadu_ps(at.cast()), _mm512_loadu_ps(at.add(2 * PANEL).cast())],
        }
    }
}

/// What the codes 0 to 31 stand for.
#[inline(always)]
unsafe fn levels(groups: &Groups) -> Line {
    let levels: [f32; PANEL] = std::array::from_fn(|q| f32::from(groups.lowest()) + q as f32);
    // SAFETY: two vectors of 16.
    unsafe { [_mm512_loadu_ps(levels.as_ptr()), _mm512_loadu_ps(levels.as_ptr().add(16))] }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn unpack_with<C: Codes>(groups: &Groups, records: &[u8], next: usize, out: &mut [f32]) {
    let (offsets_at, codes_at, bits_at) = groups.places();
    // SAFETY: `unpack` checked that `out` has a line for every step of the records.
    unsafe {
        let levels = levels(groups);
        let mut out = out.as_mut_ptr();
        for record in records.chunks_exact(groups.record()) {
            let at = record.as_ptr();
            prefetch(at.wrapping_add(next), groups.record());
            let scale = scales(groups, at);
            let offset = if groups.offset == Offset::With { Some(scales(groups, at.add(offsets_at))) } else { None };
            for four in 0..groups.len / 4 {
                for v in C::values(at.add(codes_at), at.add(bits_at), four, levels) {
                    for half in 0..2 {
                        let mut w = _mm512_mul_ps(v[half], scale[half]);
                        if let Some(offset) = offset {
                            w = _mm512_add_ps(w, offset[half]);
                        }
                        _mm512_storeu_ps(out.add(half * 16), w);
                    }
                    out = out.add(PANEL);
                }
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn few_groups<const ROWS: usize, C: Codes>(groups: &Groups, panel: &[u8], t: &Tile) {
    let (offsets_at, codes_at, bits_at) = groups.places();
    // SAFETY: the panel has a record for every group of the depth, and `t` holds the operands.
    unsafe {
        let levels = levels(groups);
        let mut sum = load::<ROWS>(t);
        let record = groups.record();
        let (mut at, mut a) = (panel.as_ptr(), t.a);
        for _ in 0..t.k / groups.len {
            ahead(at, record);
            let scale = scales(groups, at);
            let codes = at.add(codes_at);
            if groups.offset == Offset::With {
                let offset = scales(groups, at.add(offsets_at));
                for four in 0..groups.len / 4 {
                    for (j, v) in C::values(codes, at.add(bits_at), four, levels).into_iter().enumerate() {
                        let w = [
                            _mm512_add_ps(_mm512_mul_ps(v[0], scale[0]), offset[0]),
                            _mm512_add_ps(_mm512_mul_ps(v[1], scale[1]), offset[1]),
                        ];
                        accumulate::<ROWS>(&mut sum, a.add(4 * four + j), t.a_stride, w);
                    }
                }
            } else {
                for four in 0..groups.len / 4 {
                    for (j, v) in C::values(codes, at.add(bits_at), four, levels).into_iter().enumerate() {
                        let w = [_mm512_mul_ps(v[0], scale[0]), _mm512_mul_ps(v[1], scale[1])];
                        accumulate::<ROWS>(&mut sum, a.add(4 * four + j), t.a_stride, w);
                    }
                }
            }
            at = at.add(record);
            a = a.add(groups.len);
        }
        store::<ROWS>(t, sum);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn few_f16<const ROWS: usize>(panel: &[u8], t: &Tile) {
    // SAFETY: the panel has 32 values for each `k`, and `t` holds the operands.
    unsafe {
        let mut sum = load::<ROWS>(t);
        let mut at = panel.as_ptr();
        for i in 0..t.k {
            ahead(at, 2 * PANEL);
            let values = |at: *const u8| _mm512_cvtph_ps(_mm256_loadu_si256(at.cast()));
            accumulate::<ROWS>(&mut sum, t.a.add(i), t.a_stride, [values(at), values(at.add(PANEL))]);
            at = at.add(2 * PANEL);
        }
        store::<ROWS>(t, sum);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn few_bf16<const ROWS: usize>(panel: &[u8], t: &Tile) {
    // SAFETY: the panel has 32 pairs for every two `k`, and `t` holds the operands.
    unsafe {
        let mut sum = load::<ROWS>(t);
        let mut at = panel.as_ptr();
        for i in (0..t.k).step_by(2) {
            ahead(at, PAIRS);
            let pairs = [_mm512_loadu_si512(at.cast()), _mm512_loadu_si512(at.add(2 * PANEL).cast())];
            let first = pairs.map(|pair| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pair)));
            accumulate::<ROWS>(&mut sum, t.a.add(i), t.a_stride, first);
            if i + 1 < t.k {
                let upper = _mm512_set1_epi32(-1 << 16);
                let second = pairs.map(|pair| _mm512_castsi512_ps(_mm512_and_si512(pair, upper)));
                accumulate::<ROWS>(&mut sum, t.a.add(i + 1), t.a_stride, second);
            }
            at = at.add(PAIRS);
        }
        store::<ROWS>(t, sum);
    }
}

/// Asks for the bytes that will be needed a few records later: one row of `A` leaves no time to wait for memory, and the
/// processor's own prefetching stops at every page. An address past the end is ignored.
#[inline(always)]
pub(super) fn ahead(at: *const u8, bytes: usize) {
    const DISTANCE: usize = 4096;
    prefetch(at.wrapping_add(DISTANCE), bytes);
}

#[inline(always)]
fn prefetch(at: *const u8, bytes: usize) {
    for line in (0..bytes).step_by(64) {
        // SAFETY: a prefetch reads nothing that the program can see, wherever it points.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(line).cast()) };
    }
}

#[inline(always)]
unsafe fn accumulate<const ROWS: usize>(sum: &mut [Line; ROWS], a: *const f32, a_stride: usize, w: Line) {
    for (r, sum) in sum.iter_mut().enumerate() {
        // SAFETY: the caller's `A` has ROWS rows.
        unsafe {
            let x = _mm512_set1_ps(*a.add(r * a_stride));
            sum[0] = _mm512_fmadd_ps(x, w[0], sum[0]);
            sum[1] = _mm512_fmadd_ps(x, w[1], sum[1]);
        }
    }
}

#[inline(always)]
unsafe fn load<const ROWS: usize>(t: &Tile) -> [Line; ROWS] {
    // SAFETY: the caller's `C` has ROWS rows of 32 values.
    unsafe {
        let mut sum = [[_mm512_setzero_ps(); 2]; ROWS];
        for (r, sum) in sum.iter_mut().enumerate() {
            let c = t.c.add(r * t.c_stride);
            *sum = [_mm512_loadu_ps(c), _mm512_loadu_ps(c.add(16))];
        }
        sum
    }
}

#[inline(always)]
unsafe fn store<const ROWS: usize>(t: &Tile, sum: [Line; ROWS]) {
    for (r, sum) in sum.iter().enumerate() {
        // SAFETY: the caller's `C` has ROWS rows of 32 values.
        unsafe {
            let c = t.c.add(r * t.c_stride);
            _mm512_storeu_ps(c, sum[0]);
            _mm512_storeu_ps(c.add(16), sum[1]);
        }
    }
}
