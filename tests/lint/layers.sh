#!/bin/sh
# layers.sh -- a file includes only its own layer and those below (docs/ARCHITECTURE.md).
# Also: every core and eval folder has one public header with its name, nobody reaches into another
# folder's private header, and every source's first line names it.
set -u
order="base conf run tensor io text kern quant op nn model train app stats results compare report harness panel"
p=0 f=0
say() { echo "FAIL $1"; f=$((f + 1)); }
rank() { i=0; for l in $order; do i=$((i + 1)); [ "$l" = "$1" ] && { echo $i; return; }; done; echo 0; }
for dir in core/*/ eval/*/; do
    ls "$dir"*.[ch] >/dev/null 2>&1 || continue # eval/tasks holds YAML
    layer=$(basename "$dir")
    own=$(rank "$layer")
    [ "$own" != 0 ] || { say "$dir is not a layer of: $order"; continue; }
    bad=0
    for file in "$dir"*; do
        for inc in $(sed -n 's/^#include "\([a-z0-9_]*\)\/\([a-z0-9_.]*\)".*/\1\/\2/p' "$file"); do
            to=${inc%%/*} header=${inc##*/}
            r=$(rank "$to")
            if [ "$r" = 0 ] || [ "$r" -gt "$own" ]; then
                say "$file includes $inc, which lies above $layer"; bad=1
            fi
            case $header in *.def) continue ;; esac
            if [ "$to" != "$layer" ] && [ "$header" != "$to.h" ]; then
                say "$file includes $inc, a private header of $to"; bad=1
            fi
        done
        head -1 "$file" | grep -qE "^(/\*|//) $(basename "$file") -- " || {
            say "$file: the first line is not '/* $(basename "$file") -- purpose'"; bad=1; }
    done
    [ -f "$dir$layer.h" ] || ls "$dir"*.c >/dev/null 2>&1 && [ ! -f "$dir$layer.h" ] && {
        say "$dir has no $layer.h"; bad=1; }
    [ $bad = 0 ] && p=$((p + 1))
done
echo "$p passed, $f failed, 0 skipped"
[ $f = 0 ]
