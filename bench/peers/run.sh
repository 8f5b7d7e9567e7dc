#!/usr/bin/env bash
# Times lathe beside llama.cpp, transformers and candle-transformers, every peer in a process of its own, all in one run, and
# prints tables and targets. Not part of CI.
# usage: bench/peers/run.sh OUT [MODEL…]      MODEL: names that `lathe fetch` knows [all three]; they must have been fetched.
#   OUT             folder for raw rows (lathe-*.json, peers.jsonl), f32 copies of the models and what is installed
#   RUNS=3          runs that count;  DECODE=32: tokens that are written;  THREADS=all cores
#   COMPUTE="f32 bf16 native"   lathe's arithmetic
#   LATHE, PEER_CANDLE   the two programs, where they have been built; otherwise they are built
#   LLAMA_PYTHON    a Python with llama-cpp-python; otherwise one is made in OUT: building takes a quarter of an hour
#   TORCH_PYTHON    a Python with torch, transformers, peft and safetensors; otherwise one is made in OUT
#   LIMIT=600       seconds that a peer may take with one model; what it had timed by then counts
#   WITHOUT=""      what to leave out, for example "candle llama.cpp transformers training methods"
set -euo pipefail
out=$(mkdir -p "$1" && realpath "$1") here=$(cd "$(dirname "$0")" && pwd) root=$(cd "$(dirname "$0")/../.." && pwd)
models=("${@:2}")
((${#models[@]})) || models=(smollm2 gemma3-270m qwen2.5-coder-0.5b)
runs=${RUNS:-3} decode=${DECODE:-32} threads=${THREADS:-$(nproc)} without=" ${WITHOUT:-} "
export RAYON_NUM_THREADS=$threads OMP_NUM_THREADS=$threads
options=(--runs "$runs" --decode "$decode" --threads "$threads")

# with PEER: whether it takes part.
with() { [[ $without != *" $1 "* ]]; }
# python PATH PACKAGE…: that Python, or one made here with the packages.
python() {
  if [[ -n $1 ]]; then echo "$1"; return; fi
  if [[ ! -x $out/$2/bin/python ]]; then
    python3 -m venv "$out/$2"
    "$out/$2/bin/pip" install --quiet "${@:2}" >&2 || return
  fi
  echo "$out/$2/bin/python"
}

lathe=${LATHE:-} llama='' torch='' candle=''
if [[ -z $lathe ]]; then
  cargo build --release --manifest-path "$root/Cargo.toml"
  lathe=${CARGO_TARGET_DIR:-$root/target}/release/lathe
fi
! with llama.cpp || llama=$(python "${LLAMA_PYTHON:-}" llama-cpp-python)
! with transformers || torch=$(python "${TORCH_PYTHON:-}" torch transformers peft safetensors)
if with candle; then
  candle=${PEER_CANDLE:-$out/candle/release/peer-candle}
  # It chooses instructions when it is compiled: without this its products of blocks are plain loops.
  [[ -n ${PEER_CANDLE:-} ]] || RUSTFLAGS="-C target-cpu=native" CARGO_TARGET_DIR=$out/candle \
    cargo build --release --manifest-path "$here/candle/Cargo.toml"
fi

# peer MODEL COMMAND…: appends its rows. A peer that cannot run a model leaves a note and the others go on.
peer() {
  local model=$1 status=0
  shift
  echo "== $model: ${*:1:3}" >&2
  timeout "${LIMIT:-600}" "$@" > "$out/rows" 2> "$out/errors" || status=$?
  sed -n 's/^{/{"model": '"$model"', /p' "$out/rows" >> "$out/peers.jsonl"
  if ((status)); then
    tail -n 3 "$out/errors" >&2
    printf '{"model": %s, "who": "%s", "what": "all that follows", "note": "ended with status %s"}\n' \
      "$model" "$(basename "$1") ${3:-}" "$status" >> "$out/peers.jsonl"
  fi
}

: > "$out/peers.jsonl"
parts=()
for model in "${models[@]}"; do
  gguf=$("$lathe" inspect "$model" --json | sed -n 's/^ *"path": "\(.*\)",$/\1/p' | head -n 1)
  echo "== $model: lathe" >&2
  bench=("$lathe" bench "$model" --runs "$runs" --threads "$threads" --quiet --json)
  for compute in ${COMPUTE:-f32 bf16 native}; do
    parts+=("$out/lathe-$model-$compute.json")
    "${bench[@]}" --decode "$decode" --compute "$compute" > "${parts[-1]}"
  done
  # In a process of its own, because training needs more memory; what it reads and writes as well is not looked at.
  if with methods; then
    parts+=("$out/lathe-$model-methods.json")
    "${bench[@]}" --methods --prompt 1 --decode 1 --batch 1 > "${parts[-1]}"
  fi
  # Each in a process of its own: its peak of memory is the step's.
  if with training && [[ $model == smollm2 ]]; then
    for training in full lora; do
      parts+=("$out/lathe-$model-$training.json")
      "${bench[@]}" --training "$training" --prompt 1 --decode 1 --batch 1 > "${parts[-1]}"
    done
  fi
  [[ -z $llama ]] || peer "\"$model\"" "$llama" "$here/peers.py" llama.cpp "$gguf" "${options[@]}"
  [[ -z $candle ]] || peer "\"$model\"" "$candle" "$gguf" --runs "$runs" --decode "$decode"
  if [[ -n $torch ]]; then
    [[ -d $out/$model ]] || "$lathe" export "$model" --to safetensors --dtype f32 --out "$out/$model"
    for peer in transformers-f32 transformers-bf16; do
      peer "\"$model\"" "$torch" "$here/peers.py" "$peer" "$out/$model" "${options[@]}"
    done
    # The target is one of SmolLM2, and a step of the others takes minutes.
    if with training && [[ $model == smollm2 ]]; then
      peer "\"$model\"" "$torch" "$here/peers.py" training "$out/$model" "${options[@]}"
      peer "\"$model\"" "$torch" "$here/peers.py" lora "$out/$model" "${options[@]}"
    fi
  fi
done
[[ -z $torch ]] || peer null "$torch" "$here/peers.py" spectrum "${options[@]}"
python3 "$here/table.py" "$out/peers.jsonl" "${parts[@]}" | tee "$out/tables.md"
