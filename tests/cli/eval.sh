#!/bin/sh
# eval.sh -- scoring: what it prints, what it refuses.
. tests/cli/lib.sh
model
E="$BIN/eval --threads 1 --quiet"
"$BIN/world" --seed 9 --count 20 --format txt >"$tmp/text.txt"
"$BIN/world" --seed 9 --count 20 >"$tmp/text.jsonl"

expect_out "shards" "bits per byte +[0-9.]+ \+/-" $E --model "$M" --shards "$tmp/data"
expect_out "text" "word perplexity +[0-9.]+" $E --model "$M" --text "$tmp/text.txt"
printf '\n\n\n\n\n\n\n\n' >"$tmp/breaks.txt"
expect_out "a text without words has no word perplexity" "words 0 .*bits per byte +[0-9.]+[^a-z]*.no stderr: one document. token perplexity" \
    $E --model "$M" --text "$tmp/breaks.txt"
head -1 "$tmp/text.jsonl" >"$tmp/one.jsonl"
expect_out "one document" "bits per byte +[0-9.]+ +.no stderr: one document." $E --model "$M" --text "$tmp/one.jsonl"
expect_out "JSON lines" "documents 20 " $E --model "$M" --text "$tmp/text.jsonl"
expect_out "eval.limit" "documents 3 " $E --model "$M" --text "$tmp/text.jsonl" eval.limit=3
expect_out "llama-perplexity's mode" "\[1\][0-9.]+,.*Final estimate: PPL = " $E --model "$M" \
    --text "$tmp/text.txt" eval.mode=llama eval.context=64
tr -d '"\\' <"$tmp/text.txt" | grep . >"$tmp/lines.txt"
sed 's/.*/{"id":1,"text":"&"}/' "$tmp/lines.txt" >"$tmp/lines.jsonl"
gzip -c "$tmp/lines.jsonl" >"$tmp/lines.jsonl.gz"
llama() { $E --model "$M" --text "$1" eval.mode=llama eval.context=64 | tail -1; }
for e in lines.jsonl lines.jsonl.gz; do
    same "which takes $e for the text it holds" "$(llama "$tmp/$e")" "$(llama "$tmp/lines.txt")"
done
printf 'One day \377' >"$tmp/bad.txt"
expect "no text at all" 4 "bad.txt: invalid UTF-8 at byte 8" $E --model "$M" --text "$tmp/bad.txt" eval.mode=llama eval.context=64
$E --model "$M" --shards "$tmp/data" --json --out "$tmp/r.json" >"$tmp/s.json" 2>"$tmp/.err"
json "--json" "$tmp/s.json"
json "--out" "$tmp/r.json"
same "--quiet is quiet" "$(cat "$tmp/.err")" ""
$BIN/eval --quiet --threads 3 --model "$M" --shards "$tmp/data" --json >"$tmp/t.json"
same "the same digits with 3 threads" "$(sed 's/"kernels":"[^"]*",//' "$tmp/t.json")" \
    "$(sed 's/"kernels":"[^"]*",//' "$tmp/s.json")"
gzip -c "$tmp/text.jsonl" >"$tmp/text.jsonl.gz"
same "the same from .gz" "$($E --model "$M" --text "$tmp/text.jsonl.gz")" "$($E --model "$M" --text "$tmp/text.jsonl")"

# ---- a signal: a part would pass for the whole
"$BIN/world" --seed 9 --count 20000 >"$tmp/many.jsonl"
"$BIN/world" --seed 9 --count 20000 --format txt >"$tmp/many.txt"
for what in many.jsonl many.txt "many.txt eval.mode=llama eval.context=64"; do
    # shellcheck disable=SC2086
    $E --model "$M" --out "$tmp/ev.json" --text $tmp/$what >"$tmp/cut.out" 2>"$tmp/cut.err" &
    pid=$!
    sleep 0.7
    kill -TERM $pid; wait $pid
    same "interrupted, $what: dies of the signal" $? 143
    check "says that there is no result" grep -q "interrupted before the end of the text: there is no result" "$tmp/cut.err"
    same "prints none" "$(grep -cE 'bits per byte|PPL' "$tmp/cut.out")" 0
    absent "writes none" "$tmp/ev.json"
done

# ---- refusals
expect "no model" 2 "--model" $E --text "$tmp/text.txt"
expect "missing model" 2 "none" $E --model "$tmp/none" --text "$tmp/text.txt"
expect "no text" 2 "--text" $E --model "$M"
expect "missing text" 2 "none.txt" $E --model "$M" --text "$tmp/none.txt"
: >"$tmp/empty.txt"
expect "empty text" 2 "no document" $E --model "$M" --text "$tmp/empty.txt"
expect "empty text, llama's way" 2 "no text|chunk|token" $E --model "$M" --text "$tmp/empty.txt" eval.mode=llama
printf 'ok\n\377\376\n' >"$tmp/bad.txt"
expect "text that is no UTF-8" 4 "bad.txt.*UTF-8 at byte 3" $E --model "$M" --text "$tmp/bad.txt"
expect "the same, llama's way" 4 "bad.txt.*UTF-8" $E --model "$M" --text "$tmp/bad.txt" eval.mode=llama
printf '{"text": "fine"}\n{"text": oops}\n' >"$tmp/bad.jsonl"
expect "a broken line of JSON" 4 "bad.jsonl:2" $E --model "$M" --text "$tmp/bad.jsonl"
expect "a field that is not there" 4 "text.jsonl:1.*'?body" $E --model "$M" --text "$tmp/text.jsonl" eval.field=body
expect "stride beyond the window" 2 "eval.stride" $E --model "$M" --text "$tmp/text.txt" eval.context=32 eval.stride=64
shards "$tmp/other" 420
expect "another tokenizer's shards" 4 "tokenizer" $E --model "$M" --shards "$tmp/other"
cp -r "$tmp/data" "$tmp/hurt"
flip "$tmp/hurt/val-00000.tok.zst" "$(($(wc -c <"$tmp/data/val-00000.tok.zst") / 2))"
expect "a shard with one flipped bit" 4 "val-00000.tok.zst" $E --model "$M" --shards "$tmp/hurt"
expect "results where we cannot write" 1 "empty.txt" $E --model "$M" --text "$tmp/text.txt" --out "$tmp/empty.txt/r.json"
echo precious >"$tmp/README.md"
expect "--out on a file of another kind" 2 "README.md: is not the result of an evaluation; it stays" \
    $E --model "$M" --text "$tmp/text.txt" --out "$tmp/README.md"
expect "llama's way too" 2 "README.md: is not the result" \
    $E --model "$M" --text "$tmp/text.txt" --out "$tmp/README.md" eval.mode=llama eval.context=64
same "it is untouched" "$(cat "$tmp/README.md")" precious
expect "--out on a folder" 2 "data: is no file" $E --model "$M" --text "$tmp/text.txt" --out "$tmp/data"
check "--out on a result" $E --model "$M" --shards "$tmp/data" --out "$tmp/r.json"
cp "$tmp/r.json" "$tmp/old.json"
DISK_FULL_BYTES=10 disk_full "results" "$tmp" $E --model "$M" --text "$tmp/text.txt" --out "$tmp/old.json"
same "results that were there stay" "$(cat "$tmp/old.json")" "$(cat "$tmp/r.json")"
expect "results to a full stdout" 7 "standard output" sh -c "$E --model $M --text $tmp/text.txt >/dev/full"
expect_out "--dry-run looks, and scores nothing" "parameters +49670" $E --model "$M" --text "$tmp/text.txt" --dry-run
$E --model "$M" --text "$tmp/text.txt" --dry-run --json >"$tmp/plan.json"
json "--dry-run --json" "$tmp/plan.json"
check "has the numbers" grep -q '"parameters":49670,' "$tmp/plan.json"
expect_out "--dry-run again" "parameters" $E --model "$M" --text "$tmp/text.txt" --dry-run
same "--dry-run: no result" "$(grep -c bits "$tmp/.out")" 0
expect "--dry-run: missing text" 2 "none.txt" $E --model "$M" --text "$tmp/none.txt" --dry-run
denied "text we may not read" 2 "secret" eval --quiet --model "$M" --text "$tmp/secret"
denied "results where we may not write" 1 "ro/r.json" eval --quiet --model "$M" --text "$tmp/text.txt" --out "$tmp/ro/r.json"
poor 100 "a model that does not fit" 7 "latest: the model as floats takes [0-9.]+ KiB of memory and 100 KiB can be had" \
    $E --model "$M" --text "$tmp/text.txt"
poor 210 "its activations" 7 "scoring takes [0-9.]+ KiB of memory and 210 KiB can be had: shorter rows take less .eval.context" \
    $E --model "$M" --text "$tmp/text.txt"
for kind in choice sums; do
    poor 210 "those of a task ($kind)" 7 "takes [0-9.]+ [KM]iB of memory and 210 KiB can be had: " \
        $E --model "$M" --tasks "tests/eval/$kind.yaml" --out "$tmp/poor-$kind"
done
# What was free at first and is gone when it is wanted.
for k in 1 2 3 4 5 6; do
    poor 100 "memory goes after $k looks at it" '[07]' "" env MEMINFO_AFTER=$k \
        $E --model "$M" --tasks "tests/eval/sums.yaml" --out "$tmp/gone-sums"
    cat "$tmp/.err" >>"$tmp/gone"
done
for what in "what is kept of the texts being written" "writing texts"; do
    check "$what: asked for" grep -q "$what takes .* of memory and 100 KiB can be had" "$tmp/gone"
done
absent "no result of what was not done" "$tmp/poor-choice/results.json" "$tmp/poor-sums/results.json"
# ---- results replace nothing that is read
for in in "$tmp/text.txt" "$M" "$M/model.safetensors"; do
    before=$(tree "$M")
    expect "--out over ${in##*/}" 2 "would replace the (model|text)" $E --model "$M" --text "$tmp/text.txt" --out "$in"
    same "which stays" "$(tree "$M")" "$before"
done
expect "tasks into the model's folder" 2 "--out would replace the model" $E --model "$M" --tasks tests/eval/choice.yaml --out "$M"
finish
