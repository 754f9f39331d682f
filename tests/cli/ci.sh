#!/bin/sh
# ci.sh -- eval/ci.sh's frozen part: the committed model still scores as it did, and one changed bit
# in it does not go unseen.
. tests/cli/lib.sh
dir=build/ci
score() { # MODEL OUT
    "$BIN/eval" --quiet --model "$1" --tasks world_text,world_cloze,world_pairs,world_choice --out "$2" \
        eval.data=$dir eval.limit=40
}

expect "the committed model scores as it did, on plain C kernels" 0 "" env BIN="$BIN" sh eval/ci.sh frozen
expect "this machine's kernels score it" 0 "" score eval/baselines/ci.gguf "$tmp/fast"
expect "other bits, no other model" 0 "" "$BIN/regress" eval/baselines/frozen-blocks "$tmp/fast" \
    'regress.gate=[world_text/bits_per_byte]'
[ "$("$BIN/eval" --version | grep -c ', ref)')" = 1 ] ||
    expect "but not the same bits" 3 "" "$BIN/regress" eval/baselines/frozen-blocks "$tmp/fast" regress.exact=true

# One weight of the embedding gets another value.
cp eval/baselines/ci.gguf "$tmp/flipped.gguf"
flip "$tmp/flipped.gguf" 1500000
CHIMERA_KERNELS=ref expect "a model with one flipped bit is scored" 0 "" score "$tmp/flipped.gguf" "$tmp/bad"
expect "and found" 3 "" "$BIN/regress" eval/baselines/frozen-blocks "$tmp/bad" regress.exact=true
finish
