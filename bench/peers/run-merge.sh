#!/usr/bin/env bash
# Times merges of a generated 1.1-billion-parameter bf16 pair in lathe and mergekit, taking turns, and a plain copy of the same bytes.
# usage: bench/peers/run-merge.sh OUT_DIR WORK_DIR     WORK_DIR needs 10 GB; needs python with torch and mergekit (PYTHON, default
# python3), GNU time, and a built lathe (LATHE, default target/release/lathe). METHODS and ROUNDS choose what runs.
set -euo pipefail
out=$1; work=$2; rounds=${ROUNDS:-2}; methods=${METHODS:-linear slerp ties dare_ties}
lathe=${LATHE:-target/release/lathe}; python=${PYTHON:-python3}
here=$(cd "$(dirname "$0")" && pwd); mkdir -p "$out" "$work"
[ -e "$work/two/model.safetensors" ] || "$python" "$here/merge_pair.py" "$work"
cat > "$work/linear.yaml" <<Y
merge_method: linear
models:
- {model: $work/one, parameters: {weight: 0.6}}
- {model: $work/two, parameters: {weight: 0.4}}
dtype: bfloat16
Y
cat > "$work/slerp.yaml" <<Y
merge_method: slerp
base_model: $work/one
models:
- {model: $work/one}
- {model: $work/two}
parameters: {t: 0.4}
dtype: bfloat16
Y
for method in ties dare_ties della breadcrumbs task_arithmetic model_stock; do
  parameters="weight: 0.5"; [ "$method" = model_stock ] || [ "$method" = task_arithmetic ] || parameters="weight: 0.5, density: 0.5"
  [ "$method" != model_stock ] || parameters=""
  cat > "$work/$method.yaml" <<Y
merge_method: $method
base_model: $work/base
models:
- {model: $work/one, parameters: {$parameters}}
- {model: $work/two, parameters: {$parameters}}
dtype: bfloat16
Y
done
timed() { # who method command...
  local who=$1 method=$2; shift 2
  rm -rf "$work/out"
  /usr/bin/time -f '%e %U %S %M' -o "$work/time" "$@" > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }
  read -r wall user system kb < <(tail -1 "$work/time")
  echo "{\"who\":\"$who\",\"method\":\"$method\",\"wall_s\":$wall,\"cpu_s\":$(echo "$user + $system" | bc),\"peak_rss_kb\":$kb}"
}
cat "$work"/{base,one,two}/model.safetensors > /dev/null
for _ in $(seq "$rounds"); do
  for threads in 1 "$(nproc)"; do
    "$python" "$here/plain_copy.py" "$work/one/model.safetensors" "$work/two/model.safetensors" "$work/copied" "$threads" > "$work/log"
    "$python" -c 'import json,sys; r=json.load(open(sys.argv[1])); print(json.dumps({"who":"copy","method":"copy","threads":r["threads"],"wall_s":r["seconds"]}))' "$work/log"
    rm -f "$work/copied"
  done
  for method in $methods; do
    timed lathe "$method" "$lathe" merge "$work/$method.yaml" --out "$work/out" --quiet
    timed mergekit "$method" "$python" "$here/mergekit_yaml.py" "$work/$method.yaml" "$work/out" --no-copy-tokenizer
  done
done | tee "$out/merge.jsonl"
{ uname -sr; grep -m1 'model name' /proc/cpuinfo; nproc; "$lathe" --version
  "$python" -c 'import importlib.metadata as m; print(*(f"{p} {m.version(p)}" for p in ["mergekit", "torch", "transformers", "safetensors"]))'; } > "$out/machine.txt"
