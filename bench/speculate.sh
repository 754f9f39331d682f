#!/bin/sh
# speculate.sh -- guesses on a model of 31M parameters by the demo's model of 2.2M, both trained
# on the same text: tokens/s with and without, in turns; JSON lines with json=1.
# usage: bench/speculate.sh [KEY=VALUE ...]     of build/bench/speculate_bench
# Trains what is not there yet (runs/demo as `make demo` does, runs/speculate: about 10 minutes of
# one core).
set -eu
B=build/bin
make -s all build/bench/speculate_bench >&2
data=runs/demo-data
if [ ! -e runs/demo/ckpt/latest ]; then
    mkdir -p runs/demo-text
    for s in train val; do
        [ -s runs/demo-text/$s.jsonl ] ||
            $B/world --seed 1 --bytes "$([ $s = train ] && echo 16M || echo 1M)" --split $s --out runs/demo-text/$s.jsonl
    done
    [ -s $data/manifest.json ] ||
        $B/tokenize --quiet --config configs/demo.yaml "tokenize.inputs=[runs/demo-text/train.jsonl]" \
            "tokenize.val_inputs=[runs/demo-text/val.jsonl]" tokenize.val_frac=0 tokenize.out=$data >&2
    $B/pretrain --quiet --config configs/demo.yaml name=demo data.shards=$data --resume=auto >&2
fi
# The model of configs/bench30m.yaml with the demo's vocabulary, a layer more and wider FFNs.
[ "$(cat runs/speculate/.done 2>/dev/null)" = 1 ] || {
    $B/pretrain --quiet --config configs/bench30m.yaml name=speculate data.shards=$data --resume=auto \
        model.vocab_size=2048 model.n_layers=9 model.pattern=MMA model.d_ff=1280 data.seq_len=256 \
        data.batch_tokens=1024 optim.lr=1e-3 sched.warmup=20k sched.decay_frac=0.3 sched.tokens=360k val.every=0 \
        val.tokens=20k val.samples=0 >&2
    echo 1 >runs/speculate/.done
}
for t in 0 0.8; do
    build/bench/speculate_bench runs/speculate draft=runs/demo temperature=$t "$@"
done
build/bench/speculate_bench runs/speculate ngram=3 temperature=0 "$@"
# n-grams live on repetition: a story three times, then its beginning.
story=$(sed -n '1s/.*"text": *"\(.*\)"}$/\1/p' runs/demo-text/val.jsonl)
printf '%s\n\n%s\n\n%s\n\n%.60s' "$story" "$story" "$story" "$story" >build/bench/repeats.txt
build/bench/speculate_bench runs/speculate ngram=3 temperature=0 prompt=build/bench/repeats.txt "$@"
