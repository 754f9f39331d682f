#!/bin/sh
# style.sh -- budgets and bans: narrow lines, files that are one thing, calls we do not make.
set -u
p=0 f=0
src=$(git ls-files '*.c' '*.h' '*.cc' '*.inc' '*.def')
try() { # NAME OUTPUT
    if [ -z "$2" ]; then p=$((p + 1)); echo "ok   $1"; else
        f=$((f + 1)); echo "FAIL $1"; echo "$2" | head -20 | sed 's/^/  /'; fi
}
try "lines are at most 100 columns" "$(awk 'length($0) > 100 {print FILENAME ":" FNR ": " length($0)}' $src)"
try "files are at most 600 lines" "$(wc -l $src | awk '$2 != "total" && $1 > 600')"
try "no tabs, no trailing blanks" "$(grep -nP '\t| +$' $src /dev/null)"
try "no banned calls" "$(grep -nE '\b(strcpy|strcat|sprintf|gets|atoi|atof|alloca|rand)\(' $(echo "$src" | tr ' ' '\n' | grep -vE '^(tests|bench)/') /dev/null)"
try "core never exits" "$(grep -nE '\b(exit|_exit)\(' $(git ls-files 'core/*.c' 'core/*.cc') /dev/null | grep -v 'allowed: ')"
try "float mathematics only in kernels" "$(grep -nE '\b(expf|logf|sqrtf|powf|tanhf|sinf|cosf)\(' $(git ls-files 'core/*.c' | grep -v '^core/kern/') /dev/null)"
try "intrinsics only in kernels" "$(grep -lE 'immintrin|_mm(256|512)?_' $(git ls-files 'core/*.[ch]' 'tools/*.c' 'eval/*.[ch]' | grep -v '^core/kern/') /dev/null)"
try "nothing left open" "$(grep -nE '\b(TODO|FIXME|XXX|HACK)\b' $src Makefile /dev/null)"
try "no -march=native, no -ffast-math" "$(grep -nE '^[^#]*(-march=native|-ffast-math|-Ofast)' Makefile)"
echo "$p passed, $f failed, 0 skipped"
[ $f = 0 ]
