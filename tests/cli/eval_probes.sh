#!/bin/sh
# eval_probes.sh -- probes and diagnostics of eval: what they print and leave, what they refuse.
. tests/cli/lib.sh
model
E="$BIN/eval --threads 1 --quiet"
cat >"$tmp/probes.yaml" <<'END'
task: {kind: mqar, lengths: [16, 32], pairs: [2, 4], items: 4}
END
cat >"$tmp/needles.yaml" <<'END'
task: {kind: needle, lengths: [150], depths: [0, 1], items: 3}
END
cat >"$tmp/copies.yaml" <<'END'
task: {kind: copy, blocks: [8], items: 3}
END
cat >"$tmp/book.yaml" <<'END'
task: {kind: phonebook, entries: [3], items: 3}
END
"$BIN/world" --seed 9 --count 12 --format txt >"$tmp/text.txt"
cat >"$tmp/curve.yaml" <<END
task: {kind: curve, data: [$tmp/text.txt], lengths: [200], join: true}
END
cat >"$tmp/degen.yaml" <<END
task: {kind: degen, data: [$tmp/text.txt], prompt_tokens: 8, max_new_tokens: 24}
END
all="$tmp/probes.yaml,$tmp/needles.yaml,$tmp/copies.yaml,$tmp/book.yaml,$tmp/curve.yaml,$tmp/degen.yaml"
expect_out "all probes" "probes +acc .*needles +acc .*curve +ppl_token .*bits_per_byte .*degen +seq_rep_4" \
    $E --model "$M" --tasks "$all" --out "$tmp/a"
$BIN/eval --threads 2 --quiet --model "$M" --tasks "$all" --out "$tmp/b" eval.batch=3 >/dev/null
items() { zstd -dcq "$1/items.jsonl.zst"; }
same "the same items with 2 threads and another batch" "$(items "$tmp/a" | sha256sum)" \
    "$(items "$tmp/b" | sha256sum)"
json "results.json" "$tmp/a/results.json"
for word in '"slices":{"pairs=2,length=16":{' '"gap=2-3":{' '"depth=0,length=150":{"acc":' \
    '"copy=1":{' '"position=128-255":{' '"bins":\[{"lo":0' '"calibration":{"ece":' '"human":{'; do
    same "results.json has $word" "$(grep -c -- "$word" "$tmp/a/results.json")" 1
done
sed 's/items: 4/items: 4, seed: 7/' "$tmp/probes.yaml" >"$tmp/other.yaml"
expect_out "--show" "pairs=2,length=16/0" $E --model "$M" --tasks "$tmp/probes.yaml" --show 1
expect "a grid that is no number" 2 "bad.yaml:1:.*task.lengths: 'long' is no number" \
    sh -c "echo 'task: {kind: mqar, lengths: [long]}' >$tmp/bad.yaml; $E --model $M --tasks $tmp/bad.yaml"
expect "rows longer than the text" 4 "no text of 90000 tokens" \
    sh -c "echo 'task: {kind: curve, data: [$tmp/text.txt], lengths: [90000], join: true}' >$tmp/bad.yaml
           $E --model $M --tasks $tmp/bad.yaml --out $tmp/none"

# ---- the card
"$BIN/quantize" --quiet --model "$M" --type q8_0 --out "$tmp/q8.gguf" >/dev/null
expect_out "card" "divergence from the reference .*same most likely token" $E --model "$tmp/q8.gguf" \
    --reference "$M" --text "$tmp/text.txt" --out "$tmp/card" eval.context=64
expect_out "card, llama-perplexity's positions" "31 positions in 1 rows|[0-9]+ positions in [0-9]+ rows" \
    $E --model "$tmp/q8.gguf" --reference "$M" --text "$tmp/text.txt" --out "$tmp/card2" \
    eval.context=64 eval.mode=llama
same "positions of every row are kept" "$(grep -c '"kl_histogram":\[' "$tmp/card/results.json")" 1
expect_out "a model with itself" "divergence from the reference +0 .*same most likely token +100 " $E \
    --model "$M" --reference "$M" --text "$tmp/text.txt" --out "$tmp/card3" eval.context=64
expect "card without a folder" 2 "--out" $E --model "$M" --reference "$M" --text "$tmp/text.txt"
expect "card without text" 2 "--text" $E --model "$M" --reference "$M" --out "$tmp/card4"
expect "no reference there" "[124]" "none.gguf" $E --model "$M" --reference "$tmp/none.gguf" \
    --text "$tmp/text.txt" --out "$tmp/card4"
expect "another vocabulary" 4 "vocabulary of 320" $E --model "$M" \
    --reference tests/golden/gguf/moe.f32.gguf --text "$tmp/text.txt" --out "$tmp/card4"

# The reference's own card is the baseline: divergence 0.
expect_out "regress of two cards" "^PASS.*card kl +0 " $BIN/regress --quiet "$tmp/card3" "$tmp/card"

# ---- contamination
head -c 300 "$tmp/text.txt" | tr '\n' ' ' >"$tmp/seen.txt"
cat >"$tmp/doc.jsonl" <<END
{"id":"seen","text":"$(sed 's/"/ /g' "$tmp/seen.txt")"}
{"id":"new","text":"zebra quartz vixen jumps nimbly over eighteen lazy waltzing fjords near krypton bays"}
{"id":"short","text":"far too short"}
END
cat >"$tmp/doc.yaml" <<END
task: {kind: text, data: [$tmp/doc.jsonl]}
END
expect_out "contamination by a text" "doc +ppl_token .*bits_per_byte" $E --model "$M" --tasks "$tmp/doc.yaml" \
    --contamination "$tmp/text.txt" --out "$tmp/dirty"
same "seen" "$(items "$tmp/dirty" | grep '"id":"seen"' | grep -c '"contaminated":true')" 1
same "not seen" "$(items "$tmp/dirty" | grep '"id":"new"' | grep -c '"hits":0,"coverage":0,')" 1
same "too short to tell" "$(items "$tmp/dirty" | grep '"id":"short"' | grep -c '"contamination":{"words":3,"grams":0,')" 1
same "clean and contaminated apart" "$(grep -c '"contamination":{"clean":{"n":1,.*"contaminated":{"n":1,' "$tmp/dirty/results.json")" 1
sed -n 1p "$tmp/corpus.jsonl" >"$tmp/first.jsonl"
cat >"$tmp/first.yaml" <<END
task: {kind: text, data: [$tmp/corpus.jsonl]}
END
expect_out "contamination by shards" "contaminated [0-9]+ items, clean [0-9]+, too short to tell [0-9]+" $E --model "$M" --tasks "$tmp/first.yaml" eval.limit=40 \
    --contamination "$tmp/data" --out "$tmp/shards"
same "training stories are found whole" \
    "$(items "$tmp/shards" | grep -c '"coverage":1,.*"token_coverage":1}')" \
    "$(items "$tmp/shards" | grep -c '"contaminated":true,"token_coverage":1}')"
same "most of them" "$([ "$(items "$tmp/shards" | grep -c '"coverage":1,')" -gt 25 ] && echo yes)" yes
expect "contamination of nothing" 2 "--tasks" $E --model "$M" --text "$tmp/text.txt" --contamination "$tmp/data"
expect "a corpus that is not there" "[124]" "none.txt" $E --model "$M" --tasks "$tmp/doc.yaml" \
    --contamination "$tmp/none.txt" --out "$tmp/dirty2"

printf '{"text":"fine"}\n{"text":1}\n' >"$tmp/bad.ndjson"
gzip -c "$tmp/bad.ndjson" >"$tmp/bad.jsonl.gz"
for e in ndjson jsonl.gz; do
    expect "a corpus of JSON lines, .$e" 4 "bad.$e:2: " $E --model "$M" --tasks "$tmp/doc.yaml" \
        --contamination "$tmp/bad.$e" --out "$tmp/dirty3"
done
: >"$tmp/none.jsonl"
printf '{"text":""}\n' >"$tmp/blank.jsonl"
for f in none.jsonl blank.jsonl; do
    expect "a corpus without text, $f" 4 "$f: there is no text in it" $E --model "$M" --tasks "$tmp/doc.yaml" \
        --contamination "$tmp/$f" --out "$tmp/dirty3"
done
printf 'fine\nnot \377 fine\n' >"$tmp/bytes.txt"
expect "a corpus that is no text" 4 "bytes.txt:2: invalid UTF-8 at byte 4" $E --model "$M" --tasks "$tmp/doc.yaml" \
    --contamination "$tmp/bytes.txt" --out "$tmp/dirty3"

# ---- fertility
printf 'the cat\n\340\244\271\340\245\210 the 42\n' >"$tmp/words.txt"
expect_out "fertility" "words.txt +5 .*latin +3 .*devanagari +1 .*no letters +1 " $E --model "$M" \
    --fertility "$tmp/words.txt"
expect_out "of a tokenizer alone" "words.txt +5 " $E --tokenizer "$tmp/data" --fertility "$tmp/words.txt"
expect_out "of a run" "words.txt +5 " $E --tokenizer "$tmp/runs/tiny" --fertility "$tmp/words.txt"
"$BIN/quantize" --quiet --model "$M" --type f16 --out "$tmp/m.gguf" >/dev/null
expect_out "of a GGUF file" "words.txt +5 " $E --tokenizer "$tmp/m.gguf" --fertility "$tmp/words.txt"
$E --tokenizer "$tmp/data/tokenizer.model" --fertility "$tmp/words.txt" --json >"$tmp/f.json"
json "as JSON" "$tmp/f.json"
same "byte pieces" "$(grep -c '"devanagari":{"words":1,"tokens":[67],' "$tmp/f.json")" 1
expect "no tokenizer" "[124]" "none" $E --tokenizer "$tmp/none" --fertility "$tmp/words.txt"
expect "no words" 2 "no words" sh -c ": >$tmp/no.txt; $E --model $M --fertility $tmp/no.txt"

# ---- retrieval
cat >"$tmp/rag.jsonl" <<'END'
{"id":"1","retrieved":[{"text":"The cat sat.","relevant":1},{"text":"Dogs."}],"answer":"The cat.","reference":"The cat"}
{"id":"2","retrieved":[{"text":"Dogs."},{"text":"A bird sang.","relevant":1}],"answer":"A fish.","reference":"A bird"}
END
expect_out "retrieval" "mrr +0.7500 .*outcomes|right +1 of 2 .*not_used +1 of 2" $E --retrieval "$tmp/rag.jsonl" --out "$tmp/rag"
json "its result" "$tmp/rag/results.json"
same "intervals" "$(grep -c '"intervals":{"recall_at_k"' "$tmp/rag/results.json")" 1
rag() { # FILE, share of questions (in tenths) whose passage comes first
    i=0
    while [ $i -lt 120 ]; do
        hit='{"text":"here it is","relevant":1}' miss='{"text":"nothing"}'
        [ $((i * 7 % 10)) -lt "$2" ] && first=$hit second=$miss || first=$miss second=$hit
        echo "{\"id\":\"$i\",\"retrieved\":[$first,$second],\"n_relevant\":1,\"answer\":\"here\"}"
        i=$((i + 1))
    done >"$1"
}
rag "$tmp/good.jsonl" 9
rag "$tmp/worse.jsonl" 4
for x in good worse; do $E --retrieval "$tmp/$x.jsonl" --out "$tmp/$x" >/dev/null; done
expect "regress finds the worse pipeline" 3 "" $BIN/regress --quiet "$tmp/good" "$tmp/worse"
expect "and passes the better one" 0 "" $BIN/regress --quiet "$tmp/worse" "$tmp/good"
expect "retrieval without a folder" 2 "--out" $E --retrieval "$tmp/rag.jsonl"
expect "a result that is there" 2 "finished" $E --retrieval "$tmp/rag.jsonl" --out "$tmp/rag"
check "--if-done=redo" $E --retrieval "$tmp/rag.jsonl" --out "$tmp/rag" --if-done redo
head -1 "$tmp/rag.jsonl" >"$tmp/rag1.jsonl"
expect_out "one question has no interval" "mrr +1.0000 +- +1" $E --retrieval "$tmp/rag1.jsonl" --out "$tmp/rag1"
expect_out "--if-done=skip shows it" "mrr +0.7500 .*rag" $E --retrieval "$tmp/rag.jsonl" --out "$tmp/rag" --if-done skip
expect "but not with another k" 2 "or with other settings" $E --retrieval "$tmp/rag.jsonl" --out "$tmp/rag" --if-done skip eval.retrieval_k=3
expect "or of another file" 2 "of another file" $E --retrieval "$tmp/good.jsonl" --out "$tmp/rag" --if-done skip
$E --retrieval "$tmp/rag.jsonl" --out "$tmp/rag" --if-done skip --json >"$tmp/rag.json"
check "--json is results.json" cmp "$tmp/rag.json" "$tmp/rag/results.json"
expect_out "--dry-run of a retrieval" "retrieval +2 items" $E --retrieval "$tmp/rag.jsonl" --out "$tmp/dry" --dry-run
expect_out "--dry-run of a card" "^card +kl +[0-9]+ items" \
    $E --model "$M" --reference "$M" --text "$tmp/text.txt" --out "$tmp/dry" --dry-run
absent "neither writes" "$tmp/dry"
mkdir "$tmp/notes"; echo '{"kind":"other"}' >"$tmp/notes/results.json"
expect "a folder of other things" 2 "notes: holds something that is no evaluation" $E --retrieval "$tmp/rag.jsonl" --out "$tmp/notes" --if-done redo
expect "a line cut in the middle" 4 "cut.jsonl:2" \
    sh -c "head -c 180 $tmp/rag.jsonl >$tmp/cut.jsonl; $E --retrieval $tmp/cut.jsonl --out $tmp/rag2"
finish
