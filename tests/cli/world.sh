#!/bin/sh
# world.sh -- the corpus program and the n-gram baseline from the command line.
. tests/cli/lib.sh
w=$BIN/world

check "stories into a file" $w --count 50 --out "$tmp/a.jsonl"
check "the same again" $w --count 50 --out "$tmp/b.jsonl"
check "same seed, same bytes" cmp "$tmp/a.jsonl" "$tmp/b.jsonl"
expect_out "its own stories parse and are true" 'parse 50 \(100.0%\).*consistent 50 \(100.0%\)' \
    $w check "$tmp/a.jsonl"
check "plain text" $w --count 50 --format txt --split test --out "$tmp/t.txt"
expect_out "plain text is checked too" 'consistent 50 ' $w check "$tmp/t.txt"
printf 'Colourless green ideas sleep furiously.\n' >"$tmp/no.txt"
expect_out "other text does not parse" 'parse 0 \(0.0%\)' $w check "$tmp/no.txt"
for kind in instructions preferences questions eval; do
    expect_out "$kind" '"skill":' $w --kind $kind --count 20
done
check "asked for bytes" $w --bytes 100k --out "$tmp/c.jsonl"
expect_out "about that many" '^100[0-9]{3} ' sh -c "wc -c <$tmp/c.jsonl"

expect_out "--version" "^chimera-world [0-9]+\.[0-9]+" $w --version
check "CRLF is no part of a text" sh -c "sed 's/\$/\r/' '$tmp/t.txt' | $w check - --least 100"
if terminal; then
    script -qec "$w; echo code \$?" /dev/null >"$tmp/tty" 2>&1 </dev/null
    check "a terminal is not flooded" grep -q "would write 1000000 bytes to the terminal" "$tmp/tty"
    check "but told how" grep -q "code 2" "$tmp/tty"
    script -qec "$w --count 2" /dev/null >"$tmp/tty" 2>&1 </dev/null
    same "what is asked for comes, on a terminal too" "$(grep -c '"text"' "$tmp/tty")" 2
else
    skip "world on a terminal" "no script program, or no terminal for it"
fi
expect "an unknown kind" 2 "kind poems: want stories" $w --kind poems
expect "an unknown split" 2 "split dev: want train" $w --split dev
expect "an unknown option" 2 "unknown option '--sed'" $w --sed 1
expect "a bad number" 2 "not a fitting number" $w --count none
expect "a missing value" 2 "a value is wanted" $w --seed
expect "a folder that is not there" 1 "no-such" $w --count 1 --out "$tmp/no-such/x.jsonl"
expect "a missing file to check" 2 "No such file" $w check "$tmp/none.jsonl"
: >"$tmp/empty.txt"
expect "nothing to check" 4 "no texts in it" $w check "$tmp/empty.txt"

check "val text" $w --count 50 --format txt --split val --out "$tmp/v.txt"
expect_out "the n-gram baseline on text" 'val/bpb [0-9]' \
    $BIN/ngram --text "$tmp/t.txt" "$tmp/v.txt" --order 5
expect "ngram without input" 2 "one of --shards and --text" $BIN/ngram
expect "ngram on no text" 2 "none.txt.*No such file" $BIN/ngram --text "$tmp/none.txt" "$tmp/v.txt"
expect "ngram on no shards" 2 "No such file" $BIN/ngram --shards "$tmp/none"
finish
