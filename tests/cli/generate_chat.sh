#!/bin/sh
# generate_chat.sh -- talking with a model: the template's tokens, turns, signals, refusals.
. tests/cli/lib.sh
model model.context=20000
C="$BIN/generate --threads 1 --quiet --model $M --chat"
G="$C generate.max_tokens=12 generate.temperature=0"
tokens() { sed 's/.*"tokens":\[\([0-9,]*\)\].*/\1/'; }
# Ids of a conversation up to <|assistant|>, by the tool that makes training data.
printf '%s\n' '{"messages":[{"role":"system","content":"Be <|end|> brief."},{"role":"user","content":"What <|user|> is it?"},{"role":"assistant","content":"x"}]}' \
    '{"messages":[{"role":"user","content":"And now?"},{"role":"assistant","content":"x"}]}' >"$tmp/t.jsonl"
"$BIN/tokenize" --quiet tokenize.out="$tmp/t" "tokenize.inputs=$tmp/t.jsonl" "tokenize.tokenizer=$M" \
    tokenize.val_frac=0 >/dev/null
"$BIN/tokenize" head "$tmp/t" --docs 2 --json >"$tmp/ids"
ids() { sed -n "$1p" "$tmp/ids" | sed 's/.*"ids":\[\([0-9,]*\)\].*/\1/; s/,5,.*/,5/'; } # 5 is <|assistant|>
raw() { "$BIN/generate" --threads 1 --quiet --model "$M" --tokens "$1" --json generate.max_tokens=12 \
    generate.temperature=0 | tokens; }

# ---- what the model reads
first=$($G --prompt 'What <|user|> is it?' --system 'Be <|end|> brief.' --json | tokens)
same "the template's tokens, text is never control" "$first" "$(raw "$(ids 1)")"
printf 'What <|user|> is it?\nAnd now?\n' | $G --system 'Be <|end|> brief.' --json >"$tmp/two"
json "--json: a line an answer" "$tmp/two"
same "the first of a conversation" "$(sed -n 1p "$tmp/two" | tokens)" "$first"
same "the next goes on from it" "$(sed -n 2p "$tmp/two" | tokens)" \
    "$(raw "$(ids 1),$first,6,$(ids 2 | sed 's/^1,//')")"
printf '{"system":"Be <|end|> brief.","messages":[{"role":"user","content":"What <|user|> is it?"}]}' >"$tmp/m.json"
same "--messages" "$($G --messages "$tmp/m.json" --json | tokens)" "$first"
same "--messages from stdin" "$($G --messages - --json <"$tmp/m.json" | tokens)" "$first"
printf 'What <|user|> is it?' >"$tmp/q"
same "--prompt-file" "$($G --prompt-file "$tmp/q" --system 'Be <|end|> brief.' --json | tokens)" "$first"
text=$($G --prompt 'And now?')
same "plain output is the answer" "$($G --prompt 'And now?' --json | grep -c "\"prompt\":\"And now?\".*\"end\":\"length\"")" 1
same "/new begins anew, empty lines say nothing" "$(printf 'Hm?\n\n/new\nAnd now?\n/quit\nmore\n' | $G | sed 1d)" "$text"
same "samples" "$($C --prompt x generate.samples=3 generate.max_tokens=9 --json | sort -u | wc -l)" 3
drawn=$($C --prompt x generate.max_tokens=9 seed=4)
same "the same seed, the same words" "$("$BIN/generate" --quiet --model "$M" --chat --prompt x generate.max_tokens=9 seed=4 --threads 2)" "$drawn"
check "and there are some" test -n "$drawn"
c=$(printf %s "$text" | cut -c 4)
first2=$($G --prompt 'And now?' --json | tokens)
wild="generate.temperature=100 generate.top_k=0 generate.top_p=1 generate.max_tokens=400 seed=3"
# shellcheck disable=SC2086
zeros=$($C --prompt x $wild | tr -dc '\000' | wc -c)
check "an answer with zero bytes" test "$zeros" -gt 0
# shellcheck disable=SC2086
same "--json: in text and answer" "$($C --prompt x $wild --json | grep -o 'u0000' | wc -l)" $((2 * zeros))
check "a stop string" sh -c "$G --prompt 'And now?' --json 'generate.stop=[\"$c\"]' | grep -q '\"end\":\"stop\"'"
stopped=$($G --prompt 'And now?' --json "generate.stop=[\"$c\"]" | tokens)
check "what it stopped is the answer's beginning" test "${first2#"$stopped"}" != "$first2"
same "as many tokens as were allowed, none added" "$(echo "$first" | tr ',' '\n' | wc -l)" 12
expect_out "max_tokens=0: none" '"text":"","answer":"","end":"length","tokens":\[\]' $C --prompt x --json generate.max_tokens=0
expect "and 0 counted" 0 ": 0 tokens at" "$BIN/generate" --threads 1 --model "$M" --chat --prompt x generate.max_tokens=0
same "a conversation goes on behind it" "$(printf 'Hm?\nAnd now?\n' | $C --json generate.max_tokens=0 | grep -c '"tokens":\[\]')" 2
expect_out "--dry-run" "prompt +[0-9]+ tokens" $G --prompt x --dry-run
# ---- a person at a terminal
if terminal; then
    mkfifo "$tmp/keys"
    TERM=xterm script -qec "$BIN/generate --threads 1 --model $M --chat generate.max_tokens=15000 \
        generate.temperature=0; echo left \$?" /dev/null <"$tmp/keys" >"$tmp/screen" 2>&1 &
    pid=$!
    exec 9>"$tmp/keys"
    echo 'And now?' >&9
    for _ in $(seq 400); do [ "$(wc -c <"$tmp/screen")" -gt 3000 ] && break; sleep 0.02; done
    printf '\003' >&9
    for _ in $(seq 400); do grep -q "stopping the answer" "$tmp/screen" && break; sleep 0.02; done
    sleep 0.2
    echo '/quit' >&9
    exec 9>&-
    wait $pid
    check "Ctrl-C stops the answer" grep -q "stopping the answer; once more to quit at once" "$tmp/screen"
    check "not the program" grep -q "left 0" "$tmp/screen"
    check "which says how" grep -q "/quit or the end of input ends it" "$tmp/screen"
else
    skip "a person at a terminal" "no pseudo-terminal"
fi
# Input stays open, so that however short the answer is, the signal finds the program there.
mkfifo "$tmp/talk"
"$BIN/generate" --threads 1 --quiet --model "$M" --chat generate.max_tokens=15000 <"$tmp/talk" >"$tmp/o" 2>"$tmp/e" &
pid=$!
exec 8>"$tmp/talk"
echo x >&8
for _ in $(seq 400); do [ -s "$tmp/o" ] && break; sleep 0.02; done
kill -TERM $pid; wait $pid
same "SIGTERM: exit 143" "$?" 143
exec 8>&-

# ---- a model that reasons
i=0
while [ $i -lt 160 ]; do
    i=$((i + 1))
    k=$((i * 7919 % 1000))
    printf '{"messages":[{"role":"user","content":"Say %d."},{"role":"assistant","content":"<think>%d</think>It is %d."}]}\n' $k $k $k
done >"$tmp/say.jsonl"
"$BIN/tokenize" --quiet tokenize.out="$tmp/say" "tokenize.inputs=$tmp/say.jsonl" "tokenize.tokenizer=$M" >/dev/null
"$BIN/sft" --threads 1 --quiet --runs "$tmp/runs" post.model="$tmp/runs/tiny" data.shards="$tmp/say" name=think \
    data.seq_len=64 data.batch_tokens=1024 sched.tokens=80k optim.lr=1e-2 panel.prompts=0 val.samples=0 >/dev/null 2>&1
R="$BIN/generate --threads 1 --quiet --model $tmp/runs/think --chat generate.temperature=0"
text=$($R --prompt 'Say 5.')
check "reasoning is shown" sh -c "echo '$text' | grep -qE '^<think>[0-9]+</think>It is [0-9]+\.\$'"
same "--hide-think" "$($R --prompt 'Say 5.' --hide-think)" "${text##*</think>}"
think=${text#<think>}
same "--json tells it from the answer" "$($R --prompt 'Say 5.' --json | grep -o '"think":.*"end":"[a-z]*"')" \
    "\"think\":\"${think%%<*}\",\"answer\":\"${text##*</think>}\",\"end\":\"end\""
check "the <|end|> that the model chose is told" sh -c "echo '$($R --prompt 'Say 5.' --json)' | grep -q ',6\]}\$'"
if terminal; then
    env -u NO_COLOR TERM=xterm script -qec "$R --prompt 'Say 5.'" /dev/null </dev/null >"$tmp/screen"
    esc=$(printf '\033')
    check "dim on a terminal" grep -q "^$esc\[2m<think>[0-9]*</think>$esc\[0mIt is" "$tmp/screen"
    NO_COLOR=1 TERM=xterm script -qec "$R --prompt 'Say 5.'" /dev/null </dev/null >"$tmp/screen"
    check "not with NO_COLOR" grep -q "^<think>[0-9]*</think>It is" "$tmp/screen"
fi
sed 's/.*"content":"\(Say [0-9]*.\)".*/{"q":"\1","a":"It is"}/' "$tmp/say.jsonl" | head -20 >"$tmp/q.jsonl"
printf 'task:\n  kind: generate\n  chat: true\n  data: [q.jsonl]\n  prompt: "{q}"\n  answer: "{a}"\n  filter: "^(It is)"\n  max_new_tokens: 30\n' >"$tmp/q.yaml"
E="$BIN/eval --threads 1 --quiet --model $tmp/runs/think --tasks $tmp/q.yaml"
expect_out "the checker sees what stands behind it" "exact_match +1 .*parsed +1 .*thought +1 " $E --out "$tmp/e1"
check "the record has all of it" sh -c "zstd -dcq '$tmp/e1/items.jsonl.zst' | grep -q '\"out\":\"<think>[0-9]*</think>It is'"
sed 's/chat: true/chat: true\n  think: keep/; s/  name.*//' "$tmp/q.yaml" >"$tmp/keep.yaml"
expect_out "unless it is to see all" "exact_match +0 .*thought +1 " "$BIN/eval" --threads 1 --quiet --model "$tmp/runs/think" --tasks "$tmp/keep.yaml" --out "$tmp/e2"
sed 's/max_new_tokens: 30/max_new_tokens: 3/' "$tmp/q.yaml" >"$tmp/cut.yaml"
expect_out "a block that is cut off is no answer" "exact_match +0 .*answered +0 .*parsed +0 .*thought +0 " "$BIN/eval" --threads 1 --quiet --model "$tmp/runs/think" --tasks "$tmp/cut.yaml" --out "$tmp/e3"

# ---- refusals
expect "prompt and messages" 2 "one of --prompt, --prompt-file and" $G --prompt x --messages "$tmp/m.json"
expect "an empty prompt" 2 "the prompt is empty" $G --prompt ""
expect "--tokens" 2 "tokens means nothing with --chat" $G --tokens 1
expect "--logits" 2 "logits means nothing with --chat" $G --prompt x --logits "$tmp/l"
expect "--system without --chat" 2 "system wants --chat" "$BIN/generate" --model "$M" --prompt x --system y
expect "--system twice" 2 "messages have their own system" $G --messages "$tmp/m.json" --system y
expect "ignore_eos" 2 "generate.ignore_eos" $G --prompt x generate.ignore_eos=true
expect "samples of a conversation" 2 "generate.samples" $G generate.samples=2
expect "no such file" 2 "none.json" $G --messages "$tmp/none.json"
echo '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}' >"$tmp/b.json"
expect "nothing to be answered" 4 "b.json: ends with the assistant's turn" $G --messages "$tmp/b.json"
echo '[{"role":"tool","content":"a"}]' >"$tmp/b.json"
expect "an unknown role" 4 "b.json: turn 1: unknown role 'tool'" $G --messages "$tmp/b.json"
echo '[]' >"$tmp/b.json"
expect "no turn" 4 "no turn of the user's" $G --messages "$tmp/b.json"
echo 'oops' >"$tmp/b.json"
expect "no JSON" 4 "b.json: " $G --messages "$tmp/b.json"
expect "invalid UTF-8" 4 "invalid UTF-8 at byte 1" $G --prompt "$(printf 'a\377b')"
cp -rL "$M" "$tmp/plain"
chmod -R u+w "$tmp/plain"
rm "$tmp/plain/tokenizer.model"
expect "no tokenizer" 4 "no tokenizer, so it cannot talk" "$BIN/generate" --model "$tmp/plain" --chat --prompt x
printf '%30000s' x | tr ' ' a >"$tmp/long"
expect "longer than the context: read all the same" 0 "" $C --prompt-file "$tmp/long" generate.max_tokens=1
same "but a conversation has its end" "$($G <"$tmp/long" >/dev/null 2>"$tmp/e"; echo $?)" 2
check "told" grep -q "the conversation needs [0-9]* tokens and more to be answered, but there is room for 20000" "$tmp/e"
{ echo Hm; cat "$tmp/long"; } | $G >"$tmp/o" 2>"$tmp/e"
same "after an answer that is no wrong usage" "$?" 1
check "and a way out is told" grep -q "there is room for 20000; /new begins anew" "$tmp/e"
same "the answer was given" "$(cat "$tmp/o")" "$($G --prompt Hm)"
finish
