#!/bin/sh
# precision.sh -- study: does training with BF16 products learn what fp32 does?
#
# usage: configs/studies/precision.sh     (SEEDS="1 2 3", TOKENS=300k)
# configs/ci.yaml (hybrid with experts, Muon) on the default corpus, both settings of train.compute
# on the same batches from the same weights, seed by seed.  Runs in runs/precision-*: done ones are
# skipped, interrupted ones go on.  Writes docs/studies/precision.svg, and the table to stdout.
set -eu
B=${B:-build/bin} seeds=${SEEDS:-1 2 3} shards=runs/precision-data
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
mkdir -p runs
if [ ! -s $shards/manifest.json ]; then
    "$B/world" --seed 1 --bytes 4M --out runs/precision-text.jsonl
    "$B/tokenize" --quiet --config configs/ci.yaml tokenize.inputs=[runs/precision-text.jsonl] \
        tokenize.val_frac=0.05 tokenize.out=$shards
fi
for seed in $seeds; do
    for compute in fp32 bf16; do
        nice -n "${NICE:-5}" "$B/pretrain" --quiet --threads 1 --config configs/ci.yaml \
            name="precision-$compute-s$seed" seed="$seed" train.compute=$compute \
            sched.tokens="${TOKENS:-300k}" val.every=20 val.tokens=20k data.shards=$shards \
            --resume=auto --if-done=skip
    done
done
"$B/regress" plot 'runs/precision-*-s*' --metric train/loss --metric val/bpb \
    --out docs/studies/precision.svg
"$B/regress" table 'runs/precision-*-s*' --cols train.compute,seed,train/loss,val/bpb,train/tok_per_s \
    --sort seed --md
