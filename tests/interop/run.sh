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
cd "$work" || exit 1
# shellcheck disable=SC2086
exec "$node" "$here/llama.mjs" "$work/m" $names
