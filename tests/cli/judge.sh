#!/bin/sh
# judge.sh -- what the demo says of its answers: leaks are found, baselines and win rates are right.
. tests/cli/lib.sh
w=$BIN/world j=$BIN/judge
$w --kind questions --split test --count 60 --out "$tmp/q.jsonl"
$w --count 300 --out "$tmp/stories.jsonl"
$w --kind instructions --turns 3 --noise 0.3 --count 600 --out "$tmp/i.jsonl"
$w --kind preferences --count 60 --out "$tmp/p.jsonl"

# ---- leaks
expect_out "nothing asked for is in training" \
    '^1560 training texts .* texts 0 of 60, facts .* 0 of 60, sums 0 of [1-9]' \
    $j leaks "$tmp/q.jsonl" --seed 1 "$tmp/stories.jsonl" "$tmp/i.jsonl" "$tmp/p.jsonl" "$tmp/i.jsonl" \
    --seed 1
leak() { # NAME REGEX: with line $line in training
    printf '%s\n' "$line" >"$tmp/leak.jsonl"
    expect "$1" 3 "$2" $j leaks "$tmp/q.jsonl" "$tmp/i.jsonl" "$tmp/leak.jsonl"
}
line=$(grep -m1 '"skill":"recall"' "$tmp/q.jsonl" | sed 's/.*"prompt":\("[^"]*"\).*/{"messages":[{"role":"user","content":\1}]}/')
leak "a question word for word" 'the text of recall-[0-9]+ is in the training texts'
line=$(grep -m1 '"skill":"where_is"' "$tmp/q.jsonl" | sed 's/.*"prompt":"\(.*\)\\n.*/{"other":["\1"]}/')
leak "a story without its question" 'the text of where_is'
line=$(grep -m1 '"skill":"who_has"' "$tmp/q.jsonl" | sed 's/.*\("doc":"[0-9a-f]*"\).*/{\1}/')
leak "who, what and where" 'who, what and where of who_has'
sum=$(sed -n 's/.*"skill":"add".*"sum":"\([0-9]*\) + \([0-9]*\)".*/\1 \2/p' "$tmp/q.jsonl" | head -n 1)
# shellcheck disable=SC2086
set -- $sum
line="{\"messages\":[{\"content\":\"so $2 plus $1 it is\"}]}"
leak "operands the other way round" 'the sum of (add|problem_more)'
line="{\"x\":\"$(($1 + $2)) - $1\"}"
leak "operands of a difference" 'the sum of (add|problem_more)'
expect "stories of another seed" 4 'stories.jsonl:1: story .* is not the one that seed 2 tells' \
    $j leaks "$tmp/q.jsonl" --seed 2 "$tmp/stories.jsonl"
expect "no questions" 4 'a question has an id' $j leaks "$tmp/i.jsonl" "$tmp/i.jsonl"

# ---- baselines: three questions of one skill, one answer twice
cat >"$tmp/three.jsonl" <<'END'
{"id":"a","skill":"s","prompt":"Who sees the red fox?","answer":"Tom"}
{"id":"b","skill":"s","prompt":"Who sees the blue hen?","answer":"Tom"}
{"id":"c","skill":"s","prompt":"Who eats green peas?","answer":"Mia"}
END
cat >"$tmp/near.jsonl" <<'END'
{"messages":[{"role":"user","content":"Who sees a red fox?"},{"role":"assistant","content":"<think>Mia</think>It was Tom."}]}
{"messages":[{"role":"user","content":"A story.\nWho sees a blue hen?"},{"role":"assistant","content":"Leo."},{"role":"user","content":"Who eats green peas?"},{"role":"assistant","content":"Leo. Or Mia."}]}
{"messages":[{"role":"user","content":"What is this?"},{"role":"assistant","content":"Mia"}]}
{"messages":[{"role":"user","content":"Something else."},{"role":"assistant","content":"Mia"}]}
{"messages":[{"role":"user","content":"Nothing."},{"role":"assistant","content":"Mia"}]}
END
expect_out "commonest and nearest answers" 'all +3 +66.7 +33.3' \
    $j table "$tmp/three.jsonl" --train "$tmp/near.jsonl"

# ---- sampled answers
model
evaluate() { # OUT KEY=VALUE...
    out=$tmp/$1; shift
    $BIN/eval --quiet --threads 1 --model "$M" --tasks "$tmp/t.yaml" --out "$out" eval.data="$tmp" "$@"
}
said=$($BIN/generate --quiet --model "$M" --prompt "On Sunday, Tom" generate.temperature=0 generate.max_tokens=16)
said=$(echo "$said" | tr -cs A-Za-z '\n' | awk 'length > 2' | head -n 1) # half of the answers
i=0
while [ $i -lt 40 ]; do
    [ $((i % 2)) = 0 ] && answer=$said || answer=zebra
    echo "{\"id\":\"q$i\",\"skill\":\"k$((i % 2))\",\"prompt\":\"On Sunday, Tom\",\"answer\":\"$answer\",\"chosen\":\"It was $i.\"}"
    i=$((i + 1))
done >"$tmp/w.jsonl"
echo 'task: {kind: generate, data: [w.jsonl], prompt: "{prompt}", answer: "{answer}", checker: words,
  max_new_tokens: 16, stop: ["."]}' >"$tmp/t.yaml"
check "greedy answers" evaluate greedy
check "sampled answers" evaluate drawn eval.temperature=1
right() { zstd -dcq "$tmp/$1/items.jsonl.zst" | grep -c '"exact_match":1'; }
wrong() { zstd -dcq "$tmp/$1/items.jsonl.zst" | grep '"exact_match":0' | grep -c '"ended":1'; }
g=$(right greedy) d=$(right drawn)
check "some are right ($g, $d of 40)" test "$g" -gt 0
percent() { awk "BEGIN { printf \"%.1f\", 100 * ($1) / 40 }"; }
expect_out "by skill" "k1 +20 .* 0.0 .*all +40 .* $(percent "$g") +$(percent "$d") " \
    $j table "$tmp/w.jsonl" --train "$tmp/near.jsonl" greedy="$tmp/greedy" drawn="$tmp/drawn:exact_match"
expect "too little" 3 "greedy: $(percent "$g")% right, wanted 99.0%" \
    $j table "$tmp/w.jsonl" --train "$tmp/near.jsonl" greedy="$tmp/greedy" --of greedy --least 99
expect "no better than the commonest answer" 3 'points above its commonest answer, wanted 20.0' \
    $j table "$tmp/w.jsonl" --train "$tmp/near.jsonl" greedy="$tmp/greedy" --of greedy --above 20
expect "no such result" 2 '--of sft: no such result' \
    $j table "$tmp/w.jsonl" --train "$tmp/near.jsonl" --of sft
expect_out "against itself" 'win rate 50.0%, 95% interval 50.0 to 50.0 .*40 ties' \
    $j wins "$tmp/w.jsonl" "$tmp/greedy" "$tmp/greedy"
expect "which is no win" 3 'a win rate of 50.0% .from 50.0%., wanted 60.0%' \
    $j wins "$tmp/w.jsonl" "$tmp/greedy" "$tmp/greedy" --least 60
expect_out "ties count one half" "win rate $(percent "20 + ($g - $d) / 2")%" \
    $j wins "$tmp/w.jsonl" "$tmp/greedy" "$tmp/drawn"
expect_out "pairs" "^$(wrong drawn) pairs of 40 questions: 0 chosen answers were sampled" \
    $j pairs "$tmp/w.jsonl" "$tmp/drawn" --out "$tmp/pairs.jsonl"
same "as many lines" "$(wc -l <"$tmp/pairs.jsonl")" "$(wrong drawn)"
check "tokenize reads them" $BIN/tokenize tokenize.inputs="[$tmp/pairs.jsonl]" tokenize.val_frac=0 \
    tokenize.tokenizer="$tmp/data" tokenize.out="$tmp/pref" tokenize.on_reject=fail
expect "answers to other questions" 4 '40 items, but 60 questions' \
    $j wins "$tmp/q.jsonl" "$tmp/greedy" "$tmp/drawn"
expect "an unknown verb" 2 'wanted one of table' $j judge
finish
