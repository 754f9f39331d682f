#!/bin/sh
# chat.sh -- the chat template of our GGUF files, rendered and tokenized by others' code, gives
# our ids.  usage: tests/interop/chat.sh, from the repository root.  Works in build/interop.
set -u
here=$(cd "$(dirname "$0")" && pwd)
work=build/interop
mkmodel=${MKMODEL:-build/release/test/interop/mkmodel}
. "$here/setup.sh"

give_up() { echo "FAIL chat: $1"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }
interop_setup "$work" || give_up "no llama.cpp to compare with"
work=$(realpath "$work")
chat=$work/chat cases=$(realpath tests/golden/chat/cases.jsonl)
rm -rf "$chat"
mkdir -p "$chat"
cp tests/golden/chat/tokenizer.model "$chat/"
"$mkmodel" model "$chat" tiny d_model=32 n_layers=2 pattern=MA ffn=D n_heads=2 n_kv_heads=2 \
    ssm_state=16 ssm_head_dim=32 ssm_chunk=32 || give_up "mkmodel"
build/bin/tokenize --quiet tokenize.inputs="$cases" tokenize.out="$chat/shards" tokenize.val_frac=0 \
    tokenize.tokenizer="$chat" >/dev/null || give_up "tokenize"
build/bin/tokenize head "$chat/shards" --docs 1000 --json >"$chat/ours.jsonl" || give_up "tokenize head"
cd "$work" || exit 1
exec "$node" "$here/chat.mjs" "$chat/tiny.F32.gguf" "$cases" "$chat/ours.jsonl"
