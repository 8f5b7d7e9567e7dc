//! Random bits by position.
//!
//! Every number of a difference has 32 bits of its own, a function of (seed, tensor name, model, position): which other
//! numbers are asked for, and by which thread, does not matter. The first three are hashed to the keys of
//! [`lathe_kernels::weights::draw`], once for every 2^32 positions.

use lathe_kernels::weights::Draws;

/// The draws of one model's tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stream(u64);

impl Stream {
    pub(super) fn new(seed: u64, tensor: &str, model: usize) -> Self {
        let named = tensor.bytes().fold(mix(seed), |hash, byte| mix(hash ^ u64::from(byte)));
        // A separator that no name can contain: models of "a" and of "a1" differ.
        Self(mix(mix(named ^ 0x100) ^ model as u64))
    }

    /// The draws from `position` on, up to the next multiple of 2^32.
    pub(super) fn from(self, position: usize) -> Draws {
        let of_part = mix(self.0 ^ (position as u64 >> 32));
        let more = mix(of_part);
        Draws { keys: [of_part as u32, (of_part >> 32) as u32, more as u32], first: position as u32 }
    }
}

/// One step of SplitMix64: G. Steele, D. Lea, C. Flood, Fast splittable pseudorandom number generators, 2014.
fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
