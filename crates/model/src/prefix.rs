//! Reuse of cached prefixes across requests.
//!
//! A request whose tokens begin like those of an earlier one need not run them again. Results are the same bits as
//! without reuse, because a token's hidden state does not depend on whether earlier tokens came through the cache; except
//! where rotary frequencies depend on the length of the text (`dynamic` scaling, LongRoPE): cached keys keep theirs.

use crate::cache::KvCache;
use crate::spec::DecoderSpec;

/// Caches of several requests.
pub struct PrefixCache {
    cache: KvCache,
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
        Self { cache: KvCache::new(spec, slots), used: vec![0; slots], requests: 0 }
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
        let (best, mut reused) = (0..self.cache.slots())
            .map(|slot| (slot, common(self.cache.ids(slot))))
            .max_by_key(|(slot, common)| (*common, std::cmp::Reverse(*slot)))
            .unwrap_or((0, 0));
        let slot = match reused {
            0 => oldest(&mut (0..self.cache.slots())).unwrap_or(best),
            _ if reused == self.cache.len(best) => best,
            _ => match oldest(&mut (0..self.cache.slots()).filter(|slot| *slot != best)) {
                Some(other) => {
                    self.cache.copy(best, other);
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
        self.used[slot] = self.requests;
        Continuation { slot, reused }
    }

    /// The cache to run tokens with.
    pub fn cache(&mut self) -> &mut KvCache {
        &mut self.cache
    }
}
