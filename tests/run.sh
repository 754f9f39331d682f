#!/bin/sh
# run.sh -- run test programs and scripts, add up their closing lines.
# usage: tests/run.sh PROGRAM...     Each prints `N passed, N failed, N skipped` last; one that
# ends otherwise (a crash, a timeout) counts as a failure.
set -u
p=0 f=0 s=0 bad=
log=$(mktemp /tmp/chimera-run-XXXXXX)
trap 'rm -f "$log"' EXIT
for prog in "$@"; do
    echo "== $prog"
    case $prog in *.sh) set -- sh "$prog" ;; *) set -- "$prog" ;; esac
    timeout -k 10 "${TEST_TIMEOUT:-900}" "$@" >"$log" 2>&1
    code=$?
    cat "$log"
    line=$(tail -n 1 "$log" | grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$')
    if [ -z "$line" ]; then
        echo "FAIL $prog ended without a result (exit code $code)"
        f=$((f + 1)) bad="$bad $prog"
        continue
    fi
    # shellcheck disable=SC2046
    set -- $(echo "$line" | tr -dc '0-9 ')
    p=$((p + $1)) f=$((f + $2)) s=$((s + $3))
    [ "$2" = 0 ] || bad="$bad $prog"
    if [ "$2" = 0 ] && [ $code != 0 ]; then
        echo "FAIL $prog reports no failure but exits with $code"
        f=$((f + 1)) bad="$bad $prog"
    fi
done
[ -z "$bad" ] || echo "failures in:$bad"
echo "$p passed, $f failed, $s skipped"
[ $f = 0 ] && [ $p -gt 0 ]
