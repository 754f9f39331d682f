#!/bin/sh
# docs.sh -- generated documents are as the tables say; links and commands in docs exist.
set -u
p=0 f=0
tmp=$(mktemp)
trap 'rm -f "$tmp"' EXIT
same() { # FILE COMMAND...
    file=$1; shift
    "$@" >"$tmp" 2>/dev/null
    if cmp -s "$tmp" "$file"; then p=$((p + 1)); echo "ok   $file"
    else f=$((f + 1)); echo "FAIL $file is not what the tables say: run make docs"; fi
}
same docs/config.md build/bin/eval --help=markdown
same docs/exit-codes.md build/bin/eval --help=exit-markdown
make -s build/release/test/docs >/dev/null
same docs/ops.md build/release/test/docs
metrics=$tmp-METRICS.md # the table in docs/METRICS.md
sed -n '/^<!-- eval.results.metrics.def/,/^<!-- end -->/{/^|/p}' docs/METRICS.md >"$metrics"
same "$metrics" build/release/test/docs metrics
rm -f "$metrics"
make -s build/bench/tables >/dev/null
same docs/BENCHMARKS.md build/bench/tables docs/BENCHMARKS.md
for doc in README.md CONTRIBUTING.md docs/*.md docs/studies/*.md; do
    [ -f "$doc" ] || continue
    miss=$(grep -oE '\b(core|tools|eval|tests|docs|configs|data|bench)/[A-Za-z0-9_./-]*[A-Za-z0-9_]\.(c|h|md|sh|def|yaml|py|inc|mjs)\b' "$doc" |
        sort -u | while read -r path; do [ -e "$path" ] || echo "$path"; done |
        grep -vE 'NAME|SECTION|op_scale' | tr '\n' ' ')
    if [ -z "$miss" ]; then p=$((p + 1)); else f=$((f + 1)); echo "FAIL $doc names missing files: $miss"; fi
done
echo "$p passed, $f failed, 0 skipped"
[ $f = 0 ]
