//! Right-hand matrices of less than 32 bits a value: 16-bit floats, and small integers with a scale for every group.
//!
//! Weights keep the precision in which a file stores them and become `f32` where they are multiplied: by the few rows
//! of a decoding step in registers, by many rows through a block of 256 x 32 floats in the first-level cache. A weight
//! is decoded by the file format's own arithmetic, so a product has the bits that it would have with the whole matrix
//! decoded beforehand; it only reads less memory.

use half::{bf16, f16};
use rayon::prelude::*;

use super::{Arithmetic, DEPTH_STEP, PANEL, Packed};
use crate::isa::dispatch;
use crate::{Buffer, Isa};

/// How the values of a matrix are coded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Coding {
    /// IEEE half precision.
    F16,
    /// The upper half of an `f32`.
    Bf16,
    /// Small integers `q`; neighbours in `k` share a scale.
    Groups(Groups),
}

/// Small integers with a scale, and perhaps an offset, for each group of neighbours in `k`:
/// `value = scale · v(q) + offset`, the product rounded before the sum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Groups {
    /// Neighbours that share a scale; divides 256 and is a multiple of 16.
    pub len: usize,
    /// What a code stands for.
    pub code: Code,
    /// How scales and offsets are kept.
    pub scale: Scale,
    /// Whether groups have offsets.
    pub offset: Offset,
}

/// What a code stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Code {
    /// `v(q) = q + lowest`, `q` below 16.
    Nibble(i8),
    /// `v(q) = q + lowest`, `q` below 32.
    NibbleAndBit(i8),
    /// `v(q) = q`, a signed byte.
    Byte,
}

/// How scales are kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// As half precision: the file stores them so, and nothing is lost.
    F16,
    /// As single precision.
    F32,
}

/// Whether groups have offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offset {
    /// `scale · v(q)`
    Without,
    /// `scale · v(q) + offset`
    With,
}

/// Some consecutive columns, to be filled by [`Coded::fill_groups`].
pub struct GroupRows<'a> {
    /// `[columns, k]`
    pub codes: &'a mut [u8],
    /// `[columns, k / len]`
    pub scales: &'a mut [f32],
    /// `[columns, k / len]`; of no use without offsets.
    pub offsets: &'a mut [f32],
}

/// A right-hand matrix `B[k, n]` of coded values, in panels of 32 columns.
#[derive(Clone)]
pub struct Coded {
    k: usize,
    n: usize,
    coding: Coding,
    /// Panel after panel. F16: `[k][32]`. Bf16: pairs of neighbours in `k`, `[k / 2][32][2]`, an odd last one beside a
    /// zero. Groups: records of scales `[32]`, offsets `[32]`, and codes by fours of neighbours in `k`: low nibbles
    /// `[len / 4][16][4]` (columns 0 to 15 in the low, 16 to 31 in the high half of a byte) or bytes `[len / 4][32][4]`,
    /// then fifth bits `[len / 4][2]` of u64, a bit for each of 16 columns and 4 neighbours.
    data: Buffer,
}

/// Columns of one vector of codes.
const HALF: usize = PANEL / 2;

/// Bytes of two rows of bf16.
pub(super) const PAIRS: usize = 2 * PANEL * 2;

impl Coding {
    /// Bytes of a panel of depth `k`.
    fn panel_bytes(&self, k: usize) -> usize {
        match self {
            Self::F16 => k * PANEL * 2,
            Self::Bf16 => k.div_ceil(2) * PAIRS,
            Self::Groups(groups) => k / groups.len * groups.record(),
        }
    }
}

impl Groups {
    fn scale_bytes(&self) -> usize {
        PANEL * if self.scale == Scale::F16 { 2 } else { 4 }
    }

    /// Where the codes of a record begin.
    fn codes_at(&self) -> usize {
        self.scale_bytes() * if self.offset == Offset::With { 2 } else { 1 }
    }

    /// Bytes of the codes of one `k`, fifth bits aside.
    fn code_bytes(&self) -> usize {
        if matches!(self.code, Code::Byte) { PANEL } else { PANEL / 2 }
    }

    /// Where the fifth bits of a record begin.
    fn bits_at(&self) -> usize {
        self.codes_at() + self.len * self.code_bytes()
    }

    /// Bytes of a record: one group of 32 columns.
    pub(super) fn record(&self) -> usize {
        self.bits_at() + if matches!(self.code, Code::NibbleAndBit(_)) { self.len * 4 } else { 0 }
    }
}

impl Coded {
    /// A matrix of `k` rows and `n` columns that all decode to zero scales, to be filled.
    ///
    /// # Panics
    /// When `k` is no whole number of groups.
    #[must_use]
    pub fn zeros(coding: Coding, k: usize, n: usize) -> Self {
        if let Coding::Groups(groups) = &coding {
            assert!(
                groups.len > 0 && groups.len.is_multiple_of(16) && DEPTH_STEP.is_multiple_of(groups.len),
                "{groups:?}"
            );
            assert!(k.is_multiple_of(groups.len), "{k} rows in groups of {}", groups.len);
        }
        let bytes = n.div_ceil(PANEL) * coding.panel_bytes(k);
        Self { k, n, coding, data: Buffer::zeros(bytes / size_of::<f32>()) }
    }

    /// Fills a matrix of 16-bit floats panel by panel in parallel: `fill(first_column, columns, rows)` writes
    /// consecutive columns of `B`, `[columns, k]`, which are rounded to what the coding can hold.
    ///
    /// # Errors
    /// The first error of `fill`.
    pub fn fill_halves<E: Send>(
        &mut self,
        fill: impl Fn(usize, usize, &mut [f32]) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let (k, n, coding) = (self.k, self.n, self.coding);
        let panels = self.data.bytes_mut().par_chunks_mut(coding.panel_bytes(k).max(1)).enumerate();
        panels.try_for_each_init(
            || vec![0.0; PANEL * k],
            |rows, (panel, bytes)| {
                let first = panel * PANEL;
                let columns = PANEL.min(n - first);
                let rows = &mut rows[..columns * k];
                fill(first, columns, rows)?;
                for (column, row) in rows.chunks_exact(k).enumerate() {
                    for (depth, x) in row.iter().enumerate() {
                        let (half, at) = match coding {
                            Coding::Bf16 => {
                                (bf16::from_f32(*x).to_bits(), depth / 2 * 2 * PANEL + column * 2 + depth % 2)
                            }
                            _ => (f16::from_f32(*x).to_bits(), depth * PANEL + column),
                        };
                        bytes[at * 2..][..2].copy_from_slice(&half.to_le_bytes());
                    }
                }
                Ok(())
            },
        )
    }

    /// Fills a matrix of groups panel by panel in parallel: `fill(first_column, columns, rows)` writes codes, scales
    /// and offsets of consecutive columns of `B`.
    ///
    /// # Errors
    /// The first error of `fill`.
    ///
    /// # Panics
    /// When the coding is not one of groups.
    pub fn fill_groups<E: Send>(
        &mut self,
        fill: impl Fn(usize, usize, GroupRows<'_>) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let (k, n) = (self.k, self.n);
        let Coding::Groups(groups) = self.coding else { panic!("{:?} has no groups", self.coding) };
        let of_column = k / groups.len;
        let panel_bytes = self.coding.panel_bytes(k).max(1);
        self.data.bytes_mut().par_chunks_mut(panel_bytes).enumerate().try_for_each_init(
            || (vec![0; PANEL * k], vec![0.0; PANEL * of_column], vec![0.0; PANEL * of_column]),
            |(codes, scales, offsets), (panel, bytes)| {
                let first = panel * PANEL;
                let columns = PANEL.min(n - first);
                let codes = &mut codes[..columns * k];
                let (scales, offsets) = (&mut scales[..columns * of_column], &mut offsets[..columns * of_column]);
                fill(first, columns, GroupRows { codes: &mut *codes, scales: &mut *scales, offsets: &mut *offsets })?;
                for (g, record) in bytes.chunks_exact_mut(groups.record()).enumerate() {
                    for column in 0..columns {
                        let at = column * of_column + g;
                        groups.put_scale(record, column, scales[at], offsets[at]);
                    }
                    put_codes(&groups, record, codes, k, g * groups.len);
                }
                Ok(())
            },
        )
    }

    /// Rows of `B`: the depth of the sum.
    #[must_use]
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns of `B`.
    #[must_use]
    pub fn n(&self) -> usize {
        self.n
    }

    /// Its groups, if it has any.
    #[must_use]
    pub fn groups(&self) -> Option<&Groups> {
        match &self.coding {
            Coding::Groups(groups) => Some(groups),
            Coding::F16 | Coding::Bf16 => None,
        }
    }

    /// Whether it can be multiplied so.
    #[must_use]
    pub fn allows(&self, arithmetic: Arithmetic) -> bool {
        match arithmetic {
            Arithmetic::F32 => true,
            Arithmetic::Bf16 => self.coding == Coding::Bf16,
            Arithmetic::Int8 => self.groups().is_some(),
        }
    }

    /// Bytes in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data.bytes()
    }

    /// Decodes `len` rows of a panel from `depth`, a multiple of 128, on (whole groups) into `out`, `[len][32]`.
    pub(super) fn unpack(&self, isa: Isa, panel: usize, depth: usize, len: usize, out: &mut [f32]) {
        let panel_bytes = self.coding.panel_bytes(self.k);
        let panel = &self.data.as_bytes()[panel * panel_bytes..];
        let out = &mut out[..len * PANEL];
        match &self.coding {
            Coding::F16 => halves_f16(&panel[depth * PANEL * 2..][..len * PANEL * 2], out),
            Coding::Bf16 => halves_bf16(&panel[depth / 2 * PAIRS..][..len.div_ceil(2) * PAIRS], out),
            Coding::Groups(groups) => {
                let record = groups.record();
                let records = &panel[depth / groups.len * record..][..len / groups.len * record];
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => super::coded_avx512::unpack(groups, records, panel_bytes, out),
                    _ => {
                        let records = records.chunks_exact(record);
                        records.zip(out.chunks_exact_mut(groups.len * PANEL)).for_each(|(r, o)| group(groups, r, o));
                    }
                }
            }
        }
    }

    /// The whole matrix as `f32`.
    #[must_use]
    pub fn to_packed(&self) -> Packed {
        let mut packed = Packed::zeros(self.k, self.n);
        packed.panels_mut().par_chunks_mut((PANEL * self.k).max(1)).enumerate().for_each(|(panel, out)| {
            self.unpack(Isa::best(), panel, 0, self.k, out);
        });
        packed
    }

    /// Most rows of `A` for which decoding in registers beats decoding into a block, on this instruction set.
    pub(super) fn few_rows(&self, isa: Isa) -> usize {
        if isa == Isa::Avx512 { 4 } else { 0 }
    }

    /// Rows `depth..depth + len` of a panel: whole groups or pairs, as they are kept.
    pub(super) fn part(&self, panel: usize, depth: usize, len: usize) -> &[u8] {
        let (at, bytes) = (self.coding.panel_bytes(depth), self.coding.panel_bytes(len));
        &self.panel(panel).1[at..][..bytes]
    }

    /// The coding, and the records or rows of a panel.
    pub(super) fn panel(&self, panel: usize) -> (&Coding, &[u8]) {
        let bytes = self.coding.panel_bytes(self.k);
        (&self.coding, &self.data.as_bytes()[panel * bytes..][..bytes])
    }
}

impl Groups {
    /// Writes scale and offset of one column into its record.
    fn put_scale(&self, record: &mut [u8], column: usize, scale: f32, offset: f32) {
        let mut put = |at: usize, x: f32| match self.scale {
            Scale::F16 => record[at + column * 2..][..2].copy_from_slice(&f16::from_f32(x).to_bits().to_le_bytes()),
            Scale::F32 => record[at + column * 4..][..4].copy_from_slice(&x.to_le_bytes()),
        };
        put(0, scale);
        if self.offset == Offset::With {
            put(self.scale_bytes(), offset);
        }
    }

    /// The scales (or what lies at `at`) of a record.
    pub(super) fn scales(&self, record: &[u8], at: usize) -> [f32; PANEL] {
        let bytes = &record[at..][..self.scale_bytes()];
        let mut scales = [0.0; PANEL];
        match self.scale {
            Scale::F16 => {
                for (s, b) in scales.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *s = f16::from_le_bytes(*b).to_f32();
                }
            }
            Scale::F32 => {
                for (s, b) in scales.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *s = f32::from_le_bytes(*b);
                }
            }
        }
        scales
    }

    /// What is added to an unsigned code.
    pub(super) fn lowest(&self) -> i16 {
        match self.code {
            Code::Nibble(lowest) | Code::NibbleAndBit(lowest) => lowest.into(),
            Code::Byte => i8::MIN.into(),
        }
    }

    /// The unsigned codes of four neighbours in `k`, of all columns: `v(q) = code + lowest`.
    #[inline(always)]
    pub(super) fn four(&self, record: &[u8], four: usize) -> [[u8; 4]; PANEL] {
        let (codes, bits) = record[self.codes_at()..].split_at(self.len * self.code_bytes());
        let mut out = [[0; 4]; PANEL];
        match self.code {
            Code::Byte => {
                for (out, codes) in out.iter_mut().zip(codes[four * 4 * PANEL..].as_chunks::<4>().0) {
                    // From -128 on.
                    *out = codes.map(|code| code ^ 0x80);
                }
            }
            Code::Nibble(_) | Code::NibbleAndBit(_) => {
                let (low, high) = out.split_at_mut(HALF);
                let codes = codes[four * 4 * HALF..].as_chunks::<4>().0;
                for ((low, high), codes) in low.iter_mut().zip(high).zip(codes) {
                    (*low, *high) = (codes.map(|code| code & 15), codes.map(|code| code >> 4));
                }
            }
        }
        if matches!(self.code, Code::NibbleAndBit(_)) {
            for (column, out) in out.iter_mut().enumerate() {
                let fifths = bits[four * 16 + column / HALF * 8 + column % HALF / 2] >> (column % 2 * 4);
                for (j, code) in out.iter_mut().enumerate() {
                    *code |= (fifths >> j & 1) << 4;
                }
            }
        }
        out
    }

    /// Where the offsets of a record are, its codes, and its fifth bits.
    pub(super) fn places(&self) -> (usize, usize, usize) {
        (self.scale_bytes(), self.codes_at(), self.bits_at())
    }
}

dispatch! {
    /// Writes the codes of one group into its record. `codes` are up to 32 columns, `[columns, k]`.
    fn put_codes(groups: &Groups, record: &mut [u8], codes: &[u8], k: usize, depth: usize) {
        let of_column = |column: usize, four: usize| {
            let first = column * k + depth + four * 4;
            let codes = codes.get(first..first + 4);
            codes.map_or([0; 4], |codes| [codes[0], codes[1], codes[2], codes[3]])
        };
        let (codes, bits) = record[groups.codes_at()..].split_at_mut(groups.len * groups.code_bytes());
        match groups.code {
            Code::Byte => {
                for (i, fours) in codes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    *fours = of_column(i % PANEL, i / PANEL);
                }
            }
            Code::Nibble(_) | Code::NibbleAndBit(_) => {
                for (i, fours) in codes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    let (column, four) = (i % HALF, i / HALF);
                    let (low, high) = (of_column(column, four), of_column(column + HALF, four));
                    for ((byte, low), high) in fours.iter_mut().zip(low).zip(high) {
                        *byte = (low & 15) | (high & 15) << 4;
                    }
                }
            }
        }
        for (i, bits) in bits.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let mut fifths = 0u64;
            for lane in 0..HALF {
                for (j, code) in of_column(i % 2 * HALF + lane, i / 2).into_iter().enumerate() {
                    fifths |= u64::from(code >> 4 & 1) << (lane * 4 + j);
                }
            }
            *bits = fifths.to_le_bytes();
        }
    }
}

dispatch! {
    /// Decodes one record into `out`, `[len][32]`.
    fn group(groups: &Groups, record: &[u8], out: &mut [f32]) {
        let scales = groups.scales(record, 0);
        let offsets = match groups.offset {
            Offset::With => groups.scales(record, groups.scale_bytes()),
            Offset::Without => [0.0; PANEL],
        };
        for (four, out) in out.as_chunks_mut::<{ 4 * PANEL }>().0.iter_mut().enumerate() {
            let codes = groups.four(record, four);
            let lowest = f32::from(groups.lowest());
            for (j, out) in out.as_chunks_mut::<PANEL>().0.iter_mut().enumerate() {
                for ((x, codes), scale) in out.iter_mut().zip(&codes).zip(&scales) {
                    *x = (f32::from(codes[j]) + lowest) * scale;
                }
                if groups.offset == Offset::With {
                    for (x, offset) in out.iter_mut().zip(&offsets) {
                        *x += offset;
                    }
                }
            }
        }
    }
}

dispatch! {
    fn halves_bf16(bytes: &[u8], out: &mut [f32]) {
        for (pairs, out) in bytes.as_chunks::<PAIRS>().0.iter().zip(out.chunks_mut(2 * PANEL)) {
            for (j, out) in out.chunks_mut(PANEL).enumerate() {
                for (x, pair) in out.iter_mut().zip(pairs.as_chunks::<4>().0) {
                    *x = f32::from_bits(u32::from(u16::from_le_bytes([pair[2 * j], pair[2 * j + 1]])) << 16);
                }
            }
        }
    }
}

fn halves_f16(bytes: &[u8], out: &mut [f32]) {
    use half::slice::HalfFloatSliceExt;
    let mut row = [f16::ZERO; PANEL];
    for (out, bytes) in out.chunks_exact_mut(PANEL).zip(bytes.chunks_exact(PANEL * 2)) {
        for (h, b) in row.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *h = f16::from_le_bytes(*b);
        }
        row.convert_to_f32_slice(out);
    }
}
