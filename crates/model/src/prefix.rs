//! Reuse of cached prefixes across requests.
//!
//! A request whose tokens begin like those of an earlier one need not run them again. Results are the same bits as
//! without reuse, because a token's hidden state does not depend on whether earlier tokens came through the cache; except
//! where rotary frequencies depend on the length of the text (`dynamic` scaling, LongRoPE): cached keys keep theirs.

use crate::cache::KvCache;
use crate::spec::DecoderSpec;

/// Caches of several requests, each with the tokens that it holds.
pub struct PrefixCache {
    cache: KvCache,
    /// Tokens of each slot.
    texts: Vec<Vec<u32>>,
    /// When each slot was used last, counted in requests.
    used: Vec<u64>,
    requests: u64,
}

/// Where a request continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Continuation {
    /// Slot of the cache.
    pub slot: usize,
    /// Tokens that the slot holds already: the request runs the rest, from this position on.
    pub reused: usize,
}

impl PrefixCache {
    /// Room for `slots` requests.
    ///
    /// # Panics
    /// Without slots.
    #[must_use]
    pub fn new(spec: &DecoderSpec, slots: usize) -> Self {
        assert!(slots > 0, "a cache without slots");
        Self { cache: KvCache::new(spec, slots), texts: vec![Vec::new(); slots], used: vec![0; slots], requests: 0 }
    }

    /// Finds the slot whose tokens begin like `ids` for the longest stretch and prepares it. The last token is never
    /// reused: its hidden state is what the caller wants. An earlier request that goes on differently is kept, in a slot
    /// of its own, as long as there is one.
    pub fn begin(&mut self, ids: &[u32], spec: &DecoderSpec) -> Continuation {
        self.requests += 1;
        let common = |text: &[u32]| {
            let most = ids.len().saturating_sub(1);
            text.iter().zip(ids).take(most).take_while(|(a, b)| a == b).count()
        };
        let oldest = |slots: &mut dyn Iterator<Item = usize>| slots.min_by_key(|slot| (self.used[*slot], *slot));
        let (best, mut reused) = (0..self.texts.len())
            .map(|slot| (slot, common(&self.texts[slot])))
            .max_by_key(|(slot, common)| (*common, std::cmp::Reverse(*slot)))
            .unwrap_or((0, 0));
        let slot = match reused {
            0 => oldest(&mut (0..self.texts.len())).unwrap_or(best),
            _ if reused == self.texts[best].len() => best,
            _ => match oldest(&mut (0..self.texts.len()).filter(|slot| *slot != best)) {
                Some(other) => {
                    self.cache.copy(best, other);
                    self.texts[other] = self.texts[best].clone();
                    other
                }
                None => best,
            },
        };
        // A window may have dropped what a shorter sequence would see.
        if reused == 0 || self.cache.rollback(slot, reused, spec).is_err() {
            self.cache.clear(slot);
            reused = 0;
        }
        self.texts[slot].truncate(reused);
        self.used[slot] = self.requests;
        Continuation { slot, reused }
    }

    /// The cache to run tokens with. Every token that is run in a slot must be told to [`PrefixCache::ran`].
    pub fn cache(&mut self) -> &mut KvCache {
        &mut self.cache
    }

    /// Notes tokens that were run in a slot.
    pub fn ran(&mut self, slot: usize, ids: &[u32]) {
        self.texts[slot].extend_from_slice(ids);
    }
}
