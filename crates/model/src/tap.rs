//! Looking inside a forward pass while it runs.
//!
//! A [`Tap`] names the sites that it wants and is lent a view of each; nothing is kept unless the tap keeps it. Site
//! names are those of TransformerLens, the field's shared vocabulary.

use candle_core::Tensor;
use lathe_kernels::attention::Pattern;

use crate::{Error, Phase};

/// A place in the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Site {
    /// Residual stream before a layer, `[tokens, hidden_size]`; layer 0 sees the scaled embedding.
    ResidualPre(usize),
    /// Attention probabilities of a layer, in blocks of queries of one head.
    Pattern(usize),
    /// What the feed-forward part reads, and with it the router where there is one: the normalised residual stream,
    /// `[tokens, hidden_size]`.
    MlpIn(usize),
    /// The feed-forward part's inner values after activation and gate, `[tokens, width]`; dense layers only.
    MlpPost(usize),
    /// Logits of the router of a layer, before the softmax, `[tokens, experts]`.
    RouterLogits(usize),
    /// Softmax of the router logits over all experts, `[tokens, experts]`.
    RouterProbabilities(usize),
    /// Weights that the chosen experts get, 0 for the others, `[tokens, experts]`.
    RouterWeights(usize),
    /// Residual stream after a layer, `[tokens, hidden_size]`.
    ResidualPost(usize),
    /// Last hidden state after the final norm, `[tokens, hidden_size]`.
    FinalNorm,
}

impl std::fmt::Display for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ResidualPre(l) => write!(f, "blocks.{l}.hook_resid_pre"),
            Self::Pattern(l) => write!(f, "blocks.{l}.attn.hook_pattern"),
            Self::MlpIn(l) => write!(f, "blocks.{l}.mlp.hook_in"),
            Self::MlpPost(l) => write!(f, "blocks.{l}.mlp.hook_post"),
            Self::RouterLogits(l) => write!(f, "blocks.{l}.mlp.hook_router_logits"),
            Self::RouterProbabilities(l) => write!(f, "blocks.{l}.mlp.hook_router_probabilities"),
            Self::RouterWeights(l) => write!(f, "blocks.{l}.mlp.hook_router_weights"),
            Self::ResidualPost(l) => write!(f, "blocks.{l}.hook_resid_post"),
            Self::FinalNorm => write!(f, "ln_final.hook_normalized"),
        }
    }
}

/// Receives views of the sites that it wants.
pub trait Tap: Sync {
    /// Whether the forward pass should show this site.
    fn wants(&self, site: Site) -> bool;

    /// A tensor at a site.
    ///
    /// # Errors
    /// Ends the forward pass.
    fn tensor(&mut self, site: Site, value: &Tensor) -> Result<(), Error> {
        let (_, _) = (site, value);
        Ok(())
    }

    /// A block of attention probabilities of `layer`. Heads come from different threads; the blocks of one head come
    /// in order, from one thread.
    fn pattern(&self, layer: usize, pattern: &Pattern<'_>) {
        let (_, _) = (layer, pattern);
    }

    /// What the pass does from here to the next call, for a tap that keeps time ([`crate::Profile`]).
    fn begins(&mut self, phase: Phase) {
        let _ = phase;
    }

    /// Nothing that belongs to the pass is done from here on. Whoever runs the pass calls this.
    fn ends(&mut self) {}
}

/// Wants nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoTap;

impl Tap for NoTap {
    fn wants(&self, _: Site) -> bool {
        false
    }
}
