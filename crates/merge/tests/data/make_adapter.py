"""Makes adapter/, adapter_base.safetensors and adapter_merged.safetensors: a LoRA adapter, its base, and both as one.

The merged weights follow PEFT's merge (`get_delta_weight` of Linear and Embedding) in numpy, in f64, rounded once.
Needs numpy and safetensors.
"""

import json
import pathlib

import numpy as np
from safetensors.numpy import save_file

here = pathlib.Path(__file__).parent
numbers = np.random.default_rng(7)


def draw(*shape):
    return numbers.normal(size=shape).astype(np.float32)


base = {
    "model.embed_tokens.weight": draw(11, 6),
    "model.layers.0.self_attn.q_proj.weight": draw(8, 6),
    "model.layers.0.self_attn.q_proj.bias": draw(8),
    "model.layers.1.self_attn.q_proj.weight": draw(8, 6),
    "model.layers.1.mlp.down_proj.weight": draw(6, 9),
    "model.norm.weight": draw(6),
    "lm_head.weight": draw(11, 6),
}
config = {
    "peft_type": "LORA",
    "base_model_name_or_path": "tiny",
    "r": 3,
    "lora_alpha": 5,
    "use_rslora": True,
    "rank_pattern": {"layers.1.self_attn.q_proj": 2},
    "alpha_pattern": {r"layers\.\d+\.mlp\..*": 7, "q_proj": 4.5},
    "fan_in_fan_out": False,
    "bias": "lora_only",
    "modules_to_save": ["lm_head"],
    "target_modules": ["q_proj", "down_proj", "embed_tokens"],
    "task_type": "CAUSAL_LM",
    "lora_bias": False,
    "eva_config": None,
    "init_lora_weights": True,
}
# module: rank, alpha
products = {
    "model.layers.0.self_attn.q_proj": (3, 4.5),
    "model.layers.1.self_attn.q_proj": (2, 4.5),
    "model.layers.1.mlp.down_proj": (3, 7),
}
adapter, merged = {}, {name: value.astype(np.float64) for name, value in base.items()}
for module, (rank, alpha) in products.items():
    outputs, inputs = base[f"{module}.weight"].shape
    a, b = draw(rank, inputs), draw(outputs, rank)
    adapter[f"base_model.model.{module}.lora_A.weight"] = a
    adapter[f"base_model.model.{module}.lora_B.weight"] = b
    merged[f"{module}.weight"] += alpha / np.sqrt(rank) * (b.astype(np.float64) @ a.astype(np.float64))
a, b = draw(3, 11), draw(6, 3)
adapter["base_model.model.model.embed_tokens.lora_embedding_A"] = a
adapter["base_model.model.model.embed_tokens.lora_embedding_B"] = b
merged["model.embed_tokens.weight"] += 5 / np.sqrt(3) * (b.astype(np.float64) @ a.astype(np.float64)).T
for name in ["lm_head.weight", "model.layers.0.self_attn.q_proj.bias"]:
    adapter[f"base_model.model.{name}"] = draw(*base[name].shape)
    merged[name] = adapter[f"base_model.model.{name}"]

(here / "adapter").mkdir(exist_ok=True)
(here / "adapter/adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")
save_file(adapter, here / "adapter/adapter_model.safetensors")
save_file(base, here / "adapter_base.safetensors")
save_file({name: value.astype(np.float32) for name, value in merged.items()}, here / "adapter_merged.safetensors")
