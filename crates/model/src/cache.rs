//! Keys and values of sequences that are being decoded.

use lathe_kernels::attention::KeyValues;
use rayon::prelude::*;

use crate::spec::DecoderSpec;
use crate::{Batch, Error};

/// Cached keys and values: one slot per sequence, each with its layers and heads. Layers with a window keep two
/// windows at most. Memory:
/// [`KvCache::bytes_per_position`], about `2 · 4 bytes · Σ layers (kv_heads · head_dim)`.
#[derive(Clone)]
pub struct KvCache {
    slots: Vec<Slot>,
}

#[derive(Clone)]
struct Slot {
    /// The token of every position: to run it again when its rotary frequencies change, and to know what a prefix is.
    ids: Vec<u32>,
    /// Length of the text that the keys were rotated for; more than there are tokens after a rollback.
    rotated_for: usize,
    /// `[layer][kv head]`
    layers: Vec<Vec<KeyValues>>,
}

impl KvCache {
    /// An empty cache of `slots` sequences.
    #[must_use]
    pub fn new(spec: &DecoderSpec, slots: usize) -> Self {
        let layers: Vec<Vec<KeyValues>> = spec
            .layers
            .iter()
            .map(|layer| vec![KeyValues::new(layer.attention.head_dim); layer.attention.kv_heads])
            .collect();
        Self { slots: vec![Slot { ids: Vec::new(), rotated_for: 0, layers }; slots] }
    }

    /// Number of sequences.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Positions of a sequence.
    #[must_use]
    pub fn len(&self, slot: usize) -> usize {
        self.slots[slot].ids.len()
    }

    /// Whether a sequence has no positions.
    #[must_use]
    pub fn is_empty(&self, slot: usize) -> bool {
        self.len(slot) == 0
    }

    /// Makes `slot` a copy of `from`: a shared prefix.
    pub fn copy(&mut self, from: usize, slot: usize) {
        self.slots[slot] = self.slots[from].clone();
    }

    /// Makes `slot` a copy of a sequence of another cache of the same model.
    pub fn copy_from(&mut self, slot: usize, other: &Self, from: usize) {
        self.slots[slot] = other.slots[from].clone();
    }

    /// Forgets a sequence.
    pub fn clear(&mut self, slot: usize) {
        let slot = &mut self.slots[slot];
        slot.layers.iter_mut().flatten().for_each(KeyValues::clear);
        slot.ids.clear();
        slot.rotated_for = 0;
    }

    /// Forgets the positions of a sequence from `len` on.
    ///
    /// # Errors
    /// A window has dropped positions that the shorter sequence would see.
    pub fn rollback(&mut self, slot: usize, len: usize, spec: &DecoderSpec) -> Result<(), Error> {
        let slot = &mut self.slots[slot];
        if len >= slot.ids.len() {
            return Ok(());
        }
        for (layer, heads) in spec.layers.iter().zip(&slot.layers) {
            let needed = layer.attention.window.map_or(0, |window| (len + 1).saturating_sub(window));
            if let Some(kv) = heads.first().filter(|kv| kv.first() > needed) {
                return Err(Error::RolledPastWindow { position: len, stored_from: kv.first() });
            }
        }
        slot.layers.iter_mut().flatten().for_each(|kv| kv.truncate(len));
        slot.ids.truncate(len);
        Ok(())
    }

    /// Bytes that a position of a sequence takes in all layers.
    #[must_use]
    pub fn bytes_per_position(spec: &DecoderSpec) -> usize {
        let layers = spec.layers.iter().map(|layer| &layer.attention);
        layers.map(|a| a.kv_heads * KeyValues::bytes_per_position(a.head_dim)).sum()
    }

    /// Bytes in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.slots.iter().flat_map(|slot| slot.layers.iter().flatten()).map(KeyValues::bytes).sum()
    }

    /// Appends the keys and values of one layer, `[tokens, kv_heads · head_dim]`, to the slots of the batch.
    pub(crate) fn append(&mut self, batch: &Batch, layer: usize, head_dim: usize, keys: &[f32], values: &[f32]) {
        let mut of_slot = vec![None; self.slots.len()];
        for (rows, slot) in batch.sequences().iter().zip(batch.slots()) {
            of_slot[*slot] = Some(*rows);
        }
        let slots =
            self.slots.iter_mut().zip(of_slot).filter_map(|(slot, rows)| Some((&mut slot.layers[layer], rows?)));
        let mut heads: Vec<_> =
            slots.flat_map(|(heads, rows)| heads.iter_mut().enumerate().map(move |head| (rows, head))).collect();
        let width = heads.iter().map(|(_, (head, _))| head + 1).max().unwrap_or(0) * head_dim;
        // One token is written sooner than another thread is woken.
        heads.par_iter_mut().with_min_len(16_usize.div_ceil(batch.ids().len())).for_each(|(rows, (head, kv))| {
            let first = rows.start * width + *head * head_dim;
            kv.append(&keys[first..], &values[first..], width, rows.len);
        });
    }

    pub(crate) fn heads(&self, slot: usize, layer: usize) -> &[KeyValues] {
        &self.slots[slot].layers[layer]
    }

    /// The tokens of a sequence.
    pub(crate) fn ids(&self, slot: usize) -> &[u32] {
        &self.slots[slot].ids
    }

    /// Length of the text that the keys of a sequence were rotated for.
    pub(crate) fn rotated_for(&self, slot: usize) -> usize {
        self.slots[slot].rotated_for
    }

    /// Notes that the positions of `ids` are stored, and lets layers with a window forget what lies two windows back:
    /// the next token sees one of them, and the other can be rolled back.
    pub(crate) fn advance(&mut self, slot: usize, ids: &[u32], spec: &DecoderSpec) {
        let slot = &mut self.slots[slot];
        slot.ids.extend_from_slice(ids);
        let len = slot.ids.len();
        slot.rotated_for = len;
        for (layer, heads) in spec.layers.iter().zip(&mut slot.layers) {
            if let Some(window) = layer.attention.window {
                heads.iter_mut().for_each(|kv| kv.drop_before((len + 1).saturating_sub(2 * window)));
            }
        }
    }
}
