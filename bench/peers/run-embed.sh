#!/usr/bin/env bash
# Times `lathe embed minilm` beside sentence-transformers on texts of three lengths, taking turns, in f32 and in bf16. Not part of CI.
# usage: bench/peers/run-embed.sh OUT_DIR WORK_DIR     needs python with sentence-transformers (PYTHON, default python3), GNU time,
# a built lathe (LATHE, default target/release/lathe) and its minilm, fetched. ROUNDS, TEXTS,
# KINDS (words sentences passages), COMPUTES (f32 bf16) and THREADS.
#
# Of lathe the whole command counts: starting, loading, tokenising, embedding, writing. Of sentence-transformers the call of
# encode alone, in a process that has imported, loaded and encoded some texts before.
set -euo pipefail
out=$1; work=$2; rounds=${ROUNDS:-3}; kinds=${KINDS:-words sentences passages}; computes=${COMPUTES:-f32 bf16}; threads=${THREADS:-2}
lathe=${LATHE:-target/release/lathe}; python=${PYTHON:-python3}
here=$(cd "$(dirname "$0")" && pwd); mkdir -p "$out" "$work"
export OMP_NUM_THREADS=$threads
model=$("$lathe" inspect minilm --json | sed -n 's/^ *"path": "\(.*\)",$/\1/p' | head -n 1)
[ -e "$model/modules.json" ] || { echo "no modules.json in $model" >&2; exit 1; }
for kind in $kinds; do "$python" "$here/embed_texts.py" "$kind" "${TEXTS:-2000}" > "$work/$kind.jsonl"; done
for _ in $(seq "$rounds"); do
  for kind in $kinds; do for compute in $computes; do
    rm -f "$work/vectors.npy"*
    /usr/bin/time -f '%e %U %S %M' -o "$work/time" \
      "$lathe" embed minilm --input "$work/$kind.jsonl" --out "$work/vectors.npy" --threads "$threads" --compute "$compute" --quiet > "$work/log" 2>&1 \
      || { cat "$work/log"; exit 1; }
    read -r wall user system kb < <(tail -1 "$work/time")
    echo "{\"kind\":\"$kind\",\"who\":\"lathe\",\"compute\":\"$compute\",\"seconds\":$wall,\"processor_seconds\":$(awk "BEGIN {print $user + $system}"),\"peak_rss_kb\":$kb}"
    "$python" "$here/embed_minilm.py" "$model" "$work/$kind.jsonl" --threads "$threads" --compute "$compute" --vectors "$work/vectors.npy" 2> "$work/log" \
      | sed "s/^{/{\"kind\": \"$kind\", \"compute\": \"$compute\", /"
  done; done
done | tee -a "$out/embed.jsonl"
{ uname -sr; grep -m1 'model name' /proc/cpuinfo; nproc; "$lathe" --version
  "$python" -c 'import importlib.metadata as m; print(*(f"{p} {m.version(p)}" for p in ["sentence-transformers", "torch", "transformers", "tokenizers"]))'; } > "$out/machine.txt"
