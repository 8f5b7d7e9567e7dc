//! Coded weights with 512-bit vectors: decoded into a block, or multiplied by a few rows as they are decoded.

#![expect(unsafe_code, reason = "vector intrinsics on pointers")]

use std::arch::x86_64::{
    __m512, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch, _mm256_loadu_si256, _mm512_add_ps, _mm512_castsi512_ps,
    _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_cvtepu16_epi32, _mm512_cvtph_ps,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_add_ps, _mm512_mul_ps, _mm512_permutexvar_ps, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_slli_epi32, _mm512_srli_epi32, _mm512_storeu_ps,
};

use super::PANEL;
use super::coded::{Code, Coded, Coding, Groups, Offset, Scale};
use super::tile::Tile;

/// Decodes whole records into `out`, `[records · len][32]`.
pub(super) fn unpack(groups: &Groups, records: &[u8], out: &mut [f32]) {
    let ((_, codes_at, _), record) = (groups.places(), groups.record());
    assert!(codes_at < record && records.len() / record * groups.len * PANEL == out.len(), "whole records");
    // SAFETY: the caller found AVX-512 on this machine; the lengths are checked above.
    unsafe {
        match groups.code {
            Code::Nibble(_) => unpack_with::<Nibbles>(groups, records, out),
            Code::NibbleAndBit(_) => unpack_with::<NibblesAndBits>(groups, records, out),
            Code::Byte => unpack_with::<Bytes>(groups, records, out),
        }
    }
}

/// `C[rows, 32] += A[rows, k] · B[k, 32]` for up to 4 rows and one panel of coded columns. `tile.b` and its stride are
/// not used.
///
/// # Safety
/// The machine has AVX-512; `tile` holds `rows` rows of `C` and, with `tile.k` the depth of the matrix, of `A`.
pub(super) unsafe fn few(b: &Coded, panel: usize, rows: usize, tile: Tile) {
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

unsafe fn few_rows<const ROWS: usize>(b: &Coded, panel: usize, tile: Tile) {
    let (coding, bytes) = b.panel(panel);
    // SAFETY: as for `few`.
    unsafe {
        match coding {
            Coding::Bf16 => few_halves::<ROWS, Bf16>(bytes, tile),
            Coding::F16 => few_halves::<ROWS, F16>(bytes, tile),
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

/// Codes of one `k` as numbers. Implementations are inlined into functions that may use AVX-512.
trait Codes {
    /// `v(q)` of the 32 columns at step `i` of a record.
    unsafe fn values(codes: *const u8, bits: *const u8, i: usize, table: __m512) -> Line;
}

struct Nibbles;
impl Codes for Nibbles {
    #[inline(always)]
    unsafe fn values(codes: *const u8, _: *const u8, i: usize, table: __m512) -> Line {
        // SAFETY: a record has 16 bytes for each step. The permutation reads the low 4 bits of its indices only.
        unsafe {
            let pairs = _mm512_cvtepu8_epi32(_mm_loadu_si128(codes.add(i * PANEL / 2).cast()));
            [_mm512_permutexvar_ps(pairs, table), _mm512_permutexvar_ps(_mm512_srli_epi32::<4>(pairs), table)]
        }
    }
}

struct NibblesAndBits;
impl Codes for NibblesAndBits {
    #[inline(always)]
    unsafe fn values(codes: *const u8, bits: *const u8, i: usize, table: __m512) -> Line {
        // SAFETY: as above, and a record has 4 bytes of fifth bits for each step.
        unsafe {
            let [low, high] = Nibbles::values(codes, bits, i, table);
            let bits = bits.add(i * 4).cast::<u16>();
            let sixteen = _mm512_set1_ps(16.0);
            [
                _mm512_mask_add_ps(low, bits.read_unaligned(), low, sixteen),
                _mm512_mask_add_ps(high, bits.add(1).read_unaligned(), high, sixteen),
            ]
        }
    }
}

struct Bytes;
impl Codes for Bytes {
    #[inline(always)]
    unsafe fn values(codes: *const u8, _: *const u8, i: usize, _: __m512) -> Line {
        // SAFETY: a record has 32 bytes for each step.
        unsafe {
            let of = |at: *const u8| _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(at.cast())));
            [of(codes.add(i * PANEL)), of(codes.add(i * PANEL + 16))]
        }
    }
}

/// Scales and offsets of a record.
#[inline(always)]
unsafe fn scales(groups: &Groups, at: *const u8) -> Line {
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

fn table(groups: &Groups) -> [f32; 16] {
    match groups.code {
        Code::Nibble(table) | Code::NibbleAndBit(table) => table,
        Code::Byte => [0.0; 16],
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn unpack_with<C: Codes>(groups: &Groups, records: &[u8], out: &mut [f32]) {
    let (offsets_at, codes_at, bits_at) = groups.places();
    // SAFETY: `unpack` checked that `out` has a line for every step of the records.
    unsafe {
        let table = _mm512_loadu_ps(table(groups).as_ptr());
        let mut out = out.as_mut_ptr();
        for record in records.chunks_exact(groups.record()) {
            let at = record.as_ptr();
            let scale = scales(groups, at);
            let offset = if groups.offset == Offset::With { Some(scales(groups, at.add(offsets_at))) } else { None };
            for i in 0..groups.len {
                let v = C::values(at.add(codes_at), at.add(bits_at), i, table);
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

#[target_feature(enable = "avx512f")]
unsafe fn few_groups<const ROWS: usize, C: Codes>(groups: &Groups, panel: &[u8], t: Tile) {
    let (offsets_at, codes_at, bits_at) = groups.places();
    // SAFETY: the panel has a record for every group of the depth, and `t` holds the operands.
    unsafe {
        let table = _mm512_loadu_ps(table(groups).as_ptr());
        let mut sum = load::<ROWS>(t);
        let record = groups.record();
        let (mut at, mut a) = (panel.as_ptr(), t.a);
        for _ in 0..t.k / groups.len {
            ahead(at, record);
            let scale = scales(groups, at);
            let codes = at.add(codes_at);
            if groups.offset == Offset::With {
                let offset = scales(groups, at.add(offsets_at));
                for i in 0..groups.len {
                    let v = C::values(codes, at.add(bits_at), i, table);
                    let w = [
                        _mm512_add_ps(_mm512_mul_ps(v[0], scale[0]), offset[0]),
                        _mm512_add_ps(_mm512_mul_ps(v[1], scale[1]), offset[1]),
                    ];
                    accumulate::<ROWS>(&mut sum, a.add(i), t.a_stride, w);
                }
            } else {
                for i in 0..groups.len {
                    let v = C::values(codes, at.add(bits_at), i, table);
                    let w = [_mm512_mul_ps(v[0], scale[0]), _mm512_mul_ps(v[1], scale[1])];
                    accumulate::<ROWS>(&mut sum, a.add(i), t.a_stride, w);
                }
            }
            at = at.add(record);
            a = a.add(groups.len);
        }
        store::<ROWS>(t, sum);
    }
}

/// 16-bit floats of one `k`.
trait Halves {
    unsafe fn values(at: *const u8) -> __m512;
}

struct Bf16;
impl Halves for Bf16 {
    #[inline(always)]
    unsafe fn values(at: *const u8) -> __m512 {
        // SAFETY: the caller has 16 values at `at`.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(at.cast())))) }
    }
}

struct F16;
impl Halves for F16 {
    #[inline(always)]
    unsafe fn values(at: *const u8) -> __m512 {
        // SAFETY: the caller has 16 values at `at`.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())) }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn few_halves<const ROWS: usize, H: Halves>(panel: &[u8], t: Tile) {
    // SAFETY: the panel has 32 values for each `k`, and `t` holds the operands.
    unsafe {
        let mut sum = load::<ROWS>(t);
        let mut at = panel.as_ptr();
        for i in 0..t.k {
            ahead(at, 2 * PANEL);
            let w = [H::values(at), H::values(at.add(PANEL))];
            accumulate::<ROWS>(&mut sum, t.a.add(i), t.a_stride, w);
            at = at.add(2 * PANEL);
        }
        store::<ROWS>(t, sum);
    }
}

/// Asks for the bytes that will be needed a few records later: one row of `A` leaves no time to wait for memory, and the
/// processor's own prefetching stops at every page. An address past the end is ignored.
#[inline(always)]
fn ahead(at: *const u8, bytes: usize) {
    const DISTANCE: usize = 4096;
    for line in (0..bytes).step_by(64) {
        // SAFETY: a prefetch reads nothing that the program can see, wherever it points.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(DISTANCE + line).cast()) };
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
unsafe fn load<const ROWS: usize>(t: Tile) -> [Line; ROWS] {
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
unsafe fn store<const ROWS: usize>(t: Tile, sum: [Line; ROWS]) {
    for (r, sum) in sum.iter().enumerate() {
        // SAFETY: the caller's `C` has ROWS rows of 32 values.
        unsafe {
            let c = t.c.add(r * t.c_stride);
            _mm512_storeu_ps(c, sum[0]);
            _mm512_storeu_ps(c.add(16), sum[1]);
        }
    }
}
