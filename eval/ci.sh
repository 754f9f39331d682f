#!/bin/sh
# ci.sh -- does this checkout still evaluate and train as it did?  `make ci` runs both parts.
#
# usage: eval/ci.sh frozen     a committed model, one kernel level: not one item may change
#        eval/ci.sh fresh      a model trained now against five seeds of its recipe
#        eval/ci.sh bless      measure both anew and replace the baselines (says how they differ)
# Reports go to build/ci/*.{html,md,xml}.  Exit code: regress's (0, 3 worse, 4, 5).
# docs/REGRESSION.md explains how to change a baseline on purpose.
set -u
B=${BIN:-build/bin} dir=build/ci base=eval/baselines
stories=world_text,world_cloze,world_pairs # what a model that has read only stories can do
mkdir -p $dir || exit 1

data() {
    [ -s $dir/world_eval.jsonl ] || $B/world --kind eval --seed 1 --split test --count 3000 --out $dir/world_eval.jsonl || exit
    [ -s $dir/world_test.jsonl ] || $B/world --seed 1 --split test --bytes 150K --out $dir/world_test.jsonl || exit
}
evaluate() { # MODEL OUT TASKS [KEY=VALUE ...]
    model=$1 out=$2 tasks=$3; shift 3
    $B/eval --quiet --model "$model" --tasks "$tasks" --out "$out" --if-done=redo eval.data=$dir "$@"
}
report() { # NAME BASE CAND...
    name=$1; shift
    $B/regress --config eval/ci-"${name%-*}".yaml "$@" --report $dir/"$name".html \
        --report $dir/"$name".md --report $dir/"$name".xml
}

# Plain C kernels give the same bits on every machine.  The model's weights as numbers, and as the
# blocks that its file has.
frozen() { # float or blocks
    CHIMERA_KERNELS=ref evaluate $base/ci.gguf $dir/frozen-"$1" $stories,world_choice eval.limit=40 eval.weights="$1"
}
unchanged() { frozen "$1" && report frozen-"$1" $base/frozen-"$1" $dir/frozen-"$1"; }
bless_frozen() { frozen "$1" && $B/regress bless $dir/frozen-"$1" --as frozen-"$1" --replace; }
train() { # SEED: into build/ci/runs/ci-sSEED
    [ -s $dir/train.jsonl ] || $B/world --seed 1 --bytes 8M --split train --out $dir/train.jsonl || exit
    [ -s $dir/val.jsonl ] || $B/world --seed 1 --bytes 1M --split val --out $dir/val.jsonl || exit
    [ -s $dir/data/manifest.json ] || $B/tokenize --quiet --config configs/ci.yaml tokenize.inputs=[$dir/train.jsonl] \
        tokenize.val_inputs=[$dir/val.jsonl] tokenize.val_frac=0 tokenize.out=$dir/data || exit
    $B/pretrain --config configs/ci.yaml --runs $dir/runs name=ci-s"$1" seed="$1" \
        data.shards=$dir/data --if-done=redo || exit
}
fresh() { train "$1" && evaluate $dir/runs/ci-s"$1"/ckpt/latest "$2" $stories; }

case ${1:-} in
frozen) data && unchanged float && unchanged blocks ;;
fresh) data && fresh 1 $dir/fresh && report fresh --replicates "$base/fresh-s*" $dir/fresh ;;
bless)
    data
    for s in 1 2 3 4 5; do fresh $s $dir/fresh-s$s && $B/regress bless $dir/fresh-s$s --as fresh-s$s --replace; done
    $B/quantize --model $dir/runs/ci-s1/ckpt/latest --type Q8_0 --out $base/ci.gguf
    bless_frozen float && bless_frozen blocks ;;
*) sed -n '2,/^set/{/^# /s/^# //p}' "$0"; exit 2 ;;
esac
