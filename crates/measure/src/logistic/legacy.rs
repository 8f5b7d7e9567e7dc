//! NumPy's legacy generator and shuffle, to draw the training samples that the field's protocol draws.

/// The Mersenne Twister MT19937 (Matsumoto and Nishimura 1998), seeded with one number as numpy's `RandomState` is.
#[derive(Clone, Debug)]
pub struct LegacyMt19937 {
    state: [u32; WORDS],
    /// Words of the state that have been given out.
    taken: usize,
}

/// Words of the state.
const WORDS: usize = 624;
/// Distance of the word that is mixed in.
const MIXED: usize = 397;

impl LegacyMt19937 {
    /// The generator of `numpy.random.RandomState(seed)`.
    #[must_use]
    pub fn new(seed: u32) -> Self {
        let mut state = [seed; WORDS];
        for i in 1..WORDS {
            let before = state[i - 1];
            #[expect(clippy::cast_possible_truncation, reason = "below 624")]
            let index = i as u32;
            state[i] = 1_812_433_253u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(index);
        }
        Self { state, taken: WORDS }
    }

    fn next_word(&mut self) -> u32 {
        if self.taken == WORDS {
            self.renew();
        }
        let mut word = self.state[self.taken];
        self.taken += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    fn renew(&mut self) {
        for i in 0..WORDS {
            let joined = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % WORDS] & 0x7fff_ffff);
            let odd = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + MIXED) % WORDS] ^ (joined >> 1) ^ odd;
        }
        self.taken = 0;
    }

    /// A number from 0 to `most`: words under the smallest mask that holds it, until one is small enough.
    fn up_to(&mut self, most: usize) -> usize {
        let most = most as u64;
        let mask = u64::MAX.checked_shr(most.leading_zeros()).unwrap_or(0);
        loop {
            let mut word = u64::from(self.next_word());
            if most > u64::from(u32::MAX) {
                word = word << 32 | u64::from(self.next_word());
            }
            if word & mask <= most {
                return (word & mask) as usize;
            }
        }
    }
}

/// What `numpy.random.RandomState.shuffle` does to a list: exchanges the last item with one at or before it, then the
/// last but one, and so on.
///
/// The protocol of classification (mteb) keeps one list of row numbers and shuffles it again for every experiment, each time with
/// a new generator of the same seed.
pub fn legacy_shuffle(list: &mut [usize], generator: &mut LegacyMt19937) {
    for last in (1..list.len()).rev() {
        list.swap(last, generator.up_to(last));
    }
}
