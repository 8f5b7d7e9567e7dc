//! The names that llama.cpp gives to tensors.

use crate::layout::{Layout, Name, name, part};

/// Names of every architecture. What comes first is written; all are read.
pub(crate) const NAMES: &[Name] = &[
    name("embedding.weight", EMBEDDING),
    name("positions.weight", "position_embd.weight"),
    name("layers.{l}.before_attention.weight", "blk.{l}.attn_norm.weight"),
    name("layers.{l}.before_attention.bias", "blk.{l}.attn_norm.bias"),
    name("layers.{l}.attention.query.weight", "blk.{l}.attn_q.weight"),
    name("layers.{l}.attention.query.bias", "blk.{l}.attn_q.bias"),
    name("layers.{l}.attention.key.weight", "blk.{l}.attn_k.weight"),
    name("layers.{l}.attention.key.bias", "blk.{l}.attn_k.bias"),
    name("layers.{l}.attention.value.weight", "blk.{l}.attn_v.weight"),
    name("layers.{l}.attention.value.bias", "blk.{l}.attn_v.bias"),
    part("layers.{l}.attention.query.weight", QKV, Layout::Qkv(0)),
    part("layers.{l}.attention.query.bias", QKV_BIAS, Layout::Qkv(0)),
    part("layers.{l}.attention.key.weight", QKV, Layout::Qkv(1)),
    part("layers.{l}.attention.key.bias", QKV_BIAS, Layout::Qkv(1)),
    part("layers.{l}.attention.value.weight", QKV, Layout::Qkv(2)),
    part("layers.{l}.attention.value.bias", QKV_BIAS, Layout::Qkv(2)),
    name("layers.{l}.attention.output.weight", "blk.{l}.attn_output.weight"),
    name("layers.{l}.attention.output.bias", "blk.{l}.attn_output.bias"),
    name("layers.{l}.attention.query_norm.weight", "blk.{l}.attn_q_norm.weight"),
    name("layers.{l}.attention.query_norm.bias", "blk.{l}.attn_q_norm.bias"),
    name("layers.{l}.attention.key_norm.weight", "blk.{l}.attn_k_norm.weight"),
    name("layers.{l}.attention.key_norm.bias", "blk.{l}.attn_k_norm.bias"),
    part("layers.{l}.attention.query_norm.{h}.weight", "blk.{l}.attn_q_norm.weight", Layout::StackedHead(0)),
    part("layers.{l}.attention.key_norm.{h}.weight", "blk.{l}.attn_k_norm.weight", Layout::StackedHead(1)),
    name("layers.{l}.after_attention.weight", "blk.{l}.post_attention_norm.weight"),
    name("layers.{l}.before_feed_forward.weight", "blk.{l}.ffn_norm.weight"),
    name("layers.{l}.before_feed_forward.bias", "blk.{l}.ffn_norm.bias"),
    name("layers.{l}.after_feed_forward.weight", "blk.{l}.post_ffw_norm.weight"),
    name("layers.{l}.feed_forward.gate.weight", "blk.{l}.ffn_gate.weight"),
    name("layers.{l}.feed_forward.gate.bias", "blk.{l}.ffn_gate.bias"),
    name("layers.{l}.feed_forward.up.weight", "blk.{l}.ffn_up.weight"),
    name("layers.{l}.feed_forward.up.bias", "blk.{l}.ffn_up.bias"),
    name("layers.{l}.feed_forward.down.weight", "blk.{l}.ffn_down.weight"),
    name("layers.{l}.feed_forward.down.bias", "blk.{l}.ffn_down.bias"),
    name("layers.{l}.experts.router.weight", "blk.{l}.ffn_gate_inp.weight"),
    part("layers.{l}.experts.{e}.gate.weight", "blk.{l}.ffn_gate_exps.weight", Layout::Stacked),
    part("layers.{l}.experts.{e}.up.weight", "blk.{l}.ffn_up_exps.weight", Layout::Stacked),
    part("layers.{l}.experts.{e}.down.weight", "blk.{l}.ffn_down_exps.weight", Layout::Stacked),
    part("layers.{l}.experts.{e}.gate.weight", "blk.{l}.ffn_gate_up_exps.weight", Layout::StackedGateUp(0)),
    part("layers.{l}.experts.{e}.up.weight", "blk.{l}.ffn_gate_up_exps.weight", Layout::StackedGateUp(1)),
    // The first files with experts had a tensor for each.
    name("layers.{l}.experts.{e}.gate.weight", "blk.{l}.ffn_gate.{e}.weight"),
    name("layers.{l}.experts.{e}.up.weight", "blk.{l}.ffn_up.{e}.weight"),
    name("layers.{l}.experts.{e}.down.weight", "blk.{l}.ffn_down.{e}.weight"),
    name("layers.{l}.experts.shared.gate.weight", "blk.{l}.ffn_gate_shexp.weight"),
    name("layers.{l}.experts.shared.up.weight", "blk.{l}.ffn_up_shexp.weight"),
    name("layers.{l}.experts.shared.down.weight", "blk.{l}.ffn_down_shexp.weight"),
    part("layers.{l}.experts.shared_gate.weight", "blk.{l}.ffn_gate_inp_shexp.weight", Layout::Vector),
    name("layers.{l}.experts.shared_gate.weight", "blk.{l}.ffn_gate_inp_shexp.weight"),
    name("final_norm.weight", "output_norm.weight"),
    name("final_norm.bias", "output_norm.bias"),
    name("head.weight", HEAD),
    name("head.bias", "output.bias"),
];

/// The embedding.
pub(crate) const EMBEDDING: &str = "token_embd.weight";

/// The head; missing where it shares the embedding.
pub(crate) const HEAD: &str = "output.weight";

const QKV: &str = "blk.{l}.attn_qkv.weight";
const QKV_BIAS: &str = "blk.{l}.attn_qkv.bias";

/// Architectures whose query, key and value llama.cpp wants as one tensor.
pub(crate) const FUSED_QKV: &[Name] = &[
    part("layers.{l}.attention.query.weight", QKV, Layout::Qkv(0)),
    part("layers.{l}.attention.query.bias", QKV_BIAS, Layout::Qkv(0)),
    part("layers.{l}.attention.key.weight", QKV, Layout::Qkv(1)),
    part("layers.{l}.attention.key.bias", QKV_BIAS, Layout::Qkv(1)),
    part("layers.{l}.attention.value.weight", QKV, Layout::Qkv(2)),
    part("layers.{l}.attention.value.bias", QKV_BIAS, Layout::Qkv(2)),
];

/// Phi-3 has gate and up projection in one tensor with the name of the second.
pub(crate) const FUSED_GATE_UP: &[Name] = &[
    part("layers.{l}.feed_forward.gate.weight", "blk.{l}.ffn_up.weight", Layout::GateUp(0)),
    part("layers.{l}.feed_forward.up.weight", "blk.{l}.ffn_up.weight", Layout::GateUp(1)),
];
