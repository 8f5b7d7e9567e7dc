"""Kept sets of transformers' logits processors, for tests/truncation.rs: python make_kept.py > kept.json"""
import json

import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

RULES = [
    {"top_k": 7},
    {"top_p": 0.8},
    {"min_p": 0.1},
    {"typical": 0.7},
    {"top_k": 20, "top_p": 0.9},
    {"top_k": 30, "min_p": 0.05},
    {"top_p": 0.95, "typical": 0.6},
    {"top_k": 25, "top_p": 0.97, "min_p": 0.02, "typical": 0.9},
]
WARPERS = {"top_k": TopKLogitsWarper, "top_p": TopPLogitsWarper, "min_p": MinPLogitsWarper, "typical": TypicalLogitsWarper}

torch.manual_seed(0)
cases = []
for spread in (0.5, 2.0, 5.0):
    logits = torch.randn(1, 60) * spread
    for rules in RULES:
        scores = logits.clone()
        for name, value in rules.items():
            scores = WARPERS[name](value)(None, scores)
        kept = torch.isfinite(scores[0]).nonzero().flatten().tolist()
        cases.append({"logits": [float(f"{x:.9g}") for x in logits[0].tolist()], "rules": rules, "kept": kept})
print(json.dumps(cases))
