#!/bin/sh
# studies_train.sh -- the speed run and the studies of training from nothing, at a size of seconds:
# every script runs, writes its page and its pictures, and repeats nothing when called again.
. tests/cli/lib.sh
study_home
export SEEDS=1
for study in speedrun collapse moe hybrid precision; do
    study $study
    same "$study: no cell is empty" "$(grep -cE '\|  *\|' runs/study-small-docs/$study.md)" 0
done
page=runs/study-small-docs/speedrun.md
for side in "one rate" "an embedding rate of its own"; do
    check "both sides cross the target: $side" grep -qE "with $side: tokens \*\*[0-9]\.[0-9]+" $page
done
same "AdamW ran AdamW" \
    "$(cat runs/study-small-speedrun-*-adamw-[0-9]*/config.yaml 2>&1 |
        grep -cE 'kind: muon|embed_lr: 48|No such file')" 0
rows=$(sed -n 's/.*"row":"\([a-z ]*\)".*/\1/p' runs/study-small-text/recall-8/hybrid-recall.jsonl |
    head -n 1)
check "a row's last key stands in it twice" sh -c "echo '$rows' | awk '{
    for (i = 1; i <= NF; i += 2) n += \$i == \$NF; exit n != 2 }'"
cd "$root" || exit 1
finish
