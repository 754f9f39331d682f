#!/bin/sh
# keys.sh -- every configuration key is read somewhere outside core/conf: a key that nobody
# reads is a lie.  A key section.name counts as used where a file that knows the section's
# struct (cm_SECTION_conf, or a cm_conf and the field `.section`) has the field .name.
set -u
p=0 f=0
all=$(git ls-files 'core/*.c' 'core/*.h' 'eval/*.[ch]' 'tools/*.c' | grep -v '^core/conf/')
for def in core/conf/*.def; do
    section=$(sed -nE 's/^SECTION\(([a-z_]+),.*/\1/p' "$def")
    [ -n "$section" ] || continue
    # shellcheck disable=SC2086
    files=$(grep -lE "cm_${section}_conf|[.>]$section\b" $all)
    [ -n "$files" ] || { echo "FAIL section $section: no file knows it"; f=$((f + 1)); continue; }
    for key in $(sed -nE 's/^(KEY\([a-z0-9]+, |ENUM\()([a-z0-9_]+),.*/\2/p' "$def"); do
        # shellcheck disable=SC2086
        if grep -qE "(\.|->)$key\b" $files; then p=$((p + 1))
        else f=$((f + 1)); echo "FAIL $def: nobody reads $section.$key"; fi
    done
done
echo "$p passed, $f failed, 0 skipped"
[ $f = 0 ] && [ $p -gt 0 ]
