//! A growable `f32` buffer aligned to a cache line.

/// One cache line of floats.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

const LINE: usize = 16;

/// `f32` values that start on a 64-byte boundary, so that no 512-bit load crosses a cache line.
#[derive(Clone, Default)]
pub struct Buffer {
    lines: Vec<Line>,
    len: usize,
}

impl Buffer {
    /// `len` zeros.
    #[must_use]
    pub fn zeros(len: usize) -> Self {
        Self { lines: vec![Line([0.0; LINE]); len.div_ceil(LINE)], len }
    }

    /// Sets the length; new values are zero.
    pub fn resize(&mut self, len: usize) {
        let old = self.len;
        self.lines.resize(len.div_ceil(LINE), Line([0.0; LINE]));
        self.len = len;
        if len < old {
            // A later growth must find zeros in the rest of the last line.
            let end = self.lines.len() * LINE;
            self.len = end;
            self[len..].fill(0.0);
            self.len = len;
        }
    }

    /// Removes the first `count` values, which must be a multiple of 16, and gives memory back once most of it is free.
    pub fn drop_front(&mut self, count: usize) {
        assert!(count.is_multiple_of(LINE) && count <= self.len, "drop_front({count}) of {}", self.len);
        self.lines.drain(..count / LINE);
        self.len -= count;
        if self.lines.capacity() > 4 * self.lines.len() {
            self.lines.shrink_to(2 * self.lines.len());
        }
    }

    /// Bytes that the buffer holds in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lines.capacity() * size_of::<Line>()
    }
}

impl Buffer {
    /// The values as bytes.
    #[must_use]
    #[expect(unsafe_code, reason = "floats seen as bytes")]
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: every byte of a float may be read, and the length is that of the floats.
        unsafe { std::slice::from_raw_parts(self.as_ptr().cast(), size_of_val(&self[..])) }
    }

    /// The values as bytes to be written: every pattern of bytes is a float.
    #[expect(unsafe_code, reason = "floats seen as bytes")]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let len = size_of_val(&self[..]);
        // SAFETY: as in `as_bytes`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr().cast(), len) }
    }
}

impl std::ops::Deref for Buffer {
    type Target = [f32];
    #[expect(unsafe_code, reason = "a slice of lines seen as a slice of floats")]
    fn deref(&self) -> &[f32] {
        // SAFETY: `Line` is `repr(C)` around an array of floats without padding, and `len` never exceeds the lines.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl std::ops::DerefMut for Buffer {
    #[expect(unsafe_code, reason = "a slice of lines seen as a slice of floats")]
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_after_a_cut_finds_zeros() {
        let mut buffer = Buffer::zeros(20);
        buffer.fill(7.0);
        buffer.resize(5);
        buffer.resize(40);
        assert_eq!(&buffer[..5], [7.0; 5]);
        assert_eq!(&buffer[5..], [0.0; 35]);
        assert!(buffer.as_ptr().addr().is_multiple_of(64));
    }

    #[test]
    fn the_front_can_be_dropped() {
        let mut buffer = Buffer::zeros(48);
        for (i, x) in buffer.iter_mut().enumerate() {
            *x = i as f32;
        }
        buffer.drop_front(32);
        assert_eq!(buffer.len(), 16);
        assert_eq!(buffer[0], 32.0);
        let mut buffer = Buffer::zeros(16_384);
        buffer.drop_front(16_384 - 64);
        assert!(buffer.bytes() <= 2 * 64 * size_of::<f32>(), "{}", buffer.bytes());
    }
}
