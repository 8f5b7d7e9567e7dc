#!/usr/bin/env bash
# Times the UniTE loop of two models in lathe and in transformers, taking turns.
# usage: bench/peers/run-unite.sh OUT_DIR      needs python with torch and transformers (PYTHON, default python3), the two models
# fetched, and a built lathe (LATHE, default target/release/lathe).
set -euo pipefail
out=$1; rounds=${ROUNDS:-3}; tokens=${TOKENS:-48}
lathe=${LATHE:-target/release/lathe}; python=${PYTHON:-python3}
here=$(dirname "$0"); mkdir -p "$out"
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
for model in smollm2 qwen2.5-coder-0.5b; do
  "$lathe" export "$model" --to safetensors --dtype f32 --out "$work/$model" --quiet > /dev/null
done
run_lathe() { # compute
  rm -f "$work/text.jsonl"
  "$lathe" ensemble smollm2 qwen2.5-coder-0.5b --prompt "The history of the town begins with" --max-tokens "$tokens" \
    --ignore-end --gate off --compute "$1" --out "$work/text.jsonl" --json --quiet |
    "$python" -c 'import json,sys; r=json.load(sys.stdin); print(json.dumps({"who":"lathe, "+r["compute"],"tokens":r["tokens"],"seconds":[r["seconds"]],"ms_per_token":r["ms_per_token"]}))'
}
for _ in $(seq "$rounds"); do
  run_lathe f32
  run_lathe native
  "$python" "$here/unite.py" "$work/smollm2" "$work/qwen2.5-coder-0.5b" --tokens "$tokens" --runs 1
  "$python" "$here/unite.py" "$work/smollm2" "$work/qwen2.5-coder-0.5b" --tokens "$tokens" --runs 1 --cache first
done | tee "$out/unite.jsonl"
{ uname -sr; grep -m1 'model name' /proc/cpuinfo; nproc; "$lathe" --version; "$python" -c 'import torch,transformers; print("torch", torch.__version__, "transformers", transformers.__version__)'; } > "$out/machine.txt"
