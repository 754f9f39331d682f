#!/bin/sh
# lora.sh -- adapters that quantize writes, applied by llama.cpp to a GGUF file of the base:
# the logits of our merged model.  usage: tests/interop/lora.sh, from the repository root
# (make interop).  Works in build/interop.
set -u
here=$(cd "$(dirname "$0")" && pwd)
work=build/interop
mkmodel=${MKMODEL:-build/release/test/interop/mkmodel}
. "$here/setup.sh"

give_up() { echo "FAIL lora: $1"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }
interop_setup "$work" || give_up "no llama.cpp to compare with"
work=$(realpath "$work")
lora=$work/lora
rm -rf "$lora"
"$mkmodel" tokenizer "$lora" || give_up "mkmodel tokenizer"
pairs=
# name, the shape of shapes.txt it is on, keys of section lora
while read -r name shape keys; do
    [ -d "$lora/$shape" ] || "$mkmodel" model "$lora" "$shape" init_std=0.08 \
        $(sed -n "s/^$shape //p" "$here/shapes.txt") || give_up "mkmodel $shape"
    # shellcheck disable=SC2086
    "$mkmodel" lora "$lora" "$shape" "$name" $keys 2>"$lora/log" || give_up "$(cat "$lora/log")"
    build/bin/quantize --quiet --model "$lora/$name" --adapter --out "$lora/$name.gguf" >/dev/null ||
        give_up "quantize --adapter of $name"
    pairs="$pairs $name:$shape"
done <<'EOF'
dense-all dense rank=4
dense-some dense rank=3 alpha=5 targets=[q_proj,mamba.in_proj,shared_mlp.output_linear]
moe-all moe rank=4 rslora=true alpha=4
moe-shared-all moe-shared rank=2 alpha=6
head-dim-all head-dim rank=5
attention-all attention-moe rank=4
EOF
cd "$work" || exit 1
# shellcheck disable=SC2086
exec "$node" "$here/lora.mjs" "$lora" $pairs
