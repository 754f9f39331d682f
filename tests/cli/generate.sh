#!/bin/sh
# generate.sh -- continuing text: seeds, stops, logits, refusals.
. tests/cli/lib.sh
model
G="$BIN/generate --threads 1 --quiet"
text() { $G --model "$M" --prompt "One day" generate.max_tokens=40 "$@" 2>"$tmp/.err"; }

# ---- the good way
a=$(text seed=1)
same "the same seed, the same text" "$(text seed=1)" "$a"
check "another seed, another text" test "$(text seed=2)" != "$a"
greedy=$(text generate.temperature=0)
same "temperature 0 has no seed" "$(text generate.temperature=0 seed=9)" "$greedy"
same "top_k 1 is greedy too" "$(text generate.top_k=1)" "$greedy"
same "threads do not matter" "$($BIN/generate --quiet --model "$M" --prompt "One day" generate.max_tokens=40 \
    seed=1 --threads 3 2>/dev/null)" "$a"
same "--quiet is quiet" "$(cat "$tmp/.err")" ""
expect "speed is logged on stderr" 0 "tokens/s" "$BIN/generate" --threads 1 --model "$M" --prompt x generate.max_tokens=3
expect_out "--echo" "^One day" $G --model "$M" --prompt "One day" --echo generate.max_tokens=3
printf 'One day' >"$tmp/prompt"
same "--prompt-file" "$($G --model "$M" --prompt-file "$tmp/prompt" generate.max_tokens=40 seed=1)" "$a"
E="generate.max_tokens=40 seed=1"
# shellcheck disable=SC2086
for from in "--prompt-file $tmp/prompt" "--prompt-file -"; do
    same "--echo with ${from%% *}" "$($G --model "$M" $from --echo $E <"$tmp/prompt")" "One day$a"
    check "its --json has the prompt" sh -c "$G --model '$M' $from --json $E <'$tmp/prompt' | grep -q '\"prompt\":\"One day\"'"
done
ids=$(text seed=1 --json | sed 's/.*"tokens":\[\(.*\)\].*/1,\1/')
same "--echo with --tokens" "$($G --model "$M" --tokens "$ids" --echo generate.max_tokens=0)" "$a"
check "its --json has what they spell" sh -c "$G --model '$M' --tokens '$ids' --json generate.max_tokens=0 | grep -q '\"prompt\":\"..'"
same "--echo before each sample" "$(text --echo generate.samples=2 | grep -c '^One day')" 2
expect "--echo with --json" 2 "echo means nothing with --json" $G --model "$M" --prompt x --echo --json
same "or stdin" "$(printf 'One day' | $G --model "$M" --prompt-file - generate.max_tokens=40 seed=1)" "$a"
same "a run folder stands for its newest checkpoint" "$($G --model "$tmp/runs/tiny" --prompt "One day" \
    generate.max_tokens=40 seed=1)" "$a"
# A character of the text as a stop string: the text ends right before its first occurrence.
c=$(printf %s "$a" | cut -c 5)
want=${a%%"$c"*}
same "a stop string ends the text" "$(text seed=1 "generate.stop=[\"$c\"]")" "$want"
text seed=1 --json generate.samples=3 >"$tmp/j.jsonl"
json "--json" "$tmp/j.jsonl"
same "--json: a line for each sample" "$(wc -l <"$tmp/j.jsonl" | tr -d ' ')" 3
check "samples differ" test "$(sed -n 1p "$tmp/j.jsonl")" != "$(sed -n 2p "$tmp/j.jsonl")"
text --json "generate.stop=[\"$c\"]" seed=1 >"$tmp/j.jsonl"
check "--json says why it ended" grep -q '"end": *"stop"' "$tmp/j.jsonl"
# Byte pieces spell zero bytes, too.
wild="generate.temperature=100 generate.top_k=0 generate.top_p=1 generate.max_tokens=400 generate.ignore_eos=true"
# shellcheck disable=SC2086
zeros() { $G --model "$M" --prompt x $wild "$@" 2>"$tmp/.err" | tr -dc '\000' | wc -c; }
# shellcheck disable=SC2086
$G --model "$M" --prompt x $wild --json 2>"$tmp/.err" >"$tmp/j.json"
json "--json holds zero bytes" "$tmp/j.json"
check "there are some" test "$(zeros)" -gt 0
same "as many as the text" "$(grep -o 'u0000' "$tmp/j.json" | wc -l)" "$(zeros)"
check "--tokens with --logits" $G --model "$M" --tokens 1,20,30,40,50 --logits "$tmp/l.f32"
same "writes [tokens][vocabulary] floats" "$(wc -c <"$tmp/l.f32" | tr -d ' ')" $((5 * 400 * 4))
check "again" $G --model "$M" --tokens 1,20,30,40,50 --logits "$tmp/m.f32"
check "the same bytes" cmp "$tmp/l.f32" "$tmp/m.f32"
expect "--logits and --json" 2 "json means nothing with --logits" $G --model "$M" --tokens 1 --logits "$tmp/l.f32" --json
expect "unless nothing is done" 0 "" $G --model "$M" --tokens 1 --logits "$tmp/l.f32" --json --dry-run
expect "--logits and --echo" 2 "echo means nothing with --logits" $G --model "$M" --tokens 1 --logits "$tmp/l.f32" --echo
expect "max_tokens 0" 0 "" $G --model "$M" --prompt "x" generate.max_tokens=0
expect "beyond the context: a warning" 0 "exceed the context" $BIN/generate --threads 1 --model "$M" --prompt x generate.max_tokens=200

# ---- guesses
same "guesses of the model itself, temperature 0" "$(text generate.temperature=0 "generate.draft=$M")" "$greedy"
same "guesses by n-gram, temperature 0" "$(text generate.temperature=0 generate.ngram=1)" "$greedy"
same "the same seed, the same guesses" "$(text "generate.draft=$M" generate.ngram=2 seed=7)" \
    "$(text "generate.draft=$M" generate.ngram=2 seed=7)"
expect "what came of them is logged" 0 "expected speed-up .1 - a.* a check v = [0-9.]+ of" $BIN/generate --threads 1 \
    --model "$M" --prompt "One day" generate.max_tokens=40 "generate.draft=$M"
text "generate.draft=$M" --json >"$tmp/j.jsonl"
json "guesses and --json" "$tmp/j.jsonl"
check "its own guesses are all accepted" grep -q '"acceptance":1,"accepted_per_round":[1-9]' "$tmp/j.jsonl"
same "in a conversation" "$($G --model "$M" --chat --prompt Hm generate.temperature=0 generate.max_tokens=30 "generate.draft=$M")" \
    "$($G --model "$M" --chat --prompt Hm generate.temperature=0 generate.max_tokens=30)"
expect "a draft as large as the model: a warning" 0 "warning: .*cost more than they save" $BIN/generate --threads 1 \
    --model "$M" --prompt x "generate.draft=$M" generate.max_tokens=1

# ---- prompts read before
long=$("$BIN/world" --seed 3 --count 20 --format txt | tr '\n' ' ' | head -c 3000)
cached() { $BIN/generate --threads 1 --model "$M" --prompt "$1" --prompt-cache "$tmp/p.prompt" generate.max_tokens=20 seed=5 2>"$tmp/.e"; }
plain() { $G --model "$M" --prompt "$1" generate.max_tokens=20 seed=5 2>"$tmp/.err"; }
same "a prompt that nobody read" "$(cached "$long")" "$(plain "$long")"
check "nothing was reused" grep -q ": 0 of the prompt's" "$tmp/.e"
same "the same again" "$(cached "$long")" "$(plain "$long")"
check "all was reused" grep -qE ": ([0-9]+) of the prompt's \\1 tokens were read before" "$tmp/.e"
same "another end" "$(cached "$long Then")" "$(plain "$long Then")"
check "from a point within it on" grep -qE ": [1-9][0-9][0-9]+ of the prompt's" "$tmp/.e"
same "with guesses" "$($G --model "$M" --prompt "$long" --prompt-cache "$tmp/p.prompt" generate.temperature=0 \
    "generate.draft=$M" generate.max_tokens=20 2>"$tmp/.err")" \
    "$($G --model "$M" --prompt "$long" generate.temperature=0 generate.max_tokens=20 2>"$tmp/.err")"
mkdir "$tmp/prompts"
same "a conversation, a folder" "$($G --model "$M" --chat --prompt Hm seed=2 --prompt-cache "$tmp/prompts" generate.max_tokens=9)" \
    "$($G --model "$M" --chat --prompt Hm seed=2 generate.max_tokens=9)"
same "the folder has it" "$(find "$tmp/prompts" -name '*.prompt' | wc -l | tr -d ' ')" 1
same "and gives it back" "$($G --model "$M" --chat --prompt Hm seed=2 --prompt-cache "$tmp/prompts" generate.max_tokens=9)" \
    "$($G --model "$M" --chat --prompt Hm seed=2 generate.max_tokens=9)"
"$BIN/quantize" --quiet --model "$M" --out "$tmp/other.gguf" >/dev/null 2>&1
expect "the prompt cache of another model" 4 "p.prompt: the prompt cache of another model" $G --model "$tmp/other.gguf" \
    --prompt x --prompt-cache "$tmp/p.prompt"
flip "$tmp/p.prompt" 5000
expect "a flipped bit in it" 4 "p.prompt: a damaged prompt cache; it can be deleted" $G --model "$M" --prompt x --prompt-cache "$tmp/p.prompt"
head -c 3000 "$tmp/p.prompt" >"$tmp/q.prompt"
expect "cut short" 4 "q.prompt: a prompt cache of 3000 bytes, wanted" $G --model "$M" --prompt x --prompt-cache "$tmp/q.prompt"
expect "with --logits" 2 "prompt-cache means nothing" $G --model "$M" --tokens 1 --logits "$tmp/l.f32" --prompt-cache "$tmp/r"
echo x >"$tmp/plain.txt"
if "${CC:-cc}" -shared -fPIC -o "$tmp/enospc.so" tests/cli/enospc.c -ldl 2>"$tmp/.err"; then
    for chat in "" --chat; do
        expect "a full disk under the prompt cache $chat" 7 "full.prompt: .*No space left on device; the text is whole, the prompt was not kept" \
            env LD_PRELOAD="$tmp/enospc.so" NOSPC_BYTES=100 ASAN_OPTIONS="${ASAN_OPTIONS:-}:verify_asan_link_order=0" \
            $G --model "$M" --prompt x --prompt-cache "$tmp/full.prompt" generate.max_tokens=20 seed=5 $chat
        same "the text came before it $chat" "$(cat "$tmp/.out")" \
            "$($G --model "$M" --prompt x generate.max_tokens=20 seed=5 $chat 2>/dev/null)"
    done
else
    skip "a full disk under the prompt cache" "no compiler for the shim"
fi
DISK_FULL_BYTES=100 disk_full "prompt cache" "$tmp" $G --model "$M" --prompt x --prompt-cache "$tmp/full.prompt"
poor 100 "a model that does not fit" 7 "latest: the model as floats takes [0-9.]+ KiB of memory and 100 KiB can be had: a GGUF file" \
    $G --model "$M" --prompt x
poor 100 "a file as floats" 7 "other.gguf: the model as floats takes .* \(generate.weights, eval.weights: blocks\)" \
    $G --model "$tmp/other.gguf" --prompt x generate.weights=float
poor 10 "as blocks" 7 "other.gguf: the model takes .* and 10.0 KiB can be had: a file of a smaller type takes less" \
    $G --model "$tmp/other.gguf" --prompt x
poor 1000 "a text that does not fit" 7 "a text of 9002 tokens takes [0-9.]+ MiB of memory and 1000 KiB can be had: lower generate.max_tokens" \
    $G --model "$M" --prompt x generate.max_tokens=9000
poor 400 "its logits" 7 "a text of 390 tokens and its logits takes .* give fewer --tokens" \
    $G --model "$M" --tokens "$(seq -s, 1 390)" --logits "$tmp/poor.f32"
poor 1000 "what fits is written" 0 "" $G --model "$M" --prompt x generate.max_tokens=20
expect "two prompts" 2 "error: --prompt is given twice: 'a' and 'b'" $G --model "$M" --prompt a --prompt b
for chat in "" --chat; do
    expect "an empty prompt cache $chat" 2 "prompt-cache: an empty path" $G --model "$M" --prompt a --prompt-cache '' $chat
    expect "a prompt cache in no folder $chat" 1 "none/p: cannot write: No such file" $G --model "$M" --prompt a --prompt-cache "$tmp/none/p" $chat
    same "is told before any text" "$(cat "$tmp/.out")" ""
done
mkfifo "$tmp/pipe"
for chat in "" --chat; do
    expect "a pipe for a prompt cache $chat" 2 "pipe: --prompt-cache wants a file or a folder" timeout -s KILL 20 $G --model "$tmp/none" \
        --prompt x --prompt-cache "$tmp/pipe" $chat
done
mkdir "$tmp/pipes"
$G --model "$M" --prompt "$long" --prompt-cache "$tmp/pipes" generate.max_tokens=1 >"$tmp/.out" 2>&1
for f in "$tmp"/pipes/*.prompt; do rm "$f"; mkfifo "$f"; done
expect "one in a folder of them" 1 "not a plain file" timeout -s KILL 20 $G --model "$M" --prompt "$long" --prompt-cache "$tmp/pipes"
denied "a prompt cache that we may not read" 2 "$tmp/secret: cannot open" generate --model "$tmp/none" --prompt x --prompt-cache "$tmp/secret"
mkdir -p "$tmp/folder"
expect "a folder for a prompt's file" 2 "folder: is a folder" $G --model "$M" --prompt-file "$tmp/folder"
expect "two models" 2 "error: --model is given twice" $G --model "$M" --model "$M" --prompt b
expect "a prompt and its file" 2 "one of --prompt, --prompt-file and --tokens" $G --model "$M" --prompt a --prompt-file "$tmp/plain.txt"
expect "a prompt and tokens" 2 "one of --prompt, --prompt-file and --tokens" $G --model "$M" --prompt a --tokens 1,2
denied "a prompt cache where we may not write" 1 "$tmp/ro/p" generate --model "$M" --prompt x --prompt-cache "$tmp/ro/p"

# ---- keys and values in fewer bytes
pretrain_narrow() { # one head of 16 numbers of keys
    "$BIN/pretrain" --config "$tmp/tiny.yaml" --runs "$tmp/runs" --quiet name=narrow model.n_kv_heads=1 \
        sched.tokens=512 val.samples=0
}
pretrain_narrow
for kv in f16 q8_0; do
    g="$G --model $M generate.kv=$kv generate.temperature=0 generate.max_tokens=20"
    rm -f "$tmp/kv.prompt"
    plain=$($g --prompt "$long")
    same "$kv: a text is there" "$(printf %s "$plain" | wc -c | tr -d ' ' | grep -c '^[1-9]')" 1
    same "$kv: with guesses" "$($g --prompt "$long" "generate.draft=$M" generate.ngram=2 2>/dev/null)" "$plain"
    same "$kv: a prompt nobody read" "$($g --prompt "$long" --prompt-cache "$tmp/kv.prompt")" "$plain"
    same "$kv: the same again" "$($g --prompt "$long" --prompt-cache "$tmp/kv.prompt")" "$plain"
    expect "$kv: the cache of another type" 4 "kv.prompt: a prompt cache of $kv keys and values, generate.kv is f32" \
        $G --model "$M" --prompt "$long" --prompt-cache "$tmp/kv.prompt"
    same "$kv: in a conversation" "$($g --chat --prompt Hm generate.ngram=2)" "$($g --chat --prompt Hm)"
done
bytes() { $G --model "$M" --prompt x --dry-run --json "generate.kv=$1" | sed 's/.*"kv":"'"$1"'","kv_bytes_per_token":\([0-9]*\).*/\1/'; }
same "bytes of a token" "$(bytes f32) $(bytes f16) $(bytes q8_0)" "256 128 68"
expect "rows that are no whole blocks" 2 "generate.kv: q8_0 stores blocks of 32 numbers, but a token's keys in this model are 16" \
    $G --model "$tmp/runs/narrow" --prompt x generate.kv=q8_0
expect "a draft with such rows" 2 "the draft model: generate.kv: q8_0 stores blocks of 32" \
    $G --model "$M" --prompt x generate.kv=q8_0 "generate.draft=$tmp/runs/narrow"
expect "a type that there is not" 2 "generate.kv" $G --model "$M" --prompt x generate.kv=q4_0

# ---- refusals
other() { # NAME PIECES: a model of another vocabulary, made from the corpus backwards
    rev "$tmp/words" >"$tmp/$1.txt"
    "$BIN/tokenize" --quiet tokenize.out="$tmp/$1" "tokenize.inputs=$tmp/$1.txt" "tokenize.vocab_size=$2" \
        tokenize.split=line tokenize.val_frac=0.1 >/dev/null
    "$BIN/pretrain" --config "$tmp/tiny.yaml" --runs "$tmp/runs" --quiet "name=$1" "data.shards=$tmp/$1" \
        sched.tokens=512 val.samples=0
}
"$BIN/world" --seed 3 --count 300 --format txt >"$tmp/words"
other small 380
other same 400
expect "a draft model with another number of tokens" 2 "runs/small.* with 380 tokens in its vocabulary, but the model has 400" \
    $G --model "$M" --prompt x "generate.draft=$tmp/runs/small"
expect "a draft model of another vocabulary" 2 "runs/same.*another vocabulary: token [0-9]+ is '.*', the model's is '" \
    $G --model "$M" --prompt x "generate.draft=$tmp/runs/same"
expect "a draft model that is not there" 2 "none" $G --model "$M" --prompt x "generate.draft=$tmp/none"
expect "no model" 2 "--model" $G --prompt x
expect "missing model" 2 "none" $G --model "$tmp/none" --prompt x
expect "no prompt" 2 "--prompt" $G --model "$M"
expect "conflicting options" 2 "one of --prompt" $G --model "$M" --prompt x --tokens 1
expect "missing prompt file" 2 "none.txt" $G --model "$M" --prompt-file "$tmp/none.txt"
expect "a token outside the vocabulary" 2 "400" $G --model "$M" --tokens 1,400 generate.max_tokens=1
expect "tokens that are no numbers" 2 "--tokens" $G --model "$M" --tokens 1,x
expect "an empty token list" 2 "--tokens" $G --model "$M" --tokens ""
expect "an empty stop string" 2 "generate.stop" $G --model "$M" --prompt x 'generate.stop=[""]'
expect "a prompt that is no text" 4 "UTF-8" $G --model "$M" --prompt "$(printf 'a\377b')"
expect "out of range" 2 "generate.top_p" $G --model "$M" --prompt x generate.top_p=2
before=$(tree "$M")
expect "logits over the model" 2 "other.gguf: --logits would replace the model" $G --model "$tmp/other.gguf" --prompt a \
    --logits "$tmp/other.gguf"
expect "logits over a file of the model" 2 "--logits would replace the model" $G --model "$tmp/runs/tiny" --prompt a \
    --logits "$M/config.json"
expect "a prompt cache over the draft" 2 "--prompt-cache would replace the draft model" $G --model "$M" --prompt a \
    --prompt-cache "$tmp/other.gguf" "generate.draft=$tmp/other.gguf"
expect "logits over the prompt" 2 "--logits would replace the prompt's file" $G --model "$M" --prompt-file "$tmp/prompt" \
    --logits "$tmp/prompt"
same "all are as they were" "$(tree "$M") $(cat "$tmp/prompt")" "$before One day"
expect "logits where we cannot write" 1 "$tmp/none" $G --model "$M" --tokens 1 --logits "$tmp/none/l.f32"
expect "an unknown key" 2 "did you mean 'generate.top_k'" $G --model "$M" --prompt x generate.topk=1
expect_out "--dry-run loads and stops" "parameters +49670.*state +[0-9]+ bytes for 130 tokens, [0-9]+ of them .*prompt +2 tokens $" $G --model "$M" --prompt x --dry-run
$G --model "$M" --prompt x --dry-run --json >"$tmp/j.json"
json "--dry-run --json" "$tmp/j.json"
check "says the same" grep -q '"params":49670,.*"prompt_tokens":2,.*"state_bytes":[1-9]' "$tmp/j.json"
denied "a model that we may not read" 2 "$tmp/secret" generate --model "$tmp/secret" --prompt x
denied "a prompt file that we may not read" 2 "$tmp/secret" generate --model "$M" --prompt-file "$tmp/secret"
denied "logits where we may not write" 1 "$tmp/ro/l.f32" generate --model "$M" --tokens 1 --logits "$tmp/ro/l.f32"
printf 'old' >"$tmp/logits"
DISK_FULL_BYTES=100 disk_full "logits" "$tmp" $G --model "$M" --tokens 1,2,3 --logits "$tmp/logits"
same "the file that was there stays" "$(cat "$tmp/logits")" old

# ---- damage
hurt() { rm -rf "$tmp/hurt"; cp -rL "$M" "$tmp/hurt"; }
for f in model.safetensors config.json tokenizer.model; do
    hurt
    head -c "$(($(wc -c <"$M/$f") / 2))" "$M/$f" >"$tmp/hurt/$f"
    expect "truncated $f" 4 "$f" $G --model "$tmp/hurt" --prompt x
    hurt
    rm "$tmp/hurt/$f"
    [ "$f" = tokenizer.model ] || expect "no $f" 4 "hurt|$f" $G --model "$tmp/hurt" --prompt x
done
expect "no tokenizer.model: text needs one" 4 "no tokenizer" $G --model "$tmp/hurt" --prompt x
expect_out "token ids do not" "[0-9]" $G --model "$tmp/hurt" --tokens 1,2 generate.max_tokens=2
for f in model.safetensors tokenizer.model config.json; do
    hurt
    flip "$tmp/hurt/$f" "$(($(wc -c <"$M/$f") / 2))"
    expect "one flipped bit in a checkpoint's $f" 4 "$f" $G --model "$tmp/hurt" --prompt x
done
printf 'GGUF nonsense' >"$tmp/x.gguf"
expect "a GGUF that is none" 4 "x.gguf" $G --model "$tmp/x.gguf" --prompt x
: >"$tmp/x.gguf"
expect "an empty GGUF" 4 "x.gguf" $G --model "$tmp/x.gguf" --prompt x

# ---- signals
"$BIN/generate" --threads 1 --model "$M" --prompt x generate.max_tokens=1000000 generate.ignore_eos=true >"$tmp/o" 2>"$tmp/e" &
pid=$!
for _ in $(seq 400); do [ -s "$tmp/o" ] && break; sleep 0.02; done
kill -INT $pid; wait $pid
same "SIGINT: exit 130" "$?" 130
check "SIGINT: it saves nothing and does not say so" grep -q "^stopping; once more" "$tmp/e"
# While it reads a prompt, which takes this model minutes: a program that waits for signals
# catches SIGUSR1, bit 9 of the mask.
yes "$long" | head -c 1000000 >"$tmp/long.txt"
stopped() { # NAME OPTION...
    what=$1; shift
    "$BIN/generate" --threads 1 --quiet --model "$M" --prompt-file "$tmp/long.txt" "$@" >"$tmp/o" 2>"$tmp/e" &
    pid=$!
    for _ in $(seq 400); do
        mask=$(sed -n 's/^SigCgt:[[:space:]]*/0x/p' /proc/$pid/status)
        [ $((mask & 0x200)) = 0 ] || break
        sleep 0.02
    done
    sleep 0.1
    kill -TERM $pid
    for _ in $(seq 500); do kill -0 $pid 2>/dev/null || break; sleep 0.02; done
    kill -KILL $pid 2>/dev/null
    wait $pid 2>/dev/null
    same "SIGTERM while it reads, $what: exit 143 at once" "$?" 143
}
stopped "text"
same "nothing is said" "$(cat "$tmp/o")" ""
stopped "JSON" --json
json "a line all the same" "$tmp/o"
check "which says so" grep -q '"text":"","end":"interrupted","tokens":\[\]' "$tmp/o"
stopped "a cache" --prompt-cache "$tmp/s.prompt"
absent "no part of it" "$tmp"/s.prompt*
stopped "a conversation" --chat --json
check "its answer is empty" grep -q '"answer":"","end":"interrupted","tokens":\[\]' "$tmp/o"
finish
