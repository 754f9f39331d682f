#!/bin/sh
# tokenize.sh -- raw text to shards: what comes out, what is refused, what survives.
. tests/cli/lib.sh
T="$BIN/tokenize --quiet"
corpus "$tmp/corpus.jsonl"
V="tokenize.vocab_size=400"

# ---- the good way
run $T "tokenize.inputs=$tmp/corpus.jsonl" tokenize.out="$tmp/data" tokenize.val_frac=0.1 $V --json
cp "$tmp/.out" "$tmp/result.json"
json "--json prints JSON" "$tmp/result.json"
same "stdout holds one line, the result" "$(wc -l <"$tmp/result.json" | tr -d ' ')" 1
same "--quiet is quiet" "$(cat "$tmp/.err")" ""
json "manifest.json is JSON" "$tmp/data/manifest.json"
expect_out "verify" "ok: 2 shard" $T verify "$tmp/data"
expect_out "stats" "bytes/token" $T stats "$tmp/data"
$T stats "$tmp/data" --json >"$tmp/stats.json"
json "stats --json" "$tmp/stats.json"
$T verify "$tmp/data" --json >"$tmp/v.json"
json "verify --json" "$tmp/v.json"
check "says ok" grep -q '"ok":true,.*"shards":2,' "$tmp/v.json"
$T head "$tmp/data" --docs 3 --tokens 20 --json >"$tmp/h.jsonl"
json "head --json: a line for each document" "$tmp/h.jsonl"
same "three of them" "$(wc -l <"$tmp/h.jsonl" | tr -d ' ')" 3
check "with ids and text" grep -q '"doc":2,.*"ids":\[1,[0-9,]*\],"text":"[A-Z]' "$tmp/h.jsonl"
$T "tokenize.inputs=$tmp/corpus.jsonl" tokenize.out="$tmp/dry" $V --dry-run --json >"$tmp/d.json"
json "--dry-run --json" "$tmp/d.json"
check "names files and bytes" grep -q '"files":1,"bytes":[0-9]*,"vocab_size":400,' "$tmp/d.json"
expect_out "head" "train document 0" $T head "$tmp/data" --docs 1
if command -v zstd >/dev/null 2>&1; then
    check "zstd accepts a shard" zstd -qt "$tmp/data/train-00000.tok.zst"
else
    skip "zstd accepts a shard" "no zstd program"
fi
whole=$(tree "$tmp/data")
for n in 1 3; do
    run $T "tokenize.inputs=$tmp/corpus.jsonl" tokenize.out="$tmp/t$n" tokenize.val_frac=0.1 $V --threads $n
    same "the same files with $n threads" "$(tree "$tmp/t$n")" "$whole"
done
gzip -c "$tmp/corpus.jsonl" >"$tmp/corpus.jsonl.gz"
run $T "tokenize.inputs=$tmp/corpus.jsonl.gz" tokenize.out="$tmp/gz" tokenize.val_frac=0.1 $V
check "the same shards from .gz" cmp "$tmp/gz/train-00000.tok.zst" "$tmp/data/train-00000.tok.zst"
cat "$tmp/corpus.jsonl" | "$BIN/tokenize" --quiet tokenize.inputs=- tokenize.out="$tmp/in" \
    tokenize.format=jsonl tokenize.val_frac=0.1 $V >/dev/null 2>"$tmp/.err"
same "the same documents from stdin" "$($T head "$tmp/in" --docs 100)" "$($T head "$tmp/data" --docs 100)"
"$BIN/tokenize" --quiet tokenize.inputs=- tokenize.out="$tmp/in2" tokenize.val_frac=0.1 $V <"$tmp/corpus.jsonl" >/dev/null 2>"$tmp/.err"
same "JSON lines are seen to be such" "$($T head "$tmp/in2" --docs 100)" "$($T head "$tmp/data" --docs 100)"
expect_out "--dry-run" "to be trained: 400 pieces" $T "tokenize.inputs=$tmp/corpus.jsonl" \
    tokenize.out="$tmp/dry" $V --dry-run
absent "--dry-run writes nothing" "$tmp/dry"

# ---- finished and foreign folders
again="$T tokenize.inputs=$tmp/corpus.jsonl tokenize.out=$tmp/data tokenize.val_frac=0.1 $V"
expect "a finished folder" 2 "holds a finished data set" $again
check "--if-done=skip" $again --if-done=skip
same "both leave it as it was" "$(tree "$tmp/data")" "$whole"
check "--if-done=redo" $again --if-done=redo
same "redo makes the same again" "$(tree "$tmp/data")" "$whole"
expect "--if-done=what" 2 "wants fail, skip or redo" $again --if-done=what
expect "--if-done=skip names what changed since" 0 "data: kept.*other settings .tokenize.vocab_size, inputs, tokenize.min_bytes.;" \
    $T "tokenize.inputs=[$tmp/corpus.jsonl, $tmp/corpus.jsonl.gz]" tokenize.out="$tmp/data" tokenize.val_frac=0.1 \
    tokenize.vocab_size=500 tokenize.min_bytes=3 --if-done=skip
same "and leaves it" "$(tree "$tmp/data")" "$whole"
expect "--if-done=skip with these settings" 0 "" $again --if-done=skip
same "has nothing to say" "$(cat "$tmp/.err")" ""
cp -r "$tmp/data" "$tmp/begun"; rm "$tmp/begun/manifest.json"
expect "a folder begun with other settings" 2 "another configuration" $T \
    "tokenize.inputs=$tmp/corpus.jsonl" tokenize.out="$tmp/begun" tokenize.vocab_size=500 tokenize.val_frac=0.1
check "a folder begun with these is completed" $T "tokenize.inputs=$tmp/corpus.jsonl" \
    tokenize.out="$tmp/begun" tokenize.val_frac=0.1 $V
same "and ends as it would have" "$(tree "$tmp/begun")" "$whole"

for held in "run.json a.run" "config.yaml a.run" "config.json a.model" "results.json an.evaluation" \
    "tokenizer.model a.tokenizer.of.something.else"; do
    rm -rf "$tmp/held"; mkdir "$tmp/held"
    echo mine >"$tmp/held/${held% *}"
    for how in fail skip redo; do
        expect "a folder with ${held% *}, --if-done=$how" 2 "held: holds ${held#* } .${held% *}., no data set" \
            $T "tokenize.inputs=$tmp/corpus.jsonl" tokenize.out="$tmp/held" $V --if-done=$how
    done
    expect "and a dry run of it" 2 "held: holds ${held#* }" \
        $T "tokenize.inputs=$tmp/corpus.jsonl" tokenize.out="$tmp/held" $V --dry-run
    same "which stays, alone" "$(ls -A "$tmp/held"; cat "$tmp/held/${held% *}")" "${held% *}
mine"
done

# ---- inputs
N="$T tokenize.out=$tmp/new $V"
expect "no inputs" 2 "tokenize.inputs" $N
expect "no folder" 2 "tokenize.out" $T "tokenize.inputs=$tmp/corpus.jsonl" $V
expect "missing file" 2 "none.txt" $N "tokenize.inputs=$tmp/none.txt"
expect "glob that matches nothing" 2 "none" $N "tokenize.inputs=$tmp/none*.txt"
absent "neither makes the folder" "$tmp/new"
: >"$tmp/empty.txt"
expect "empty corpus" 2 "corpus is empty" $N "tokenize.inputs=$tmp/empty.txt"
absent "nothing was written" "$tmp/new"
expect "empty corpus, deep folder" 2 "corpus is empty" $T tokenize.out="$tmp/new/a/b/" $V "tokenize.inputs=$tmp/empty.txt"
absent "nor its parents" "$tmp/new"
mkdir "$tmp/new"; printf mine >"$tmp/new/mine.txt"
expect "empty corpus, with a tokenizer, in a folder in use" 2 "corpus is empty" $N "tokenize.inputs=$tmp/empty.txt" \
    tokenize.tokenizer="$tmp/data/tokenizer.model"
same "what was there stays, alone" "$(ls "$tmp/new")" mine.txt
rm -rf "$tmp/new"
printf 'The one document there is.\n' >"$tmp/one.txt"
expect "the only document is held out" 2 "all 1 document.s. are held out for validation.*tokenize.val_frac=0" \
    $N tokenize.val_inputs="$tmp/one.txt" "tokenize.inputs=$tmp/one.txt"
absent "which writes nothing" "$tmp/new"
printf 'ab ab ab\n' >"$tmp/small.txt"
expect "more pieces than the text supports" 2 "vocab" $N "tokenize.inputs=$tmp/small.txt" tokenize.vocab_size=8000
absent "nothing written" "$tmp/new"
printf '{"text": "good"}\n{"text": "bad \377"}\nnot json\n{"text": 3}\n{"txt": "no field"}\n' >"$tmp/bad.jsonl"
expect "bad lines are rejected, reported" 0 "4 document.s. rejected" $BIN/tokenize \
    tokenize.out="$tmp/bad" "tokenize.inputs=[$tmp/bad.jsonl, $tmp/corpus.jsonl]" $V tokenize.val_frac=0.1
same "each named with its line" "$(grep -c . "$tmp/bad/rejected.jsonl")" 4
json "the report is JSON" "$tmp/bad/rejected.jsonl"
expect_out "the rest went in" "ok" $T verify "$tmp/bad"
for split in line blank marker; do
    printf 'one\r\ntwo\r\n\r\n<|endoftext|>\r\nthree\r\n' >"$tmp/crlf.txt"
    tr -d '\r' <"$tmp/crlf.txt" >"$tmp/lf.txt"
    for end in crlf lf; do
        $T tokenize.out="$tmp/$end" "tokenize.inputs=$tmp/$end.txt" tokenize.split=$split tokenize.val_frac=0 \
            tokenize.tokenizer="$tmp/data/tokenizer.model" >/dev/null
    done
    same "CRLF, split $split: the tokens of LF" "$($T head "$tmp/crlf")" "$($T head "$tmp/lf")"
    rm -rf "$tmp/crlf" "$tmp/lf"
done
$T tokenize.out="$tmp/crlf" "tokenize.inputs=$tmp/crlf.txt" tokenize.split=file tokenize.val_frac=0 \
    tokenize.tokenizer="$tmp/data/tokenizer.model" >/dev/null
check "split file keeps every CR" sh -c "$T head '$tmp/crlf' --json | grep -q u000d"
printf 'fine line\n\n\302\n' >"$tmp/utf8.txt"
expect "invalid UTF-8 in plain text" 0 "rejected" $BIN/tokenize tokenize.out="$tmp/utf8" \
    "tokenize.inputs=[$tmp/utf8.txt, $tmp/corpus.jsonl]" $V tokenize.val_frac=0.1
{ printf '{"text": "'; head -c 100000000 /dev/zero | tr '\0' 'a'; printf '"}\n'; cat "$tmp/corpus.jsonl"; } >"$tmp/long.jsonl"
expect "a line of 100 MB above max_doc" 0 "1 document.s. rejected" $BIN/tokenize --quiet \
    tokenize.out="$tmp/long" "tokenize.inputs=$tmp/long.jsonl" $V tokenize.max_doc=50MB tokenize.val_frac=0.1
check "is named in the report" grep -q '"line": 1, "reason": "longer than tokenize.max_doc"' "$tmp/long/rejected.jsonl"
rm -rf "$tmp/long"
expect "100 MB without a space" 0 "at most 1048576 can be tokenized" $BIN/tokenize --quiet tokenize.out="$tmp/long" \
    "tokenize.inputs=$tmp/long.jsonl" "tokenize.tokenizer=$tmp/data/tokenizer.model" tokenize.val_frac=0.1
{ printf '{"text": "'; yes 'one day ' | tr -d '\n' | head -c 100000000; printf '"}\n'; } >"$tmp/long.jsonl"
expect_out "a line of 100 MB below max_doc goes in" "." $T "tokenize.tokenizer=$tmp/data/tokenizer.model" \
    tokenize.out="$tmp/long2" "tokenize.inputs=$tmp/long.jsonl" tokenize.val_frac=0.1
expect_out "and is all there" "max [0-9]{7,}" $T stats "$tmp/long2"
rm -rf "$tmp/long" "$tmp/long2" "$tmp/long.jsonl"
head -c 5000 "$tmp/corpus.jsonl.gz" >"$tmp/cut.jsonl.gz"
expect "truncated gzip" 4 "cut.jsonl.gz" $N "tokenize.inputs=$tmp/cut.jsonl.gz"
absent "nothing finished of it" "$tmp/new/manifest.json"
rm -rf "$tmp/new"
expect "missing tokenizer" 2 "none.model" $N "tokenize.inputs=$tmp/corpus.jsonl" "tokenize.tokenizer=$tmp/none.model"
rm -rf "$tmp/new"
expect "a tokenizer that is none" 4 "bad.jsonl" $N "tokenize.inputs=$tmp/corpus.jsonl" "tokenize.tokenizer=$tmp/bad.jsonl"
absent "and nothing is begun with it" "$tmp/new"
head -c 3000 "$tmp/data/tokenizer.model" >"$tmp/cut.model"
mkdir "$tmp/new"; printf mine >"$tmp/new/mine.txt"
expect "a damaged tokenizer, in a folder in use" 4 "cut.model" $N "tokenize.inputs=$tmp/corpus.jsonl" "tokenize.tokenizer=$tmp/cut.model"
same "what was there stays, alone, again" "$(ls -A "$tmp/new")" mine.txt
rm -rf "$tmp/new"

# ---- damage
for f in train-00000.tok.zst val-00000.tok.zst tokenizer.model; do
    cp -r "$tmp/data" "$tmp/hurt"
    flip "$tmp/hurt/$f" "$(($(wc -c <"$tmp/hurt/$f") / 2))"
    expect "one flipped bit in $f" 4 "$f" $T verify "$tmp/hurt"
    rm -rf "$tmp/hurt"
done
for f in manifest.json train-00000.tok.zst; do
    cp -r "$tmp/data" "$tmp/hurt"
    head -c "$(($(wc -c <"$tmp/data/$f") * 3 / 4))" "$tmp/data/$f" >"$tmp/hurt/$f"
    expect "truncated $f" 4 "$f" $T verify "$tmp/hurt"
    rm "$tmp/hurt/$f"
    expect "$f gone" 4 "$f" $T verify "$tmp/hurt"
    rm -rf "$tmp/hurt"
done
expect "verify of no folder" 2 "none" $T verify "$tmp/none"
expect "unknown command" 2 "unknown command 'verfy'" $T verfy "$tmp/data"

# ---- folders that cannot be written, or are taken
expect "a folder below a file" 1 "empty.txt" $T "tokenize.inputs=$tmp/corpus.jsonl" tokenize.out="$tmp/empty.txt/x" $V
expect "a folder in /proc" 1 "/proc/chimera" $T "tokenize.inputs=$tmp/corpus.jsonl" tokenize.out=/proc/chimera $V
denied "a folder where we may not write" 1 "$tmp/ro" tokenize "tokenize.inputs=$tmp/corpus.jsonl" tokenize.out="$tmp/ro/x" $V
denied "an input that we may not read" 2 "$tmp/secret" tokenize "tokenize.inputs=$tmp/secret" tokenize.out="$tmp/denied" $V
denied "a tokenizer that we may not read" 2 "$tmp/secret" tokenize "tokenize.inputs=$tmp/corpus.jsonl" \
    tokenize.tokenizer="$tmp/secret" --dry-run tokenize.out="$tmp/ro/x" $V
mkdir "$tmp/busy"
exec 8<"$tmp/busy"
if flock -n 8 2>/dev/null; then
    expect "a folder in use" 2 "in use by another process" $T "tokenize.inputs=$tmp/corpus.jsonl" tokenize.out="$tmp/busy" $V
    same "stays untouched" "$(ls "$tmp/busy")" ""
else
    skip "a folder in use" "no flock program"
fi
exec 8<&-
disk_full "tokenize" "$tmp/nospc" $T "tokenize.inputs=$tmp/corpus.jsonl" tokenize.out="$tmp/nospc" tokenize.val_frac=0.1 $V
check "and the folder is completed when there is room" $T "tokenize.inputs=$tmp/corpus.jsonl" tokenize.out="$tmp/nospc" tokenize.val_frac=0.1 $V
same "with the files it should have" "$(tree "$tmp/nospc")" "$whole"

# ---- signals
corpus "$tmp/more.jsonl" 20000
"$BIN/tokenize" "tokenize.inputs=$tmp/more.jsonl" tokenize.out="$tmp/sig" tokenize.shard_tokens=20000 $V \
    --threads 1 >"$tmp/sig.out" 2>"$tmp/sig.err" &
pid=$!
for _ in $(seq 200); do [ -e "$tmp/sig/train-00000.tok.zst" ] && break; sleep 0.05; done
kill -INT $pid
wait $pid
same "SIGINT: exit 130" "$?" 130
check "SIGINT: what happens is said" grep -q "^stopping; finished shards stay; once more" "$tmp/sig.err"
absent "SIGINT: no manifest" "$tmp/sig/manifest.json"
check "going on after SIGINT" $T "tokenize.inputs=$tmp/more.jsonl" tokenize.out="$tmp/sig" tokenize.shard_tokens=20000 $V
expect_out "gives a whole data set" "ok" $T verify "$tmp/sig"
# ---- what is made replaces nothing that is read
before=$(tree "$tmp/data")
expect "over its own tokenizer" 2 "tokenize.out would replace the tokenizer" $T "tokenize.inputs=$tmp/corpus.jsonl" tokenize.out="$tmp/data" \
    tokenize.tokenizer="$tmp/data" --if-done=redo
expect "over an input" 2 "tokenize.out would replace the input" $T "tokenize.inputs=$tmp/corpus.jsonl" tokenize.out="$tmp/corpus.jsonl" $V
same "both stay" "$(tree "$tmp/data") $(head -c 1 "$tmp/corpus.jsonl")" "$before {"
finish
