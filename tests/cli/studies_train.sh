#!/bin/sh
# studies_train.sh -- the speed run and the studies of training from nothing, at a size of seconds:
# every script runs, writes its page and its pictures, and repeats nothing when called again.
. tests/cli/lib.sh
root=$PWD
mkdir -p "$tmp/build"
ln -s "$(realpath "$BIN")" "$tmp/build/bin"
for f in configs data eval; do ln -s "$root/$f" "$tmp/$f"; done
cd "$tmp" || exit 1
export SMALL=1 SEEDS=1 OMP_NUM_THREADS=1
for study in speedrun collapse moe hybrid; do
    expect "study $study" 0 "$study.md" sh configs/studies/$study.sh
    page=runs/study-small-docs/$study.md
    check "$study: a table" grep -q '^| ' $page
    same "$study: without holes" "$(grep -cE '\| *-?(nan|inf)|\|  *\|' $page)" 0
    check "$study: a picture" test -s runs/study-small-docs/$study.svg
    cp $page first.md
    expect "$study: again" 0 "" sh configs/studies/$study.sh
    check "$study: the same page" cmp first.md $page
    same "$study: no run is newer than its page" \
        "$(find runs -name metrics.jsonl -newer first.md | grep -vc -- '-mean/')" 0
    check "$study: docs have its numbers" grep -q '^<!-- end numbers' "$root/docs/studies/$study.md"
done
page=runs/study-small-docs/speedrun.md
check "both sides cross the target" grep -qE 'mean of 1 seeds: tokens \*\*[12]\.[0-9]+' $page
same "AdamW ran AdamW" \
    "$(cat runs/study-small-speedrun-adamw-*/config.yaml | grep -cE 'kind: muon|embed_lr: 48')" 0
rows=$(sed -n 's/.*"row":"\([a-z ]*\)".*/\1/p' runs/study-small-text/hybrid-recall.jsonl |
    head -n 1)
check "a row's last key stands in it twice" sh -c "echo '$rows' | awk '{
    for (i = 1; i <= NF; i += 2) n += \$i == \$NF; exit n != 2 }'"
cd "$root" || exit 1
finish
