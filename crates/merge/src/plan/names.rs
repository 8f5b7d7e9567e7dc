//! What the name of a tensor says: which layer it belongs to, and whether it is an embedding or a head.

/// Path components after which the number of a layer comes, in the names of all known families.
const BEFORE_LAYER: &[&str] = &["layers", "h", "blocks", "block", "layer", "blk"];

/// Ends of the names of token embeddings.
const EMBEDDINGS: &[&str] = &[
    "embed_tokens.weight",
    "wte.weight",
    "embed_in.weight",
    "tok_embeddings.weight",
    "word_embeddings.weight",
    "token_embd.weight",
    "embeddings.weight",
];

/// Ends of the names of heads.
const HEADS: &[&str] = &["lm_head.weight", "embed_out.weight"];

/// Names of heads that other tensors' names end with.
const WHOLE_HEADS: &[&str] = &["output.weight"];

/// Vectors with an entry for each token, beside a head.
const HEAD_BIASES: &[&str] = &["lm_head.bias", "embed_out.bias", "final_logits_bias"];

/// A name that belongs to a layer: `before`, the number, `after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LayerName<'a> {
    /// With its last point.
    pub(super) before: &'a str,
    /// From 0.
    pub(super) layer: usize,
    /// With its first point; may be empty.
    pub(super) after: &'a str,
}

impl LayerName<'_> {
    /// The name of the same tensor in another layer.
    pub(super) fn in_layer(&self, layer: usize) -> String {
        format!("{}{layer}{}", self.before, self.after)
    }
}

/// The layer of a name: the first number that follows a word such as `layers`. Numbers of experts come later.
pub(super) fn layer(name: &str) -> Option<LayerName<'_>> {
    let mut start = 0;
    let mut after_word = false;
    for component in name.split('.') {
        let end = start + component.len();
        if after_word && component.bytes().all(|byte| byte.is_ascii_digit()) {
            // `007` would come back as `7`.
            let layer = component.parse().ok().filter(|layer: &usize| layer.to_string() == component);
            if let Some(layer) = layer {
                return Some(LayerName { before: &name[..start], layer, after: &name[end..] });
            }
        }
        after_word = BEFORE_LAYER.contains(&component);
        start = end + 1;
    }
    None
}

/// What a tensor outside the layers is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outside {
    /// The token embedding.
    Embedding,
    /// The head's matrix.
    Head,
    /// A vector beside the head with an entry for each token.
    HeadBias,
    /// Something else that comes before the layers, such as position embeddings.
    Before,
    /// Something else: norms after the layers.
    After,
}

/// What a tensor outside the layers is, by its name.
pub(super) fn outside(name: &str) -> Outside {
    if ends_with_one(name, HEADS) || WHOLE_HEADS.contains(&name) {
        Outside::Head
    } else if ends_with_one(name, HEAD_BIASES) {
        Outside::HeadBias
    } else if ends_with_one(name, EMBEDDINGS) {
        Outside::Embedding
    } else if name.contains("embed") || name.split('.').any(|component| component == "wpe") {
        Outside::Before
    } else {
        Outside::After
    }
}

/// Whether a tensor follows from the configuration of its model, so that a file may leave it out: rotary frequencies,
/// causal masks, position numbers.
pub(super) fn follows_from_config(name: &str, shape: &[usize]) -> bool {
    let mask = (name.ends_with(".attn.bias") || name.ends_with(".attention.bias")) && shape.len() == 4;
    mask || ends_with_one(name, &["inv_freq", "masked_bias", "position_ids", "rope_freqs.weight"])
}

fn ends_with_one(name: &str, ends: &[&str]) -> bool {
    ends.iter().any(|end| name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layer_is_the_first_number_after_a_known_word() {
        for (name, expected) in [
            ("model.layers.12.self_attn.q_proj.weight", Some(("model.layers.", 12, ".self_attn.q_proj.weight"))),
            ("language_model.model.layers.3.mlp.experts.7.w1.weight", {
                Some(("language_model.model.layers.", 3, ".mlp.experts.7.w1.weight"))
            }),
            ("transformer.h.0.attn.bias", Some(("transformer.h.", 0, ".attn.bias"))),
            ("encoder.block.2.layer.1.x", Some(("encoder.block.", 2, ".layer.1.x"))),
            ("blk.5.ffn_up.weight", Some(("blk.", 5, ".ffn_up.weight"))),
            ("model.norm.weight", None),
            ("experts.7.weight", None),
            ("layers.007.weight", None),
            ("layers.99999999999999999999999.weight", None),
            ("", None),
        ] {
            let found = layer(name).map(|name| (name.before, name.layer, name.after));
            assert_eq!(found, expected, "{name}");
        }
        assert_eq!(layer("h.4.x").expect("a layer").in_layer(11), "h.11.x");
    }

    #[test]
    fn embeddings_and_heads_are_known_by_the_ends_of_their_names() {
        for (name, expected) in [
            ("model.embed_tokens.weight", Outside::Embedding),
            ("language_model.model.embed_tokens.weight", Outside::Embedding),
            ("transformer.wte.weight", Outside::Embedding),
            ("gpt_neox.embed_in.weight", Outside::Embedding),
            ("embed_out.weight", Outside::Head),
            ("lm_head.weight", Outside::Head),
            ("output.weight", Outside::Head),
            ("pooler.output.weight", Outside::After),
            ("lm_head.bias", Outside::HeadBias),
            ("transformer.wpe.weight", Outside::Before),
            ("model.norm.weight", Outside::After),
            ("transformer.ln_f.bias", Outside::After),
        ] {
            assert_eq!(outside(name), expected, "{name}");
        }
    }
}
