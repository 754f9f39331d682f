#!/bin/sh
# studies.sh -- the studies of docs/studies at a size of seconds: every script runs from nothing,
# writes its page and its pictures, and repeats nothing when it is called again.
. tests/cli/lib.sh
root=$PWD
mkdir -p "$tmp/build"
ln -s "$(realpath "$BIN")" "$tmp/build/bin"
for f in configs data eval; do ln -s "$root/$f" "$tmp/$f"; done
cd "$tmp" || exit 1
export SMALL=1 OMP_NUM_THREADS=1
for study in noise stability win hacking reasoning; do
    case $study in noise | stability) export SEEDS="1 2" ;; *) export SEEDS=1 ;; esac
    expect "study $study" 0 "$study.md" sh configs/studies/$study.sh
    page=runs/study-small-docs/$study.md
    check "$study: a table" grep -q '^| ' $page
    same "$study: without holes" "$(grep -cE '\| *-?(nan|inf)' $page)" 0
    check "$study: a picture" test -s runs/study-small-docs/$study.svg
    cp $page first.md
    before=$(find runs -name metrics.jsonl -path '*-s1/*' -newer $page | wc -l)
    expect "$study: again" 0 "" sh configs/studies/$study.sh
    check "$study: the same page" cmp first.md $page
    same "$study: no run is newer than its page" \
        "$before $(find runs -name metrics.jsonl -path '*-s1/*' -newer first.md | wc -l)" "0 0"
    # The page in docs is written around such a block.
    check "$study: docs have its numbers" grep -q '^<!-- end numbers' "$root/docs/studies/$study.md"
    for picture in runs/study-small-docs/"$study"*.svg; do
        check "docs have ${picture##*/}" test -s "$root/docs/studies/${picture##*/}"
    done
done
cd "$root" || exit 1
check "make knows the studies" sh -c 'make -n studies | grep -q "sh configs/studies/"'
finish
