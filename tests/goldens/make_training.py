"""Writes training.json: losses of a few steps of torch's AdamW on the llama fixture, as transformers computes them in f32, and in
bf16 under autocast.

    make_training.py ../fixtures/parity/llama > training.json

This is a tool for development. The test reads what it wrote and never runs it.
"""

import json, sys

import torch
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)


def records(count, vocab):
    """Ids and labels; every third record is masked at its beginning, and one in its middle."""
    made = []
    for i in range(count):
        ids = [(7 * i + 3 * t * t + 11 * t + i * t) % (vocab - 3) + 3 for t in range(6 + (5 * i) % 9)]
        labels = list(ids)
        if i % 3 == 1:
            labels[:4] = [-100] * 4
        if i % 5 == 3:
            labels[2] = -100
        made.append(dict(input_ids=ids, labels=labels))
    return made


def losses(folder, data, steps, batch, lr, decay, clip, compute):
    model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32)
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=decay)
    found = []
    for step in range(steps):
        chosen = [data[(step * batch + i) % len(data)] for i in range(batch)]
        total, count = 0.0, 0
        for record in chosen:
            ids, labels = torch.tensor([record["input_ids"]]), torch.tensor([record["labels"]])
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=compute == "bf16"):
                logits = model(ids).logits.float()
            total = total + torch.nn.functional.cross_entropy(
                logits[0, :-1], labels[0, 1:], ignore_index=-100, reduction="sum")
            count += int((labels[0, 1:] != -100).sum())
        loss = total / count
        found.append(float(loss))
        optimiser.zero_grad()
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimiser.step()
    return found


folder = sys.argv[1]
vocab = json.load(open(f"{folder}/config.json"))["vocab_size"]
data = records(14, vocab)
cases = []
usual = (1e-3, 0.0, None, "f32")
for lr, decay, clip, compute in [usual, (1e-2, 0.3, None, "f32"), (3e-3, 0.0, 0.5, "f32"), (1e-3, 0.0, None, "bf16")]:
    found = losses(folder, data, 8, 2, lr, decay, clip, compute)
    cases.append(dict(lr=lr, weight_decay=decay, clip=clip, compute=compute, losses=found))
json.dump(dict(records=data, batch=2, cases=cases), sys.stdout)
print()
