#!/bin/sh
# sweep-lr.sh -- three learning rates, three seeds each, a table and a plot: the shell is the sweep.
#
# usage: configs/sweep-lr.sh [SHARDS]     shards: a data set made by tokenize (default: makes one)
# Nine short runs of configs/ci.yaml (a few minutes on two cores) in runs/sweep-lr*.  Done runs are
# skipped, so an interrupted sweep goes on where it stopped.
set -eu
B=build/bin shards=${1:-runs/sweep-data}
if [ $# = 0 ] && [ ! -s $shards/manifest.json ]; then
    mkdir -p runs
    $B/world --seed 1 --bytes 4M --out runs/sweep-text.jsonl
    $B/tokenize --config configs/ci.yaml tokenize.inputs=[runs/sweep-text.jsonl] \
        tokenize.val_frac=0.05 tokenize.out=$shards
fi
for lr in 2e-3 5e-3 1.2e-2; do
    for seed in 1 2 3; do
        $B/pretrain --quiet --config configs/ci.yaml name=sweep-lr$lr-s$seed optim.lr=$lr seed=$seed \
            sched.tokens=${TOKENS:-200k} val.every=25 data.shards=$shards --resume=auto --if-done=skip
    done
done
$B/regress table 'runs/sweep-lr*' --cols optim.lr,seed,val/bpb,train/tok_per_s --sort val/bpb --md
$B/regress plot 'runs/sweep-lr*' --metric val/bpb --out runs/lr-sweep.svg
# Is the best rate better than the next, or do seeds differ as much?
$B/regress table 'runs/sweep-lr*' --cols optim.lr,val/bpb --sort optim.lr
