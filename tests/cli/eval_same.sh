#!/bin/sh
# eval_same.sh -- the same numbers to the last bit, however an evaluation is computed: batch,
# order, threads, shared beginnings, interruption; and how many tokens it computes.
. tests/cli/lib.sh
model
"$BIN/world" --kind eval --split test --seed 4 --count 150 --out "$tmp/world_eval.jsonl"
"$BIN/world" --split test --seed 5 --count 70 --out "$tmp/stories.jsonl"
head -n 24 "$tmp/stories.jsonl" >"$tmp/few.jsonl"
task() { cat >"$tmp/$1.yaml"; }
task cloze <<'END'
task: {kind: cloze, data: [few.jsonl], last_word: "{text}", metrics: [greedy, ppl_item, bits_per_byte]}
END
task text <<'END'
task: {kind: text, data: [stories.jsonl]}
END
task generate <<'END'
task: {kind: generate, data: [few.jsonl], prompt: "{text}", answer: "{text}", max_new_tokens: 24, stop: ["."]}
END
task recall <<'END'
task: {kind: mqar, lengths: [32, 64], pairs: [2, 4], items: 6}
END
scored=world_choice,world_pairs,$tmp/cloze.yaml,$tmp/text.yaml,$tmp/recall.yaml
all=$scored,$tmp/generate.yaml
evaluate() { # OUT TASKS KEY=VALUE...
    out=$tmp/$1 tasks=$2; shift 2
    $BIN/eval --quiet --threads 1 --model "$M" --tasks "$tasks" --out "$out" eval.data="$tmp" "$@"
}
items() { zstd -dcq "$tmp/$1/items.jsonl.zst" >"$tmp/$1.items"; }
numbers() { sed 's/,"perf":{.*//' "$tmp/$1/results.json" >"$tmp/$1.numbers"; }
as_before() { # NAME OUT
    items "$2"; numbers "$2"
    check "$1: items" cmp "$tmp/$2.items" "$tmp/whole.items"
    check "$1: results" cmp "$tmp/$2.numbers" "$tmp/whole.numbers"
}
work() { sed 's/.*"tokens_'"$2"'":\([0-9]*\).*/\1/' "$tmp/$1/results.json"; }

check "an evaluation" evaluate whole "$all"
items whole; numbers whole
same "of every kind" "$(sed 's/{"task":"\([a-z_]*\)".*/\1/' "$tmp/whole.items" | sort -u | tr '\n' ' ')" \
    "cloze generate recall text world_choice world_pairs "
same "perf alone is left out" "$(tail -c 60 "$tmp/whole.numbers" | grep -c '"eval/generate/ended_stderr"')" 1

# ---- however it is computed
for how in eval.batch=1 eval.batch=4 eval.order_seed=5 "eval.order_seed=6 eval.batch=4" "--threads 2" \
    eval.reuse=false "eval.reuse=false eval.batch=1 eval.order_seed=7 --threads 2"; do
    # shellcheck disable=SC2086
    evaluate how "$all" --if-done=redo $how >"$tmp/.log" 2>&1
    as_before "$how" how
done

# ---- interrupted twice, then finished; a background job ignores SIGINT unless told otherwise
cut() { # LINES KEY=VALUE...: interrupt once that many items are kept
    lines=$1; shift
    env --default-signal=INT "$BIN/eval" --quiet --threads 1 --model "$M" --tasks "$all" --out "$tmp/cut" \
        eval.data="$tmp" "$@" >"$tmp/.out" 2>"$tmp/.err" &
    pid=$! i=0
    while [ "$(wc -l 2>/dev/null <"$tmp/cut/items.partial.jsonl" || echo 0)" -lt "$lines" ] &&
        kill -0 $pid 2>/dev/null && [ $i -lt 3000 ]; do
        i=$((i + 1)); sleep 0.01
    done
    kill -INT $pid 2>/dev/null
    wait $pid
    same "interrupted: dies of SIGINT" $? 130
    kept=$(($(wc -l <"$tmp/cut/items.partial.jsonl") - 1))
}
total=$(wc -l <"$tmp/whole.items")
cut 40
first=$kept
cut $((first + (total - first) / 2)) eval.order_seed=3 eval.batch=4
same "each time some items more, not all" \
    "$([ "$first" -ge 39 ] && [ "$kept" -gt "$first" ] && [ "$kept" -lt "$total" ] && echo yes)" yes
check "the same command goes on" evaluate cut "$all"
as_before "interrupted twice" cut

# ---- tokens computed: the nodes of the prefix tree, counted from the tokens themselves
check "eval.tokens" evaluate tokens "$scored" eval.tokens=true
items tokens
grep -v '"task":"generate"' "$tmp/whole.items" >"$tmp/whole.scored"
check "  ... adds them to the items and changes nothing else" sh -c \
    "sed 's/,\"asks\":\[{.*}\]}}\$/}}/' '$tmp/tokens.items' | cmp - '$tmp/whole.scored'"
json "  ... as JSON" "$tmp/tokens.items"
# Task by task; of documents 64 requests at a time.
tree() {
    for sheaf in world_choice world_pairs cloze recall "text 1,64" "text 65,128" 'text 129,$'; do
        grep "\"task\":\"${sheaf% *}\"" "$tmp/tokens.items" >"$tmp/sheaf"
        case $sheaf in *" "*) prefix_tree "${sheaf#* }" ;; *) prefix_tree ;; esac <"$tmp/sheaf"
    done | awk '{ all += $1; nodes += $2 } END { print all, nodes }'
}
same "tokens requested and computed are the tree's" "$(work tokens requested) $(work tokens computed)" "$(tree)"
evaluate alone "$scored" eval.reuse=false >/dev/null
same "without reuse all are computed" "$(work alone computed)" "$(work tokens requested)"
# Not so of documents, whose sheaves another order fills with others.
together=world_choice,world_pairs,$tmp/cloze.yaml,$tmp/recall.yaml
evaluate ordered "$together" >/dev/null
for how in eval.order_seed=9 eval.batch=1 "eval.order_seed=2 eval.batch=3"; do
    # shellcheck disable=SC2086
    evaluate drawn "$together" --if-done=redo $how >/dev/null
    same "$how computes as many" "$(work drawn computed)" "$(work ordered computed)"
done
finish
