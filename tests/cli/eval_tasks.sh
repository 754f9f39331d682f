#!/bin/sh
# eval_tasks.sh -- tasks from the command line: results, resuming, prompts, refusals.
. tests/cli/lib.sh
model
E="$BIN/eval --threads 1 --quiet --model $M"
T=tests/eval
"$BIN/world" --kind eval --split test --seed 4 --count 300 --out "$tmp/world_eval.jsonl"
all=$T/choice.yaml,$T/letters.yaml,$T/pairs.yaml,$T/cloze.yaml,$T/blank.yaml,$T/contexts.yaml
all=$all,$T/several.yaml,$T/sums.yaml,$T/stories.yaml

# ---- what comes out
expect_out "every form of task" \
    "choice +acc .*12 .*5 groups.*pairs +acc .* 1 tied.*cloze +greedy.*several +acc.*sums.*stories" \
    $E --tasks "$all" --out "$tmp/r"
json "results.json" "$tmp/r/results.json"
zstd -dcq "$tmp/r/items.jsonl.zst" >"$tmp/items.jsonl"
json "items" "$tmp/items.jsonl"
same "an item a line" "$(wc -l <"$tmp/items.jsonl")" 37
same "no partial file is left" "$(ls "$tmp/r" | tr '\n' ' ')" "items.jsonl.zst results.json "
same "the tied pair counts one half" "$(grep '"same/1"' "$tmp/items.jsonl" | sed 's/.*"acc":\([0-9.]*\).*"acc_first":\([0-9.]*\).*/\1 \2/')" "0.5 1"
digits() { sed 's/"perf":{[^}]*}//; s/"time[^,]*,//g' "$1/results.json" | sed 's/"machine":{[^}]*}//; s/"eval.batch":[0-9]*//'; }
for how in "eval.batch=1" "eval.batch=4" "--threads 3" "eval.reuse=false"; do
    $BIN/eval --threads 1 --quiet --model "$M" --tasks "$all" --out "$tmp/b" --if-done=redo $how >/dev/null
    check "the same items: $how" cmp "$tmp/b/items.jsonl.zst" "$tmp/r/items.jsonl.zst"
    same "the same results: $how" "$(digits "$tmp/b")" "$(digits "$tmp/r")"
done
work() { sed 's/.*"tokens_requested":\([0-9]*\),"tokens_computed":\([0-9]*\).*/\1 \2/' "$1/results.json"; }
# shellcheck disable=SC2046
same "beginnings in common are computed once" "$(set -- $(work "$tmp/b") $(work "$tmp/r")
    [ "$2" = "$1" ] && [ "$3" = "$1" ] && [ "$4" -lt $(($3 * 3 / 4)) ] && echo yes)" yes
$E --tasks "$T/stories.yaml,$T/cloze.yaml" --tasks "$T/choice.yaml" --out "$tmp/o" >/dev/null
same "a task alone or in company" "$(zstd -dcq "$tmp/o/items.jsonl.zst" | sort | sha256sum)" \
    "$(grep -E '"task":"(stories|cloze|choice)"' "$tmp/items.jsonl" | sort | sha256sum)"
$E --tasks "$T/choice.yaml" --json --out "$tmp/j" >"$tmp/j.json"
check "--json is results.json" cmp "$tmp/j.json" "$tmp/j/results.json"
expect_out "the world's own tasks" "world_choice +acc .*world_pairs +acc .*world_generate +exact_match" \
    $E --tasks world_choice,world_pairs,world_generate eval.data="$tmp" eval.limit=12 --out "$tmp/w"
expect_out "tasks of the project by name" "blimp +pairs +acc .*gsm8k +generate" $E --list-tasks
expect_out "the same list" "hellaswag +choice" $E --tasks list
expect_out "--dry-run counts" "^choice +choice +12 items" $E --tasks "$T/choice.yaml" --dry-run --out "$tmp/none"
absent "--dry-run writes nothing" "$tmp/none"
expect_out "its place in the run of the checkpoint" "runs/tiny/eval/choice@[0-9a-f]{12}" \
    $E --tasks "$T/choice.yaml"
cp -rL "$M" "$tmp/loose"
expect_out "or in the current folder" "eval-loose/choice@[0-9a-f]{12}" \
    sh -c "cd $tmp && $(pwd)/$BIN/eval --quiet --model loose --tasks $(pwd)/$T/choice.yaml"

# ---- prompts
expect_out "--show" "item en-1, group farm.*<s>Question: What does the hen lay\?.*Answer:\[\[ an egg\]\].*2 of 6.*\[\[ a stone" \
    $E --tasks "$T/choice.yaml" --show 1
expect_out "--show of a generation" "Question: What is 2 plus 3\?.Answer:\[\[up to 12 tokens\]\].*reference: 2 plus 3 is 5" \
    $E --tasks "$T/sums.yaml" --show 1
expect_out "the chat template" "<s><.user.>Question: What does the hen lay\? Answer:<.end.><.assistant.>\[\[an egg\]\]" \
    $E --tasks "$T/choice.yaml" --show 1 eval.chat=true
expect_out "eval.shots" "Q: What do owls do at night\? A: Owls hunt at night. +Q: What falls" \
    $E --tasks "$T/several.yaml" --show 1 eval.shots=1

# ---- answers drawn
sed "s|sums.jsonl|$(pwd)/$T/sums.jsonl|; s/^task:/task:\n  name: drawn\n  chat: true\n  temperature: 1/
    s/shots: 2/shots: 1/; s/Question: {question}/{question}/; /metrics:/d" "$T/sums.yaml" >"$tmp/drawn.yaml"
D="$E --tasks $tmp/drawn.yaml"
expect_out "examples are turns before" "<s><.user.>[^<]*Answer:<.end.><.assistant.>[^<]*<.end.><.user.>[^<]*Answer:<.end.><.assistant.>\[\[up to 12" $D --show 1
expect_out "chat has its metrics" "drawn +exact_match .*parsed .*thought " $D --out "$tmp/d1"
outs() { zstd -dcq "$1/items.jsonl.zst" | grep -o '"out":"[^"]*"'; }
$D --out "$tmp/d2" eval.batch=1 eval.order_seed=7 >/dev/null
same "draws do not depend on company or order" "$(outs "$tmp/d2" | sort)" "$(outs "$tmp/d1" | sort)"
$D --out "$tmp/d3" eval.seed=1 >/dev/null
check "eval.seed draws others" test "$(outs "$tmp/d3")" != "$(outs "$tmp/d1")"
$D --out "$tmp/d4" eval.temperature=0 >/dev/null
check "eval.temperature overrides" test "$(outs "$tmp/d4")" != "$(outs "$tmp/d1")"
expect "other draws are another look at the same thing" "[035]" "" "$BIN/regress" "$tmp/d1" "$tmp/d3"
same "with a win rate" "$("$BIN/regress" "$tmp/d1" "$tmp/d3" | grep -c 'drawn items: [0-9]* worse, [0-9]* better, [0-9]* the same; win rate 0.[0-9]* \[0.[0-9]*, [01].[0-9]*\], ties one half')" 1
"$BIN/regress" "$tmp/d1" "$tmp/d3" --json >"$tmp/win.json"
check "in JSON too" grep -qE '"metric": ?"exact_match".*"win_rate": ?0.[0-9]+, ?"win_lo": ?0' "$tmp/win.json"
expect "another temperature is not" 4 "eval.temperature was -1 and is 0" "$BIN/regress" "$tmp/d1" "$tmp/d4"

# ---- going on
"$BIN/world" --kind eval --split test --seed 8 --count 4000 --out "$tmp/many.jsonl"
sed 's/world_eval/many/; s/^task:/task:\n  name: many/' eval/tasks/world_choice.yaml >"$tmp/many.yaml"
L="$E --tasks $tmp/many.yaml eval.data=$tmp"
$L --out "$tmp/whole" >/dev/null
# A shell's background job ignores SIGINT, so TERM.
$L --out "$tmp/cut" >"$tmp/.out" 2>"$tmp/.err" &
pid=$!
i=0
while [ "$(wc -l 2>/dev/null <"$tmp/cut/items.partial.jsonl" || echo 0)" -lt 40 ] && [ $i -lt 400 ]; do
    i=$((i + 1)); sleep 0.02
done
kill -TERM $pid
wait $pid 2>/dev/null
same "interrupted: dies of the signal" $? 143
kept=$(($(wc -l <"$tmp/cut/items.partial.jsonl") - 1))
same "what was done is kept, and not all" "$([ $kept -ge 30 ] && [ $kept -lt "$(zstd -dcq "$tmp/whole/items.jsonl.zst" | wc -l)" ] && echo yes)" yes
expect "another setting does not go on" 2 "another eval.shots was interrupted here" $L --out "$tmp/cut" eval.shots=1
expect "other tasks do not go on" 2 "other tasks, items or data was interrupted here" $E --tasks "$T/choice.yaml" --out "$tmp/cut"
same "and nothing of it is lost" "$(($(wc -l <"$tmp/cut/items.partial.jsonl") - 1))" $kept
cp -r "$tmp/cut" "$tmp/hurt"
sed -i '5s/"acc":[01]/"acc":0.5/' "$tmp/hurt/items.partial.jsonl"
expect "an edited line does not get in" 4 "items.partial.jsonl:5: not as it was written; delete that line" $L --out "$tmp/hurt"
sed -i 5d "$tmp/hurt/items.partial.jsonl"
check "without it, on it goes" $L --out "$tmp/hurt"
check "to the same items too" cmp "$tmp/hurt/items.jsonl.zst" "$tmp/whole/items.jsonl.zst"
cp -r "$tmp/cut" "$tmp/head"
sed -i '1s/.*/oops/' "$tmp/head/items.partial.jsonl"
expect "a head that is none" 2 "partial.jsonl:1: not the head of an evaluation; .*--if-done=redo" $L --out "$tmp/head"
check "anew with --if-done=redo" $L --out "$tmp/head" --if-done=redo
printf '{"task":"many","id":"torn' >>"$tmp/cut/items.partial.jsonl"
check "the same command goes on" $L --out "$tmp/cut"
check "to the same items" cmp "$tmp/cut/items.jsonl.zst" "$tmp/whole/items.jsonl.zst"
same "and the same results" "$(digits "$tmp/cut")" "$(digits "$tmp/whole")"
expect "a finished result is not redone" 2 "holds a finished evaluation.*--if-done" $L --out "$tmp/cut"
expect_out "--if-done=skip shows it" "many +acc" $L --out "$tmp/cut" --if-done=skip
expect "--if-done=skip, but it is another's" 2 "finished evaluation of other tasks \(no choice\)" \
    $E --tasks "$T/choice.yaml" --out "$tmp/cut" --if-done=skip
expect "--if-done=skip, other numerics" 2 "with another numerics" $L --out "$tmp/cut" --if-done=skip numerics=fast
expect "--if-done=skip, other kernels" 2 "with another kernels" env CHIMERA_KERNELS=ref $L --out "$tmp/cut" --if-done=skip
for how in eval.context=64 eval.shots=1 eval.chat=true; do
    expect "--if-done=skip, other $how" 2 "with another ${how%=*}; name" $L --out "$tmp/cut" --if-done=skip $how
done
cp "$tmp/many.jsonl" "$tmp/many.kept"
sed 's/?"/??"/' "$tmp/many.kept" >"$tmp/many.jsonl"
expect "--if-done=skip, edited data" 2 "other items or data of task many" $L --out "$tmp/cut" --if-done=skip
cp "$tmp/many.kept" "$tmp/many.jsonl"
expect_out "--if-done=skip, as it was" "many +acc" $L --out "$tmp/cut" --if-done=skip
cp -r "$tmp/cut" "$tmp/redo"
$L --out "$tmp/redo" --if-done=redo >"$tmp/.out" 2>"$tmp/.err" &
pid=$!
i=0
while [ "$(wc -l 2>/dev/null <"$tmp/redo/items.partial.jsonl" || echo 0)" -lt 40 ] && [ $i -lt 400 ]; do
    i=$((i + 1)); sleep 0.02
done
kill -KILL $pid
wait $pid 2>/dev/null
same "a redo that is killed leaves the finished result" "$(cat "$tmp/cut/results.json" "$tmp/cut/items.jsonl.zst" | cksum)" \
    "$(cat "$tmp/redo/results.json" "$tmp/redo/items.jsonl.zst" | cksum)"
expect_out "which can be shown" "many +acc" $L --out "$tmp/redo" --if-done=skip
expect "and is not redone unasked" 2 "holds a finished evaluation" $L --out "$tmp/redo"
expect "the redo goes on" 0 "redo: [1-9][0-9]* of [0-9]* items are there already" \
    "$BIN/eval" --threads 1 --model "$M" --tasks "$tmp/many.yaml" eval.data="$tmp" --out "$tmp/redo" --if-done=redo
same "to the same results, and nothing else" "$(digits "$tmp/redo") $(ls "$tmp/redo" | tr '\n' ' ')" "$(digits "$tmp/whole") items.jsonl.zst results.json "
expect_out "--if-done=redo" "many +acc" $L --out "$tmp/cut" --if-done=redo eval.limit=5
expect "--if-done=maybe" 2 "wants fail, skip or redo" $L --if-done=maybe

# ---- refusals
expect "no such task" 2 "no task 'blinp'; did you mean 'blimp'" $E --tasks blinp
expect "no such file" 2 "none.yaml" $E --tasks "$tmp/none.yaml"
expect "no task at all" 2 "names no task" $E --tasks ,
expect "a task twice" 2 "asked for twice" $E --tasks "$T/choice.yaml,$T/choice.yaml"
expect "tasks and text" 2 "without --text" $E --tasks "$T/choice.yaml" --text "$T/stories.txt"
expect "no model" 2 "--model" "$BIN/eval" --tasks "$T/choice.yaml"
expect "missing data" 2 "lambada_openai_lmeval.jsonl.zst: task lambada_openai wants this file.*eval.data" \
    $E --tasks lambada_openai eval.data="$tmp"
task() { printf 'task:\n  kind: choice\n  data: [x.jsonl]\n  prompt: "{q}"\n  choices: [c]\n  gold: g\n%b' "$1" >"$tmp/x.yaml"; printf '%b' "$2" >"$tmp/x.jsonl"; }
good='{"q":"x","c":["a","b"],"g":0}\n'
refuse() { name=$1 want=$2 regex=$3; task "$4" "$5"; expect "$name" "$want" "$regex" $E --tasks "$tmp/x.yaml" --out "$tmp/x.out"; }
refuse "broken YAML" 2 "x.yaml:8:1: error: not valid YAML" '  stop: [a\n' "$good"
refuse "an unknown key" 2 "x.yaml:7:3: error: unknown key 'task.shot'; did you mean 'task.shots'" '  shot: 1\n' "$good"
refuse "a bad type" 2 "x.yaml:7:10: error: task.shots = two" '  shots: two\n' "$good"
refuse "two mistakes, both told" 2 "x.yaml:7:3: error.*x.yaml:8:10: error" '  shot: 1\n  shots: two\n' "$good"
refuse "another section" 2 "x.yaml:8:10: error: eval.limit: a task file has section task alone" 'eval:\n  limit: 3\n' "$good"
refuse "a key of the top level" 2 "x.yaml:7:10: error: threads: a task file has section task alone" 'threads: 2\n' "$good"
refuse "a key that the kind does not have" 2 "x.yaml:7:9: error: task.stop: means nothing to kind choice, which has: .*gold" '  stop: [a]\n' "$good"
echo 'kind: choice' >"$tmp/flat.yaml"
expect "keys without their section" 2 "flat.yaml:1:1: error: unknown key 'kind'; did you mean 'task.kind'" $E --tasks "$tmp/flat.yaml"
: >"$tmp/void.yaml"
expect "an empty task file" 2 "void.yaml: error: task.data: kind choice wants files" $E --tasks "$tmp/void.yaml"
refuse "a key of the task in a row's error" 4 "x.jsonl:1: no field 'g' that says which choice is right .task .*/x.yaml" '' '{"q":"x","c":["a","b"]}\n'
refuse "empty data" 4 "no items in x.jsonl" '' ''
refuse "no answer" 4 "x.jsonl:2: no field 'g'" '' "$good"'{"q":"x","c":["a","b"]}\n'
refuse "no choices" 4 "x.jsonl:1: no field 'c'" '' '{"q":"x","g":0}\n'
refuse "the right choice is none of them" 4 "x.jsonl:1: the right choice is '7'" '' '{"q":"x","c":["a","b"],"g":7}\n'
refuse "an id twice" 4 "x.jsonl:2: id 'i0' was used before .*x.jsonl:1" '  id: "i{g}"\n' "$good$good"
refuse "broken JSON" 4 "x.jsonl:2:1: not valid JSON" '' "$good"'oops\n'
absent "nothing was written" "$tmp/x.out"
printf 'task:\n  kind: pairs\n  data: [s.tsv]\n  group: "{p}"\n  choices: ["{a}", "{b}"]\n' >"$tmp/s.yaml"
{ printf 'p\ta\tb\n'; for p in one two three; do for i in 1 2 3 4; do printf '%s\tgood %s\tbad %s\n' $p $i $i; done; done; } >"$tmp/s.tsv"
expect_out "eval.limit takes some of every paradigm" "s +acc .* 6  primary  3 groups.*worst acc of 3 slices .all in results.json.: (one|two|three) [0-9.]+, " $E --tasks "$tmp/s.yaml" --out "$tmp/s" eval.limit=6
same "slices by group" "$(grep -o '"slices":{"one":{"acc":[0-9.]*,.*"n":2}' "$tmp/s/results.json" | grep -o '"\(one\|two\|three\)":{' | tr -d '":{\n')" onetwothree
cp -r "$tmp/s" "$tmp/edit"
sed -i 's/"eval\/s\/acc":[0-9.]*/"eval\/s\/acc":0.99/' "$tmp/edit/results.json"
expect "an edited flat metric" 4 "results.json says .eval/s/acc. = 0.99 in its metrics, but the items give" \
    $E --tasks "$tmp/s.yaml" --out "$tmp/edit" eval.limit=6 --if-done=skip
same "evenly" "$(zstd -dcq "$tmp/s/items.jsonl.zst" | sed 's/.*"id":"\([0-9]*\)".*/\1/' | tr '\n' ' ')" "0 2 4 6 8 10 "
sed -i 's/{p}/all/' "$tmp/s.yaml"
expect_out "one group: no error, and why" "s +acc +[0-9.]+ +12  primary  no stderr: all items are in one group" $E --tasks "$tmp/s.yaml" --out "$tmp/s1"
task '' "$good"
expect_out "one item: no error, and why" "x +acc +[0-9.]+ +1  primary  no stderr: one item" $E --tasks "$tmp/x.yaml" --out "$tmp/one"
expect "a file in the way" 2 "x.jsonl: is a file" $E --tasks "$tmp/x.yaml" --out "$tmp/x.jsonl"
mkdir "$tmp/mine"; echo precious >"$tmp/mine/notes"
expect "a folder of other things" 2 "mine: holds something that is no evaluation" $E --tasks "$tmp/x.yaml" --out "$tmp/mine"
echo '{"kind":"other"}' >"$tmp/mine/results.json"
expect "even with redo" 2 "mine: holds something that is no" $E --tasks "$tmp/x.yaml" --out "$tmp/mine" --if-done=redo
same "it is untouched" "$(cat "$tmp/mine/notes")" precious
expect "out that cannot be made" 1 "x.jsonl" $E --tasks "$tmp/x.yaml" --out "$tmp/x.jsonl/below"
long=$(printf 'word %.0s' $(seq 400))
task '' '{"q":"'"$long"'","c":["a","b"],"g":0}\n'
expect "longer than the context: cut and told" 0 "x: 1 of 1 items are longer than the context of 128 tokens and were cut from the left" \
    $E --tasks "$tmp/x.yaml" --out "$tmp/long"
same "and recorded" "$(zstd -dcq "$tmp/long/items.jsonl.zst" | grep -c '"cut":[1-9]')" 1
task '' "$good"
cp -rL "$M" "$tmp/nan"
chmod -R u+w "$tmp/nan"
# The largest float all over the embedding: finite, but no logit made from it is.
head=$(($(od -An -tu8 -N8 "$tmp/nan/model.safetensors") + 8))
yes "$(printf '\377\377\177\177')" | tr -d '\n' | head -c 51200 |
    dd of="$tmp/nan/model.safetensors" bs=1 seek=$head conv=notrunc 2>/dev/null
(cd "$tmp/nan" && sha256sum $(awk '{print $2}' SHA256SUMS | tr -d '*') >SUMS && mv SUMS SHA256SUMS)
expect "weights that are not numbers" 4 "log-probability that is no finite number" \
    "$BIN/eval" --quiet --model "$tmp/nan" --tasks "$tmp/x.yaml" --out "$tmp/nan.out"
absent "and no result" "$tmp/nan.out/results.json"
"$BIN/world" --seed 9 --count 20 >"$tmp/stories.jsonl"
"$BIN/world" --seed 9 --count 20 --format txt >"$tmp/stories.txt"
for what in "--text $tmp/stories.jsonl:stories.jsonl:1" "--text $tmp/stories.txt:stories.txt" \
    "--shards $tmp/data:data: validation document 1" "--text $tmp/stories.txt eval.mode=llama eval.context=64:stories.txt: chunk 1"; do
    # shellcheck disable=SC2086
    expect "weights that are not numbers: ${what%%:*}" 4 "${what#*:}: a log-probability that is no finite number" \
        "$BIN/eval" --quiet --model "$tmp/nan" ${what%%:*} --out "$tmp/nan.json"
    same "nothing printed" "$(cat "$tmp/.out")" ""
    absent "nor written" "$tmp/nan.json"
done
printf 'task:\n  kind: generate\n  data: [x.jsonl]\n  prompt: "{q}"\n  answer: "{q}"\n  max_new_tokens: 4\n' >"$tmp/g.yaml"
expect "weights that are not numbers, generating" 4 "task g: .*logit that is no finite number" \
    "$BIN/eval" --quiet --model "$tmp/nan" --tasks "$tmp/g.yaml" --out "$tmp/nang.out"
absent "and no result either" "$tmp/nang.out/results.json"
expect "generate refuses them too" 4 "nan: a logit that is no finite number" \
    "$BIN/generate" --quiet --model "$tmp/nan" --prompt x generate.max_tokens=2
task '' "$good"
W="$BIN/eval --threads 1 --quiet --model $M --tasks $tmp/x.yaml"
expect_out "the run's own folder" "tiny/eval/x@[0-9a-f]{12} *\$" $W
expect_out "other settings lie beside it" "tiny/eval/x@[0-9a-f]{12}-[0-9a-f]{6} *\$" $W eval.limit=1
same "both" "$(ls -d "$tmp"/runs/tiny/eval/x@* | wc -l)" 2
expect "the same again" 2 "holds a finished evaluation; name another folder with --out, or say --if-done" $W
$W --out "$tmp/set" >/dev/null
expect "--if-done=skip, but other settings" 2 "set: holds a finished evaluation with another eval.stride; name" \
    $W --out "$tmp/set" --if-done=skip eval.stride=3
$W --dry-run --json >"$tmp/plan.json"
json "--dry-run --json" "$tmp/plan.json"
same "says what would be asked" "$(cat "$tmp/plan.json")" '[{"task":"x","kind":"choice","items":1}]'
denied "results where we may not write" 1 "ro/r" eval --quiet --model "$M" --tasks "$tmp/x.yaml" --out "$tmp/ro/r"
DISK_FULL_BYTES="50 600" disk_full "results" "$tmp/full.out" $E --tasks "$tmp/x.yaml" --out "$tmp/full.out"
finish
