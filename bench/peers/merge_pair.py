"""Writes a base of 1.1 billion random bf16 weights (TinyLlama's shape) and two children of it.

usage: merge_pair.py OUT_DIR [--layers 22]      needs torch, safetensors
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

HIDDEN, WIDE, HEADS, KV_HEADS, VOCABULARY = 2048, 5632, 32, 4, 32000

arguments = argparse.ArgumentParser()
arguments.add_argument("out", type=Path)
arguments.add_argument("--layers", type=int, default=22)
options = arguments.parse_args()

shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
for layer in range(options.layers):
    at = f"model.layers.{layer}."
    shapes[at + "input_layernorm.weight"] = (HIDDEN,)
    shapes[at + "self_attn.q_proj.weight"] = (HIDDEN, HIDDEN)
    shapes[at + "self_attn.k_proj.weight"] = (HIDDEN * KV_HEADS // HEADS, HIDDEN)
    shapes[at + "self_attn.v_proj.weight"] = (HIDDEN * KV_HEADS // HEADS, HIDDEN)
    shapes[at + "self_attn.o_proj.weight"] = (HIDDEN, HIDDEN)
    shapes[at + "post_attention_layernorm.weight"] = (HIDDEN,)
    shapes[at + "mlp.gate_proj.weight"] = (WIDE, HIDDEN)
    shapes[at + "mlp.up_proj.weight"] = (WIDE, HIDDEN)
    shapes[at + "mlp.down_proj.weight"] = (HIDDEN, WIDE)
shapes["model.norm.weight"] = (HIDDEN,)
shapes["lm_head.weight"] = (VOCABULARY, HIDDEN)

config = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": WIDE,
    "num_hidden_layers": options.layers,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}
base = {}
for seed, name in enumerate(["base", "one", "two"]):
    torch.manual_seed(seed)
    tensors = {}
    for tensor, shape in shapes.items():
        if name == "base":
            base[tensor] = (torch.randn(shape) * 0.02 + (1.0 if len(shape) == 1 else 0.0)).to(torch.bfloat16)
            tensors[tensor] = base[tensor]
        else:
            tensors[tensor] = (base[tensor].float() + torch.randn(shape) * 0.002).to(torch.bfloat16)
    folder = options.out / name
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
