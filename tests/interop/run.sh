#!/bin/sh
# run.sh -- random models of many shapes through stock llama.cpp: same ids, same logits.
# usage: tests/interop/run.sh, from the repository root (make interop).  Works in build/interop.
set -u
here=$(cd "$(dirname "$0")" && pwd)
work=build/interop
mkmodel=${MKMODEL:-build/release/test/interop/mkmodel}
. "$here/setup.sh"

give_up() { echo "FAIL interop: $1"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }
interop_setup "$work" || give_up "no llama.cpp to compare with"
work=$(realpath "$work")
"$mkmodel" tokenizer "$work/m" || give_up "mkmodel tokenizer"
names=
while read -r name keys; do
    # shellcheck disable=SC2086
    "$mkmodel" model "$work/m" "$name" init_std=0.08 $keys || give_up "mkmodel $name"
    names="$names $name"
done <"$here/shapes.txt"
head -n 120 "$work/m/lines.txt" >"$work/m/ppl.txt"
build/bin/eval --quiet --json --model "$work/m/moe.F32.gguf" --text "$work/m/ppl.txt" eval.mode=llama \
    eval.context=256 >"$work/m/moe.F32.ppl.json" || give_up "eval"
# 200 minimal pairs through eval's own path: tasks, engine with shared beginnings, items.
build/bin/world --kind eval --split test --seed 1 --count 1800 --out "$work/m/world_eval.jsonl" || give_up "world"
build/bin/eval --quiet --model "$work/m/moe.F32.gguf" --tasks world_pairs eval.data="$work/m" eval.limit=200 \
    eval.tokens=true --out "$work/m/pairs" --if-done=redo >/dev/null &&
    zstd -dcq "$work/m/pairs/items.jsonl.zst" >"$work/m/pairs.jsonl" || give_up "eval of pairs"
cd "$work" || exit 1
# shellcheck disable=SC2086
exec "$node" "$here/llama.mjs" "$work/m" $names
