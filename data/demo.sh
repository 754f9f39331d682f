#!/bin/sh
# demo.sh -- the whole pipeline, end to end: text, vocabulary, shards, training, samples, GGUF.
# usage: data/demo.sh            on the default corpus (a generated world of stories)
#        TEXT=file data/demo.sh  on your own text (txt or jsonl, also .gz .zst)
# RUN names the run (default demo).  Everything lands in runs/RUN and runs/RUN-data; done steps are
# not repeated, so an interrupted demo goes on where it stopped.
set -eu
B=build/bin
RUN=${RUN:-demo}
data=runs/$RUN-data
ckpt=runs/$RUN/ckpt/latest
gguf=runs/$RUN/model.gguf
say() { printf '\n== %s\n' "$*"; }

start=$(date +%s)
if [ -z "${TEXT:-}" ]; then
    say "1. Text: stories of a small simulated world"
    mkdir -p "runs/$RUN-text"
    train=runs/$RUN-text/train.jsonl val=runs/$RUN-text/val.jsonl
    [ -s "$train" ] || $B/world --seed 1 --bytes 16M --split train --out "$train"
    [ -s "$val" ] || $B/world --seed 1 --bytes 1M --split val --out "$val"
    set -- "tokenize.inputs=[$train]" "tokenize.val_inputs=[$val]" tokenize.val_frac=0
    prompt="On Sunday, Mia was at the market."
else
    say "1. Text: $TEXT"
    # One document a paragraph, or a line where there are no blank lines to tell.
    split=line
    grep -qm1 '^[[:space:]]*$' "$TEXT" 2>/dev/null && split=blank
    set -- "tokenize.inputs=['$TEXT']" tokenize.split=$split tokenize.val_frac=0.05
    prompt=${PROMPT:-The}
fi

say "2. Vocabulary and shards"
[ -s "$data/manifest.json" ] ||
    $B/tokenize --config configs/demo.yaml "$@" tokenize.out="$data"
$B/tokenize stats "$data"

say "3. Training a hybrid Mamba-2 / attention model with experts"
$B/pretrain --config configs/demo.yaml name="$RUN" data.shards="$data" --resume=auto --if-done=skip

if [ -z "${TEXT:-}" ]; then
    say "4. Against a 5-gram model of the same shards (validation bits per byte)"
    $B/ngram --shards "$data" --order 5
    $B/eval --model "$ckpt" --shards "$data"
    say "5. 200 stories at temperature 0.7: how many parse under the corpus's own grammar?"
    $B/generate --model "$ckpt" --prompt "" --json generate.samples=200 generate.max_tokens=256 \
        generate.temperature=0.7 generate.top_k=0 generate.top_p=1 >"runs/$RUN/samples.jsonl"
    $B/world check "runs/$RUN/samples.jsonl" --least 80
fi

say "6. GGUF, and the same continuation from our generate and from llama.cpp"
$B/quantize --model "$ckpt" --type F32 --out "$gguf"
$B/generate --model "$gguf" --prompt "$prompt" generate.temperature=0 generate.max_tokens=60 \
    >"runs/$RUN/greedy.txt"
printf 'chimera:   %s%s\n' "$prompt" "$(cat "runs/$RUN/greedy.txt")"
if [ "${LLAMA:-auto}" = auto ] && command -v npm >/dev/null 2>&1 && . tests/interop/setup.sh &&
    interop_setup build/interop; then
    root=$PWD
    (cd build/interop && "$node" "$root/tests/interop/greedy.mjs" "$root/$gguf" "$prompt" 60) \
        >"runs/$RUN/llama.txt"
    printf 'llama.cpp: %s%s\n' "$prompt" "$(cat "runs/$RUN/llama.txt")"
    cmp -s "runs/$RUN/greedy.txt" "runs/$RUN/llama.txt" ||
        { echo "demo: error: llama.cpp continues otherwise" >&2; exit 3; }
    echo "llama.cpp continues with the same text"
else
    echo "llama.cpp: not asked (no npm here); \`make interop\` compares logits too"
fi
say "done in $(($(date +%s) - start)) s: runs/$RUN"
