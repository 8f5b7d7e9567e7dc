//! The innermost loops: one tile of up to 12 x 32 sums in registers.

use super::{PANEL, TILE_ROWS};
use crate::Isa;

/// Operands of one register tile: `C[rows, 32] = start + A[rows, k] · B[k, 32]`.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub(super) k: usize,
    pub(super) a: *const f32,
    pub(super) a_stride: usize,
    /// Distance between two values of a row of `A`.
    pub(super) a_step: usize,
    pub(super) b: *const f32,
    pub(super) b_stride: usize,
    /// What the sums start from: rows of 32 values, of `C` itself or not.
    pub(super) start: *const f32,
    pub(super) start_stride: usize,
    pub(super) c: *mut f32,
    pub(super) c_stride: usize,
}

/// A row to start from, with a stride of 0.
#[repr(align(64))]
pub(super) struct Zeros(pub(super) [f32; PANEL]);
pub(super) static ZEROS: Zeros = Zeros([0.0; PANEL]);

#[expect(unsafe_code, reason = "run-time dispatch")]
pub(super) unsafe fn tile_kernel(isa: Isa, rows: usize, tile: &Tile) {
    // SAFETY: `isa` was detected on this machine; the operands are the caller's.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => match rows {
                12 => tile_512::<12>(tile),
                11 => tile_512::<11>(tile),
                10 => tile_512::<10>(tile),
                9 => tile_512::<9>(tile),
                8 => tile_512::<8>(tile),
                7 => tile_512::<7>(tile),
                6 => tile_512::<6>(tile),
                5 => tile_512::<5>(tile),
                4 => tile_512::<4>(tile),
                3 => tile_512::<3>(tile),
                2 => tile_512::<2>(tile),
                _ => tile_512::<1>(tile),
            },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                let mut row = 0;
                while row < rows {
                    let mut part = *tile;
                    part.a = tile.a.add(row * tile.a_stride);
                    part.start = tile.start.add(row * tile.start_stride);
                    part.c = tile.c.add(row * tile.c_stride);
                    row += match rows - row {
                        1 => x86::tile_avx2::<1>(&part),
                        2 => x86::tile_avx2::<2>(&part),
                        3 => x86::tile_avx2::<3>(&part),
                        4 => x86::tile_avx2::<4>(&part),
                        5 => x86::tile_avx2::<5>(&part),
                        _ => x86::tile_avx2::<6>(&part),
                    };
                }
            }
            _ => (0..rows).for_each(|row| tile_portable(row, tile)),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "run-time dispatch")]
unsafe fn tile_512<const ROWS: usize>(tile: &Tile) {
    // SAFETY: the caller found AVX-512 and has the operands.
    unsafe {
        if tile.a_step == TILE_ROWS {
            x86::tile_avx512::<ROWS, true>(tile);
        } else {
            x86::tile_avx512::<ROWS, false>(tile);
        }
    }
}

/// One row of a tile in plain Rust.
#[expect(unsafe_code, reason = "the inner loop works on pointers")]
unsafe fn tile_portable(row: usize, tile: &Tile) {
    // SAFETY: the caller's operands hold `k` x 32 values each.
    unsafe {
        std::ptr::copy(tile.start.add(row * tile.start_stride), tile.c.add(row * tile.c_stride), PANEL);
        let c = std::slice::from_raw_parts_mut(tile.c.add(row * tile.c_stride), PANEL);
        for depth in 0..tile.k {
            let a = *tile.a.add(row * tile.a_stride + depth * tile.a_step);
            let b = std::slice::from_raw_parts(tile.b.add(depth * tile.b_stride), PANEL);
            for (c, b) in c.iter_mut().zip(b) {
                *c = a.mul_add(*b, *c);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector intrinsics on pointers")]
mod x86 {
    use super::{PANEL, TILE_ROWS, Tile};
    use std::arch::x86_64::{
        __m512, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps, _mm512_fmadd_ps,
        _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
    };

    /// Depths between two jumps.
    const UNROLLED: usize = 4;

    /// Adds the products of one depth.
    #[inline(always)]
    unsafe fn add_depth<const ROWS: usize>(
        a: *const f32,
        row_stride: usize,
        b: *const f32,
        sum: &mut [[__m512; 2]; ROWS],
    ) {
        // SAFETY: the caller's operands hold ROWS and 32 values.
        unsafe {
            let (b0, b1) = (_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16)));
            for (r, sum) in sum.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*a.add(r * row_stride));
                sum[0] = _mm512_fmadd_ps(x, b0, sum[0]);
                sum[1] = _mm512_fmadd_ps(x, b1, sum[1]);
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn tile_avx512<const ROWS: usize, const PACKED: bool>(t: &Tile) {
        // Constants where `A` is packed, so that its addresses are offsets.
        let (row_stride, step) = if PACKED { (1, TILE_ROWS) } else { (t.a_stride, t.a_step) };
        // SAFETY: the caller's operands hold ROWS x 32 and k x 32 values.
        unsafe {
            let mut sum = [[_mm512_setzero_ps(); 2]; ROWS];
            for (r, sum) in sum.iter_mut().enumerate() {
                let start = t.start.add(r * t.start_stride);
                *sum = [_mm512_loadu_ps(start), _mm512_loadu_ps(start.add(16))];
            }
            let (mut a, mut b) = (t.a, t.b);
            for _ in 0..t.k / UNROLLED {
                for _ in 0..UNROLLED {
                    add_depth(a, row_stride, b, &mut sum);
                    (a, b) = (a.add(step), b.add(t.b_stride));
                }
            }
            for _ in 0..t.k % UNROLLED {
                add_depth(a, row_stride, b, &mut sum);
                (a, b) = (a.add(step), b.add(t.b_stride));
            }
            for (r, sum) in sum.iter().enumerate() {
                let c = t.c.add(r * t.c_stride);
                _mm512_storeu_ps(c, sum[0]);
                _mm512_storeu_ps(c.add(16), sum[1]);
            }
        }
    }

    /// Two passes of 16 columns, each with ROWS x 2 registers. Returns ROWS.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn tile_avx2<const ROWS: usize>(t: &Tile) -> usize {
        // SAFETY: the caller's operands hold ROWS x 32 and k x 32 values.
        unsafe {
            for half in [0, PANEL / 2] {
                let mut sum = [[_mm256_setzero_ps(); 2]; ROWS];
                for (r, sum) in sum.iter_mut().enumerate() {
                    let start = t.start.add(r * t.start_stride + half);
                    *sum = [_mm256_loadu_ps(start), _mm256_loadu_ps(start.add(8))];
                }
                let (mut a, mut b) = (t.a, t.b.add(half));
                for _ in 0..t.k {
                    let b0 = _mm256_loadu_ps(b);
                    let b1 = _mm256_loadu_ps(b.add(8));
                    for (r, sum) in sum.iter_mut().enumerate() {
                        let x = _mm256_set1_ps(*a.add(r * t.a_stride));
                        sum[0] = _mm256_fmadd_ps(x, b0, sum[0]);
                        sum[1] = _mm256_fmadd_ps(x, b1, sum[1]);
                    }
                    a = a.add(t.a_step);
                    b = b.add(t.b_stride);
                }
                for (r, sum) in sum.iter().enumerate() {
                    let c = t.c.add(r * t.c_stride + half);
                    _mm256_storeu_ps(c, sum[0]);
                    _mm256_storeu_ps(c.add(8), sum[1]);
                }
            }
            ROWS
        }
    }
}

/// Copies `rows` x `columns` values between tiles that do not overlap.
#[expect(unsafe_code, reason = "the inner loop works on pointers")]
pub(super) unsafe fn copy_tile(
    from: *const f32,
    from_stride: usize,
    to: *mut f32,
    to_stride: usize,
    rows: usize,
    columns: usize,
) {
    for r in 0..rows {
        // SAFETY: the caller gives tiles of at least `rows` x `columns` that do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(from.add(r * from_stride), to.add(r * to_stride), columns) };
    }
}
