#!/usr/bin/env bash
# Times steps of `lathe tune full` and `lathe tune lora` beside torch (and peft) on SmolLM2's weights in f32: 1, 2 and 4 records of 256
# tokens forward, back, clipped, AdamW, with products in f32 and in bf16 (torch under autocast). Every run in a process of its own, taking turns. Not part of CI.
# usage: bench/peers/run-tune.sh OUT_DIR WORK_DIR     needs python with torch, transformers and peft (PYTHON, default python3), GNU time,
# a built lathe (LATHE, default target/release/lathe) and its smollm2, fetched. ROUNDS (3), BATCHES (1 2 4), COMPUTES (f32 bf16),
# STEPS (6): the first step does not count.
set -euo pipefail
out=$1; work=$2; rounds=${ROUNDS:-3}; steps=${STEPS:-6}; batches=${BATCHES:-1 2 4}; computes=${COMPUTES:-f32 bf16}
lathe=${LATHE:-target/release/lathe}; python=${PYTHON:-python3}
here=$(cd "$(dirname "$0")" && pwd); mkdir -p "$out" "$work"
[ -e "$work/smollm2" ] || "$lathe" export smollm2 --to safetensors --dtype f32 --out "$work/smollm2" --quiet > "$work/log"
"$python" - "$steps" ${batches##* } > "$work/ids.jsonl" <<'P'
import json, random, sys
random.seed(0)
for _ in range(int(sys.argv[1]) * int(sys.argv[2])):
    print(json.dumps({"input_ids": [random.randrange(1000, 49000) for _ in range(257)]}))
P
for _ in $(seq "$rounds"); do
  for batch in $batches; do for compute in $computes; do for kind in full lora; do
    rm -rf "$work/tuned"
    options=(); [ "$kind" = full ] || options=(--rank 8 --alpha 16 --targets q_proj,v_proj)
    /usr/bin/time -f '%e %U %S %M' -o "$work/time" "$lathe" tune "$kind" "$work/smollm2" --data "$work/ids.jsonl" --out "$work/tuned" --steps "$steps" \
      --batch "$batch" --lr 1e-5 --schedule constant --weight-decay 0 --clip 1 --order file --keep 0 --quiet --compute "$compute" "${options[@]}" > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    read -r _ _ _ kb < <(tail -1 "$work/time")
    "$python" - "$work/tuned/metrics.jsonl" "$kind" "$compute" "$batch" "$kb" <<'P'
import json, sys
lines = [line for line in map(json.loads, open(sys.argv[1])) if "loss" in line]
print(json.dumps({"who": "lathe", "what": sys.argv[2], "compute": sys.argv[3], "batch": int(sys.argv[4]), "seconds": [line["seconds"] for line in lines],
                  "losses": [line["loss"] for line in lines], "peak_rss_kb": int(sys.argv[5])}))
P
    "$python" "$here/train_step.py" "$kind" "$work/smollm2" "$work/ids.jsonl" "$steps" "$batch" "$compute" 2> "$work/log"
  done; done; done
done | tee "$out/tune.jsonl"
{ uname -sr; grep -m1 'model name' /proc/cpuinfo; nproc; "$lathe" --version
  "$python" -c 'import importlib.metadata as m; print(*(f"{p} {m.version(p)}" for p in ["torch", "transformers", "peft"]))'; } > "$out/machine.txt"
