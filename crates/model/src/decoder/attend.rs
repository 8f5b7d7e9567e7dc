//! Attention of a forward pass: over the batch's own keys, or through a cache; shown to taps block by block.

use std::sync::Arc;

use candle_core::Tensor;
use lathe_kernels::attention::{self, KeyValues, Pattern, PatternSink};
use lathe_kernels::rotary::Angles;

use super::Pass;
use crate::spec::AttentionSpec;
use crate::tap::Site;
use crate::{Error, ops};

impl Pass<'_> {
    /// Attention of queries and keys, `[tokens, heads · head_dim]`. They have been rotated, or are on the way, by `angles`.
    pub(super) fn attend(
        &mut self,
        layer: usize,
        spec: &AttentionSpec,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        angles: Option<&Arc<Angles>>,
    ) -> Result<Tensor, Error> {
        let shape = attention::Shape {
            heads: spec.heads,
            kv_heads: spec.kv_heads,
            head_dim: spec.head_dim,
            reach: spec.reach,
            window: spec.window,
            scale: spec.scale,
            soft_cap: spec.soft_cap,
        };
        if let Some(cache) = self.cache.as_deref_mut() {
            ops::with_values(k, |k| {
                ops::with_values(v, |v| {
                    cache.append(self.batch, layer, shape.head_dim, k, v);
                    Ok(())
                })
            })?;
        }
        let tap = &*self.tap;
        let wanted = tap.wants(Site::Pattern(layer));
        let sink = |pattern: &Pattern<'_>| tap.pattern(layer, pattern);
        let sink: Option<PatternSink<'_>> = if wanted { Some(&sink) } else { None };
        // Inference: the kernel reads keys and values where they lie, and shows its probabilities to the tap.
        let run = |kv: &[&KeyValues]| {
            ops::with_values(q, |values| {
                let mut out = vec![0.0; values.len()];
                attention::forward(&shape, &self.sequences, values, kv, sink, &mut out);
                ops::tensor(out, q.shape())
            })
        };
        if let Some(cache) = &self.cache {
            let kv: Vec<_> = self.batch.slots().iter().flat_map(|slot| cache.heads(*slot, layer)).collect();
            return Ok(run(&kv)?);
        }
        if wanted {
            debug_assert!(angles.is_none(), "patterns are of rotated keys");
            let kv = ops::with_values(k, |k| {
                ops::with_values(v, |v| Ok(attention::key_values(&shape, &self.sequences, k, v)))
            })?;
            let out = run(&kv.iter().collect::<Vec<_>>())?;
            if !ops::tracked(q) {
                return Ok(out);
            }
        }
        Ok(ops::attention(q, k, v, shape, &self.sequences, angles)?)
    }
}
