"""Training steps in torch: forward, backward, clipping, AdamW, on the records that `lathe tune` reads.

usage: train_step.py full|lora FOLDER DATA.jsonl STEPS BATCH f32|bf16     prints a JSON line: seconds and loss of each step, peak memory; bf16 is
under autocast
"""

import json
import os
import resource
import sys
import time

import torch
import transformers

kind, folder, data, steps, batch, compute = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6]
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
records = [json.loads(line)["input_ids"] for line in open(data)]
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
who = f"torch {torch.__version__}, transformers {transformers.__version__}"
if kind == "lora":
    import peft

    model = peft.get_peft_model(model, peft.LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    who += f", peft {peft.__version__}"
model.train()
parameters = [p for p in model.parameters() if p.requires_grad]
optimiser = torch.optim.AdamW(parameters, lr=1e-5, weight_decay=0.0)
seconds, losses = [], []
for step in range(steps):
    ids = torch.tensor(records[batch * step:batch * (step + 1)])
    started = time.monotonic()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=compute == "bf16"):
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()
    optimiser.zero_grad()
    seconds.append(time.monotonic() - started)
    losses.append(loss.item())
print(json.dumps({"who": who, "what": kind, "compute": compute, "batch": batch, "seconds": seconds, "losses": losses,
                  "peak_rss_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
