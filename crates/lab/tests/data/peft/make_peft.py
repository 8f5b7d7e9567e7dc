"""Adapters that PEFT wrote for tiny checkpoints, with what the adapted models say.

usage: make_peft.py         needs torch, transformers, peft and safetensors; writes folders beside itself

Each folder is an adapter as `save_pretrained` leaves it (its base by a path from the folder), and `expected.safetensors`:
`ids`, `logits` of the adapted model in evaluation, `loss` (mean over all predicted tokens) and its gradient with respect to
every factor.
"""

import json
import pathlib

import peft
import torch
import transformers
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent
FIXTURES = "../../../../../tests/fixtures/parity"
CASES = [
    ("llama", ["q_proj", "v_proj"], dict(r=4, lora_alpha=6)),
    ("qwen2", "all-linear", dict(r=3, lora_alpha=8, use_rslora=True)),
    ("phi3", ["qkv_proj", "gate_up_proj"], dict(r=2, lora_alpha=4)),
    ("gpt2", ["c_attn", "c_proj"], dict(r=4, lora_alpha=4, fan_in_fan_out=True)),
    ("gpt_neox", ["query_key_value", "dense_4h_to_h"], dict(r=4, lora_alpha=2)),
]

for name, targets, settings in CASES:
    torch.manual_seed(len(name))
    folder = HERE / name
    base = transformers.AutoModelForCausalLM.from_pretrained(
        (HERE / FIXTURES / name).resolve(), dtype=torch.float32, attn_implementation="eager"
    )
    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=targets, lora_dropout=0.1, **settings)
    model = peft.get_peft_model(base, config).eval()
    factors = {key: value for key, value in model.named_parameters() if value.requires_grad}
    for key, value in factors.items():
        if "lora_B" in key:
            torch.nn.init.normal_(value, std=0.1)
    ids = torch.tensor([[(i * i * 7 + 3) % base.config.vocab_size for i in range(17)]])
    out = model(ids, labels=ids, use_cache=False)
    out.loss.backward()
    plain = lambda key: key.replace(".default", "")
    expected = {"ids": ids[0].to(torch.int32), "logits": out.logits[0].detach(), "loss": out.loss.detach().reshape(1)}
    expected |= {f"grad.{plain(key)}": value.grad for key, value in factors.items()}
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    file = folder / "adapter_config.json"
    written = json.loads(file.read_text()) | {"base_model_name_or_path": f"{FIXTURES}/{name}"}
    file.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")
    save_file({key: value.contiguous() for key, value in expected.items()}, folder / "expected.safetensors")
    print(name, out.loss.item(), len(factors))
