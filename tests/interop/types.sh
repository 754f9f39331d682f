#!/bin/sh
# types.sh -- every type and mix that quantize writes, loaded by stock llama.cpp: the same logits.
# usage: tests/interop/types.sh, from the repository root (make interop).  Works in build/interop.
set -u
here=$(cd "$(dirname "$0")" && pwd)
work=build/interop
mkmodel=${MKMODEL:-build/release/test/interop/mkmodel}
. "$here/setup.sh"

give_up() { echo "FAIL types: $1"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }
interop_setup "$work" || give_up "no llama.cpp to compare with"
work=$(realpath "$work")
"$mkmodel" tokenizer "$work/t" || give_up "mkmodel tokenizer"
"$mkmodel" model "$work/t" wide init_std=0.05 d_model=256 n_layers=4 pattern=MA ffn=D d_ff=512 n_heads=4 \
    n_kv_heads=2 ssm_head_dim=64 ssm_state=32 rope=plain tied=false || give_up "mkmodel model"
rm -f "$work"/t/wide.F16.gguf "$work"/t/wide.BF16.gguf
"$mkmodel" types "$work/t" wide || give_up "mkmodel types"
cd "$work" || exit 1
exec "$node" "$here/llama.mjs" types "$work/t" wide
