#!/bin/sh
# sft.sh -- fine-tuning on conversations: from any kind of model, the same bits however it is
# interrupted, and what would go wrong in silence refused.
. tests/cli/lib.sh
model model.context=256
T="$BIN/tokenize --quiet tokenize.tokenizer=$tmp/data/tokenizer.model"
world() { "$BIN/world" --kind instructions --seed 3 --split "$1" --count "$2"; }
world train 300 >"$tmp/train.jsonl"
world val 40 >"$tmp/val.jsonl"
$T tokenize.inputs="$tmp/train.jsonl" tokenize.val_inputs="$tmp/val.jsonl" tokenize.val_frac=0 \
    tokenize.max_tokens=256 tokenize.out="$tmp/chat" >/dev/null 2>&1
cat >"$tmp/sft.yaml" <<END
name: chat
threads: 1
post: {model: $M}
data: {shards: $tmp/chat, seq_len: 256, batch_tokens: 1024}
optim: {lr: 1e-3}
sched: {tokens: 8192, warmup: 1024}
val: {every: 4, samples: 2, sample_tokens: 12}
log: {every: 1}
ckpt: {every: 4}
panel: {prompts: 0}
END
S="$BIN/sft --config $tmp/sft.yaml --runs $tmp/runs --quiet"
run_dir=$tmp/runs/chat
weights() { sha256sum "$tmp/runs/$1/ckpt/latest/model.safetensors" | cut -d ' ' -f 1; }

# ---- the good way
expect_out "--dry-run prints the plan" "parameters +49670" $S --dry-run
absent "--dry-run writes nothing" "$tmp/runs/chat"
expect "a whole run" 0 "" $S
same "--quiet: nothing to say" "$(cat "$tmp/.out" "$tmp/.err")" ""
check "targets are counted" grep -q '"train/targets":[1-9][0-9]*,"train/acc_tok":' "$run_dir/metrics.jsonl"
share=$("$BIN/tokenize" stats "$tmp/chat" | sed -n 's/^ *trained  *\([0-9.]*\)% of.*/\1/p' | head -n 1)
check "the assistant's tokens alone" awk -v p="$share" -F'"train/targets":' '
    NF > 1 { split($2, v, ","); sum += v[1]; n++ }
    END { r = 100 * sum / (n * 1024 * p); exit !(n > 2 && p > 0 && p < 50 && r > 0.7 && r < 1.4) }' \
    "$run_dir/metrics.jsonl"
check "validation by token, not by byte" sh -c "grep -q '\"val/loss\":.*\"val/acc_tok\":' '$run_dir/metrics.jsonl' && ! grep -q val/bpb '$run_dir/summary.json'"
check "samples: the prompt, then the model's answer" grep -q '<|user|>.*<|end|>' "$run_dir/samples/step-00000008.txt"
check "its answer in marks" grep -q '^<|assistant|>\[\[' "$run_dir/samples/step-00000008.txt"
check "the start model is an input of the run" grep -q '"model".*"sha256":"[0-9a-f]\{64\}' "$run_dir/run.json"
check "memory is what was planned, to the byte" awk '
    { split($0, f, /[,{}]/); for (i in f) { split(f[i], kv, ":"); v[kv[1]] = kv[2] } }
    END { p = v["\"memory/perm_bytes\""] + v["\"memory/step_bytes\""] + v["\"memory/meta_bytes\""]
          exit !(p > 0 && p == v["\"memory/planned_bytes\""]) }' "$run_dir/summary.json"
check "it has learned something" sh -c "grep -o '\"val/loss\":[0-9.]*' '$run_dir/metrics.jsonl' | cut -d: -f2 |
    awk 'NR == 1 { a = \$1 } { b = \$1 } END { exit !(b < a) }'"
check "the weights are the start's no more" sh -c "! cmp -s '$M/model.safetensors' '$run_dir/ckpt/latest/model.safetensors'"
# Asked of its own: the same mean over the same tokens.
val=$(sed -n 's/.*"step":8,.*"val\/loss":\([0-9.]*\).*/\1/p' "$run_dir/metrics.jsonl")
E="$BIN/eval --threads 1 --quiet --model $run_dir"
expect_out "eval on the shards" "conversations [0-9]+ +trained tokens [0-9]+ of [0-9]+: these alone are scored loss +[0-9.]+ \+/- [0-9.]+ nats" \
    $E --shards "$tmp/chat" eval.context=256
$E --shards "$tmp/chat" eval.context=256 --json >"$tmp/e.json"
json "eval --json" "$tmp/e.json"
check "its loss is val/loss" awk -v v="$val" -F'"loss":' '{ split($2, f, ","); d = f[1] - v
    exit !(v > 0 && d < 2e-6 && d > -2e-6) }' "$tmp/e.json"
same "over the trained tokens" "$(grep -o '"tokens":[0-9]*' "$tmp/e.json" | cut -d: -f2)" \
    "$("$BIN/tokenize" stats "$tmp/chat" --json | sed 's/.*"val"://; s/.*"answer_tokens":\([0-9]*\),"reasoning_tokens":\([0-9]*\).*/\1 \2/' | awk '{ print $1 + $2 }')"
expect "text beside them" 2 "of conversations only trained tokens are scored.*ask for them apart" $E --shards "$tmp/data" --shards "$tmp/chat"
printf '%s\n' '{"prompt":"a","chosen":"b","rejected":"c"}' '{"prompt":"d","chosen":"e","rejected":"f"}' >"$tmp/p.jsonl"
$T tokenize.inputs="$tmp/p.jsonl" tokenize.out="$tmp/p" >/dev/null 2>&1
expect "preferences" 4 "hold preferences, of which a loss says nothing" $E --shards "$tmp/p"
expect "preferences, before anything is read" 4 "hold preferences" $E --shards "$tmp/p" --dry-run
expect_out "the result generates" "" "$BIN/generate" --quiet --model "$run_dir" --prompt "One day" generate.max_tokens=4
expect "and exports" 0 "" "$BIN/quantize" --quiet --model "$run_dir" --type F32 --out "$tmp/chat.gguf"
expect_out "--json: the summary" '"complete":true.*"step":8,' $S --json --if-done=skip

# ---- the same bits
ref=$(weights chat)
expect_out "--verify-resume" "resume verified" $S name=vr --verify-resume=3
check "two threads" $S name=two --threads 2
same "give the same bits" "$(weights two)" "$ref"
check "smaller micro-batches" $S name=micro data.micro_rows=1
same "give the same loss at the first step" "$(grep -om1 '"train/loss":[0-9.]\{9\}' "$tmp/runs/micro/metrics.jsonl")" \
    "$(grep -om1 '"train/loss":[0-9.]\{9\}' "$run_dir/metrics.jsonl")"
"$BIN/sft" --config "$tmp/sft.yaml" --runs "$tmp/runs" --quiet name=killed ckpt.every=1 val.samples=0 >/dev/null 2>&1 &
pid=$!
for _ in $(seq 400); do [ -e "$tmp/runs/killed/ckpt/step-00000003" ] && break; sleep 0.02; done
kill -9 $pid 2>/dev/null; wait $pid 2>/dev/null
sed -i 's/"state":"[a-z]*"/"state":"running"/' "$tmp/runs/killed/status.json"
before=$(sha256sum "$tmp/runs/killed/config.yaml")
expect "resumed with another rank on purpose" 2 "cannot go on with lora.rank: 0 -> 8: its checkpoints have other tensors" \
    $S name=killed ckpt.every=1 val.samples=0 lora.rank=8 --resume=must
same "leaves its configuration" "$(sha256sum "$tmp/runs/killed/config.yaml")" "$before"
check "killed and resumed" $S name=killed ckpt.every=1 val.samples=0
same "ends in the same bits" "$(weights killed)" "$ref"
check "NEFTune" $S name=noisy sft.neftune=5
check "trains otherwise" [ "$(weights noisy)" != "$ref" ]
check "NEFTune with two threads" $S name=noisy2 sft.neftune=5 --threads 2
same "repeats itself" "$(weights noisy2)" "$(weights noisy)"
same "validation is without noise" "$($S name=n0 sft.neftune=50 optim.lr=0 val.every=1 sched.tokens=1024 >/dev/null 2>&1
    grep -om1 '"val/loss":[0-9.]*' "$tmp/runs/n0/metrics.jsonl")" \
    "$($S name=n1 optim.lr=0 val.every=1 sched.tokens=1024 >/dev/null 2>&1
    grep -om1 '"val/loss":[0-9.]*' "$tmp/runs/n1/metrics.jsonl")"

# ---- starts and choices
"$BIN/quantize" --quiet --model "$M" --type F32 --out "$tmp/start.gguf" >/dev/null 2>&1
"$BIN/quantize" --quiet --model "$M" --type F32 --format hf --out "$tmp/start-hf" >/dev/null 2>&1
for start in "$tmp/start.gguf" "$tmp/start-hf" "$tmp/runs/tiny"; do
    what=$(basename "$start")
    check "from $what" $S name=from post.model="$start" --if-done=redo
    same "from $what: the same bits" "$(weights from)" "$ref"
done
for start in "$tmp/start.gguf" "$tmp/start-hf" "$tmp/runs/tiny" "$M"; do
    what=$(basename "$start")
    check "tokenize for $what" "$BIN/tokenize" --quiet tokenize.tokenizer="$start" tokenize.inputs="$tmp/train.jsonl" \
        tokenize.val_inputs="$tmp/val.jsonl" tokenize.val_frac=0 tokenize.max_tokens=256 tokenize.out="$tmp/for-$what"
    check "tokenize for $what: the same shards" cmp "$tmp/for-$what/train-00000.tok.zst" "$tmp/chat/train-00000.tok.zst"
    check "tokenize for $what: which the model takes" $S name=for post.model="$start" data.shards="$tmp/for-$what" --dry-run
done
grep '<think>' "$tmp/train.jsonl" >"$tmp/worked.jsonl"
$T tokenize.inputs="$tmp/worked.jsonl" tokenize.val_frac=0.1 tokenize.max_tokens=256 tokenize.out="$tmp/worked" >/dev/null 2>&1
for on in all answer reasoning; do
    check "sft.train_on=$on" $S name=$on sft.train_on=$on data.shards="$tmp/worked"
done
first() { grep -om1 '"train/targets":[0-9]*' "$tmp/runs/$1/metrics.jsonl" | cut -d: -f2; }
same "answers and reasoning make up all targets" "$(($(first answer) + $(first reasoning)))" "$(first all)"
check "epochs" $S name=epochs sched.epochs=0.5
check "end where they should" sh -c "tail -n 3 '$tmp/runs/epochs/metrics.jsonl' | grep -qE '\"train/epoch\":0\.[56]'"

expect "left out on request" 0 "[0-9]+ of [0-9]+ conversations of the train split are longer" \
    $S name=short data.seq_len=128 data.batch_tokens=1024 post.overlong=drop

$T tokenize.inputs="$tmp/train.jsonl" tokenize.val_frac=0.1 tokenize.max_tokens=256 tokenize.out="$tmp/mixed" >/dev/null 2>&1
expect "train_on leaves out what has nothing of it" 0 "[1-9][0-9]* of [0-9]+ conversations of the train split have nothing that sft.train_on" \
    $S name=mixed sft.train_on=reasoning data.shards="$tmp/mixed"
expect "rows longer than the model's context: told" 0 "rows of 512 tokens .data.seq_len. for a model with a context of 256" \
    $S name=longrows data.seq_len=512 data.batch_tokens=1024
sed '/tokens: 8192/d' "$tmp/sft.yaml" >"$tmp/noend.yaml"
expect "nobody said how long: told" 0 "sched.tokens, which nobody set, means [0-9]+ passes" \
    "$BIN/sft" --config "$tmp/noend.yaml" --runs "$tmp/runs" --quiet name=noend --dry-run

# ---- refusals, before anything is written
head -c 3000 "$tmp/start.gguf" >"$tmp/cut.gguf"
folders=$(ls "$tmp/runs")
refuse() { # NAME CODE REGEX WORDS...
    what=$1 want=$2 regex=$3; shift 3
    expect "$what" "$want" "$regex" $S name=no "$@"
    same "$what: nothing written" "$(ls "$tmp/runs")" "$folders"
}
expect "a damaged GGUF file's tokenizer" 4 "cut.gguf" "$BIN/tokenize" --quiet tokenize.tokenizer="$tmp/cut.gguf" tokenize.inputs="$tmp/train.jsonl" \
    tokenize.out="$tmp/left"
expect "a folder without a tokenizer" 2 "runs/tokenizer.model" "$BIN/tokenize" --quiet tokenize.tokenizer="$tmp/runs" tokenize.inputs="$tmp/train.jsonl" \
    tokenize.out="$tmp/left"
refuse "no model named" 2 "post.model: name the model" post.model=
refuse "no such model" 2 "$tmp/none.*No such file" post.model="$tmp/none"
refuse "a folder that is no model" 4 "no config.json" post.model="$tmp/chat"
refuse "no shards named" 2 "data.shards: name the folder" data.shards=
refuse "plain text" 4 "hold plain text, wanted conversations" data.shards="$tmp/data"
shards "$tmp/other" 420
"$BIN/tokenize" --quiet tokenize.tokenizer="$tmp/other/tokenizer.model" tokenize.inputs="$tmp/train.jsonl" \
    tokenize.out="$tmp/chat2" >/dev/null
refuse "shards of another tokenizer" 4 "made with tokenizer .*tokenize with tokenize.tokenizer=" data.shards="$tmp/chat2"
refuse "conversations longer than a row" 2 "train.jsonl:[0-9]+. takes [0-9]+ tokens, a row has 64 .*post.overlong=drop" \
    data.seq_len=64 data.batch_tokens=1024
refuse "nothing left" 4 "no conversation to train on" data.seq_len=4 data.batch_tokens=8 post.overlong=drop
$T tokenize.inputs="$tmp/val.jsonl" tokenize.val_frac=0 tokenize.max_tokens=256 tokenize.out="$tmp/noval" >/dev/null 2>&1
refuse "adapters' settings without a rank" 2 "lora.targets: is set, but lora.rank is not" "lora.targets=[bogus]"
refuse "adapters that count nothing" 2 "lora.alpha" lora.rank=4 lora.alpha=0
refuse "an unknown key" 2 "unknown key 'sft.neftun'; did you mean 'sft.neftune'" sft.neftun=5
refuse "a section of another tool" 2 "" model.d_model=8
expect "no validation split: told" 0 "no validation split" $S name=noval data.shards="$tmp/noval"
cp -r "$M/" "$tmp/hurt" 2>/dev/null
flip "$tmp/hurt/model.safetensors" 9000
expect "a damaged start model" 4 "model.safetensors: damaged" $S name=hurt post.model="$tmp/hurt"
absent "no checkpoint of it" "$tmp/runs/hurt/ckpt/latest"
disk_full "a run" "$tmp/runs/full" $S name=full --if-done=redo
finish
