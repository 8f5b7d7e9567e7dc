#!/usr/bin/env bash
# Times lathe beside llama.cpp and transformers on one model, in one run, and prints one table.
# usage: bench/peers/run.sh MODEL.gguf OUT      OUT is a folder for the virtual environment, the exported model and raw rows.
# Building llama.cpp takes a quarter of an hour on two cores; nothing of this is part of CI.
set -euo pipefail
gguf=$(realpath "$1") out=$(mkdir -p "$2" && realpath "$2") here=$(cd "$(dirname "$0")" && pwd) runs=${RUNS:-5}
cargo build --release --manifest-path "$here/../../Cargo.toml"
lathe=${CARGO_TARGET_DIR:-$here/../../target}/release/lathe
if [ ! -x "$out/venv/bin/python" ]; then
  python3 -m venv "$out/venv"
  "$out/venv/bin/pip" install --quiet llama-cpp-python torch transformers safetensors
fi
[ -d "$out/model" ] || "$lathe" export "$gguf" --to safetensors --dtype f32 --out "$out/model"
"$lathe" bench "$gguf" --runs "$runs" --json > "$out/lathe.json"
"$out/venv/bin/python" "$here/peers.py" "$gguf" "$out/model" --runs "$runs" > "$out/peers.jsonl"
"$out/venv/bin/python" "$here/table.py" "$out/lathe.json" "$out/peers.jsonl"
