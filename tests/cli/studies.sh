#!/bin/sh
# studies.sh -- the studies of docs/studies at a size of seconds: every script runs from nothing,
# writes its page and its pictures, and repeats nothing when it is called again.
. tests/cli/lib.sh
study_home
for study in noise stability win hacking reasoning; do
    case $study in noise | stability) export SEEDS="1 2" ;; *) export SEEDS=1 ;; esac
    study $study
done
cd "$root" || exit 1
check "make knows the studies" sh -c 'make -n studies | grep -q "sh configs/studies/"'
finish
