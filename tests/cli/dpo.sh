#!/bin/sh
# dpo.sh -- training on preferences: the first loss, the reference's cache, same bits, resume,
# refusals before anything is written, alarms.
. tests/cli/lib.sh
model
# pairs FILE N ANSWERS: sums, answered right and wrong.  ANSWERS is an awk expression for both.
pairs() {
    awk -v n="$2" "BEGIN { srand(7); for (i = 0; i < n; i++) { a = int(rand() * 50); b = int(rand() * 50); s = a + b
        w = s + 1 + int(rand() * 9); $3
        printf \"{\\\"prompt\\\":\\\"What is %d + %d?\\\",\\\"chosen\\\":\\\"%s\\\",\\\"rejected\\\":\\\"%s\\\"}\\n\", a, b, c, r } }" >"$1"
}
tokens() { # DIR FILE [VAL_FRAC]
    out=$1 in=$2 share=${3:-0.2}
    "$BIN/tokenize" --quiet "tokenize.inputs=$in" tokenize.out="$out" tokenize.tokenizer="$M" tokenize.val_frac="$share" >/dev/null
}
pairs "$tmp/pairs.jsonl" 200 'c = "It is " s "."; r = "I think it might be " w ", or so."'
tokens "$tmp/pairs" "$tmp/pairs.jsonl"
cat >"$tmp/dpo.yaml" <<END
name: dpo
threads: 1
post:
  model: $tmp/runs/tiny
data:
  shards: $tmp/pairs
  seq_len: 128
  batch_tokens: 512
optim:
  lr: 1e-3
sched:
  tokens: 5120
val:
  every: 5
  samples: 1
  sample_tokens: 8
log:
  every: 1
ckpt:
  every: 5
panel:
  prompts: 0
END
P="$BIN/dpo --config $tmp/dpo.yaml --runs $tmp/runs --quiet"
run_dir=$tmp/runs/dpo cache=$tmp/runs/.ref-cache
value() { # STEP NAME RUN: of the first row of that step that has it
    sed -n "s|.*\"step\":$1,.*\"$2\":\([-0-9.e+]*\).*|\1|p" "$tmp/runs/${3:-dpo}/metrics.jsonl" | head -n 1
}
near() { # NAME VALUE WANTED TOLERANCE
    : >"$tmp/.out"; : >"$tmp/.err"
    report "$1" "$(awk -v a="$2" -v b="$3" -v t="$4" 'BEGIN { d = a - b; print (a != "" && d <= t && d >= -t) }')" "'$2' is not $3"
}

# ---- the good way
expect_out "--dry-run prints the plan" "[Pp]arameters" $P --dry-run
absent "--dry-run writes nothing" "$run_dir" "$cache"
planned() { # NAME WORDS...
    key=$1; shift
    $P --dry-run --json "$@" 2>/dev/null | sed "s/.*\"$key\":\([-0-9.e+]*\).*/\1/"
}
# 200 pairs in rows of 128 tokens; forward is a third of forward and backward.
near "--dry-run counts the reference's pass" "$(planned reference_flops)" "$($P --dry-run --json 2>/dev/null | awk '
    { split($0, f, /[,{}]/); for (i in f) { split(f[i], kv, ":"); v[kv[1]] = kv[2] } }
    END { e = v["\"tokens\""] / v["\"epochs\""] / 0.8; print e / v["\"tokens\""] * v["\"flops\""] / 3 }')" 1e8
check "and its memory" awk -v w="$(planned weights_bytes)" -v r="$(planned reference_bytes)" -v s="$(planned step_bytes)" \
    'BEGIN { exit !(r > w && r < w + s) }'
same "none without one" "$(planned reference_bytes dpo.reference_free=true) $(planned reference_flops dpo.reference_free=true)" "0 0"
same "no panel, nothing for it" "$(planned panel_bytes)" 0
check "the panel's memory is in the total" test "$(planned total_bytes panel.prompts=20)" = \
    "$(($(planned total_bytes) + $(planned panel_bytes panel.prompts=20)))" -a "$(planned panel_bytes panel.prompts=20)" -gt 100000
expect "a whole run" 0 "" $P
same "--quiet: nothing to say" "$(cat "$tmp/.out" "$tmp/.err")" ""
for f in metrics.jsonl events.jsonl summary.json status.json run.json; do json "$f is JSON" "$run_dir/$f"; done
near "the first loss is ln 2" "$(value 1 train/loss)" 0.69314718056 1e-6
near "in double, too" "$(value 1 dpo/loss)" 0.69314718055994531 1e-12
same "no drift, no margin" "$(value 1 dpo/chosen_drift) $(value 1 dpo/rejected_drift) $(value 1 rewards/margins)" "0 0 0"
check "the check is an event" grep -q '"t":"first-loss".*0.693147181, 0.693147181' "$run_dir/events.jsonl"
check "margins grow" awk -v m="$(value 10 val/rewards/margins)" 'BEGIN { exit !(m > 0.3) }'
near "the margin is chosen less rejected" "$(value 10 rewards/margins)" \
    "$(awk -v c="$(value 10 rewards/chosen)" -v r="$(value 10 rewards/rejected)" 'BEGIN { print c - r }')" 1e-5
check "run.json names the reference" grep -q '"reference"' "$run_dir/run.json"
check "answers as samples" grep -q '<|assistant|>' "$run_dir/samples/step-00000010.txt"
check "memory is what was planned, to the byte" awk '
    { split($0, f, /[,{}]/); for (i in f) { split(f[i], kv, ":"); v[kv[1]] = kv[2] } }
    END { p = v["\"memory/perm_bytes\""] + v["\"memory/step_bytes\""] + v["\"memory/meta_bytes\""]
          exit !(p > 0 && p == v["\"memory/planned_bytes\""]) }' "$run_dir/summary.json"
grep -ohE '"(val/)?(dpo|rewards|logps)/[a-z_/]+":' "$run_dir/metrics.jsonl" | tr -d '":' | sed 's|^val/||' |
    LC_ALL=C sort -u >"$tmp/written"
sed -n '/^## Rows of dpo/,$p' docs/METRICS.md | grep -E '^\| `' | cut -d '`' -f 2 | LC_ALL=C sort -u >"$tmp/told"
same "docs/METRICS.md names what is written" "$(cat "$tmp/written")" "$(cat "$tmp/told")"
expect_out "the result is a model" "." "$BIN/generate" --model "$run_dir" --prompt "What is" generate.max_tokens=4
weights=$(tree "$run_dir/ckpt/latest/")
same "once it is there, --dry-run leaves the reference's pass out" "$(planned reference_bytes) $(planned reference_flops)" "0 0"

# ---- the first loss of every variant; M rows a micro-batch change nothing
first() { # NAME WANTED WORDS...
    what=$1 want=$2; shift 2
    $P name=first --if-done=redo sched.tokens=512 ckpt.every=1 "$@" >"$tmp/.out" 2>"$tmp/.err"
    near "the first loss: $what" "$(value 1 dpo/loss first)" "$want" 1e-9
    same "the first loss: $what: no warning" "$(grep -c warning "$tmp/.err")" 0
}
first "one row at a time" 0.69314718055994531 data.micro_rows=1
first "label smoothing" 0.69314718055994531 dpo.label_smoothing=0.2
first "by token" 0.69314718055994531 dpo.length_norm=true
first "ipo" 25 dpo.loss=ipo dpo.beta=0.1
first "a margin" 0.97407698418010668 dpo.margin=0.5
first "dpop" 0.69314718055994531 dpo.dpop=50
first "fast numerics" 0.69314718055994531 numerics=fast
$P name=first --if-done=redo sched.tokens=512 ckpt.every=1 dpo.nll=0.5 >"$tmp/.out" 2>"$tmp/.err"
same "the nll term is left out of the check" "$(grep -c WRONG "$tmp/runs/first/events.jsonl")" 0
check "and in the loss" awk -v l="$(value 1 dpo/loss first)" 'BEGIN { exit !(l > 1.5) }'
$P name=free --if-done=redo dpo.reference_free=true dpo.length_norm=true dpo.margin=1.4 dpo.beta=2.5 >"$tmp/.out" 2>"$tmp/.err"
same "reference-free: no drift, no check" "$(grep -c 'drift\|first-loss' "$tmp/runs/free/metrics.jsonl" "$tmp/runs/free/events.jsonl" |
    cut -d : -f 2 | tr '\n' ' ')" "0 0 "
expect "another reference than the start" 0 "" $P name=two post.model="$run_dir" dpo.reference="$tmp/runs/tiny" sched.tokens=512
check "starts from another loss, which nobody minds" awk -v l="$(value 1 dpo/loss two)" 'BEGIN { exit !(l > 0 && l < 0.69) }'

# ---- LoRA: the reference is the base, adapters off
base=$(tree "$tmp/runs/tiny/ckpt")
first "LoRA" 0.69314718055994531 lora.rank=4
first "LoRA on a bf16 base" 0.69314718055994531 lora.rank=4 lora.base=bf16
first "LoRA with dropout" 0.69314718055994531 lora.rank=4 "lora.targets=[attention, mamba]" lora.dropout=0.3
expect "a run with LoRA" 0 "" $P name=lora lora.rank=4 optim.lr=3e-3
near "its memory is what was planned" "$(sed -n 's/.*"memory\/perm_bytes":\([0-9]*\),"memory\/step_bytes":\([0-9]*\),"memory\/meta_bytes":\([0-9]*\),.*/\1 \2 \3/p' \
    "$tmp/runs/lora/summary.json" | awk '{ print $1 + $2 + $3 }')" \
    "$(sed -n 's/.*"memory\/planned_bytes":\([0-9]*\).*/\1/p' "$tmp/runs/lora/summary.json")" 0
check "margins grow" awk -v m="$(value 10 val/rewards/margins lora)" 'BEGIN { exit !(m > 0.1) }'
check "an adapter is saved" test -e "$tmp/runs/lora/ckpt/latest/adapter_model.safetensors"
same "the base is as it was" "$(tree "$tmp/runs/tiny/ckpt")" "$base"
expect_out "LoRA: --verify-resume" "resume verified" $P name=vr --verify-resume=3 lora.rank=4
expect "training goes on from the adapted model" 0 "" $P name=second post.model="$tmp/runs/lora" sched.tokens=512
near "whose own numbers are the reference" "$(value 1 dpo/loss second)" 0.69314718055994531 1e-12
expect "or compares with the first one" 0 "" $P name=third post.model="$tmp/runs/lora" dpo.reference="$tmp/runs/tiny" sched.tokens=512
near "and starts where the adapted one ended" "$(value 1 dpo/loss third)" "$(value 10 val/dpo/loss lora)" 0.05

# ---- the cache
rm -rf "$cache"
$P --if-done=redo
$P name=first --if-done=redo sched.tokens=512 numerics=fast
same "a file for each split, and numerics" "$(ls "$cache" | wc -l)" 4
rm -rf "$cache"
expect "computed once more" 0 "reference .*tok/s.*the first loss is 0.6931472" "$BIN/dpo" --config "$tmp/dpo.yaml" --runs "$tmp/runs" --if-done=redo
expect "then taken from the file, for another beta" 0 "160? ?.*train pairs: from $cache/" "$BIN/dpo" --config "$tmp/dpo.yaml" \
    --runs "$tmp/runs" name=beta --if-done=redo dpo.beta=0.3
same "two files" "$(ls "$cache" | wc -l)" 2
big=$(ls -S "$cache" | head -n 1) small=$(ls -S "$cache" | tail -n 1)
whole=$(sha256sum <"$cache/$big")
again() { # NAME REGEX
    expect "$1" 0 "warning: $2: computed anew" $P --if-done=redo
    same "$1: the run ends in the same weights" "$(tree "$run_dir/ckpt/latest/")" "$weights"
    same "$1: the file is whole again" "$(sha256sum <"$cache/$big")" "$whole"
}
flip "$cache/$big" 1000
again "a flipped bit" "$cache/$big: it is damaged"
cp "$cache/$small" "$cache/$big"
again "the other split's file" "$cache/$big: it is not of split train"
head -c 700 "$cache/$big" >"$tmp/part" && cp "$tmp/part" "$cache/$big"
again "a cut file" "$cache/$big.*"
: >"$cache/$big"
again "an empty file" "$cache/$big.*"
n=$(ls "$cache" | wc -l)
check "lower kernels give other last bits" env CHIMERA_KERNELS=ref $P name=ref sched.tokens=512
same "and have files of their own" "$(($(ls "$cache" | wc -l) - n)) $(grep -lac 'kernels ref' "$cache"/* | wc -l)" "2 2"
rm -rf "$cache"
$P name=part val.tokens=200 sched.tokens=512
part=$(sha256sum <"$cache/$small")
expect "a file that has only a part is completed" 0 "" $P --if-done=redo
same "without a word" "$(cat "$tmp/.err")" ""
check "it has grown" test "$(sha256sum <"$cache/$small")" != "$part"
same "and the run ends in the same weights" "$(tree "$run_dir/ckpt/latest/")" "$weights"
# Data that grew are other data.
pairs "$tmp/more.jsonl" 220 'c = "It is " s "."; r = "I think it might be " w ", or so."'
tokens "$tmp/more" "$tmp/more.jsonl"
$P name=more data.shards="$tmp/more" sched.tokens=512 >"$tmp/.out" 2>"$tmp/.err"
same "and has files of its own" "$(ls "$cache" | wc -l)" 4
near "with the right numbers" "$(value 1 dpo/loss more)" 0.69314718055994531 1e-12
: >"$tmp/file"
expect "a cache that cannot be written is a warning" 0 "log-probabilities are not kept: .*file" $P name=nc dpo.ref_cache="$tmp/file/x" sched.tokens=512

# ---- the same bits
for n in 2 3; do
    expect "$n threads" 0 "" $P name=threads --if-done=redo --threads $n
    same "$n threads: the same bits" "$(cmp "$run_dir/ckpt/latest/model.safetensors" "$tmp/runs/threads/ckpt/latest/model.safetensors" 2>&1)" ""
done
expect_out "--verify-resume" "resume verified" $P name=vr --verify-resume=3
more="ckpt.every=1 ckpt.keep_last=3 sched.tokens=20480"
expect "straight" 0 "" $P name=straight $more
"$BIN/dpo" --config "$tmp/dpo.yaml" --runs "$tmp/runs" --quiet name=cut $more >/dev/null 2>&1 &
pid=$!
for _ in $(seq 400); do [ -e "$tmp/runs/cut/ckpt/step-00000005" ] && break; sleep 0.02; done
kill -9 $pid 2>/dev/null; wait $pid 2>/dev/null
check "killed in the middle" grep -q '"state":"running"' "$tmp/runs/cut/status.json"
expect "kill -9, then resume" 0 "" $P name=cut $more
same "the same bits" "$(cmp "$tmp/runs/cut/ckpt/latest/model.safetensors" "$tmp/runs/straight/ckpt/latest/model.safetensors" 2>&1)" ""
for m in dpo/loss val/rewards/margins; do same "the same $m" "$(value 40 $m cut)" "$(value 40 $m straight)"; done

# ---- refusals, before anything is written
folders=$(ls -A "$tmp/runs")
refuse() { # NAME CODE REGEX WORDS...
    what=$1 want=$2 regex=$3; shift 3
    expect "$what" "$want" "$regex" $P name=refused "$@"
    same "$what: nothing written" "$(ls -A "$tmp/runs")" "$folders"
}
refuse "no model" 2 "post.model: name the model" post.model=
refuse "a missing model" 2 "$tmp/none.*No such file" post.model="$tmp/none"
refuse "no shards" 2 "data.shards" data.shards=
refuse "plain text" 4 "these shards hold plain text, wanted preferences" data.shards="$tmp/data"
printf '%s\n' '{"prompt":"What is 1 + 1?","response":"2"}' '{"prompt":"What is 1 + 2?","response":"3"}' >"$tmp/chat.jsonl"
tokens "$tmp/chat" "$tmp/chat.jsonl" 0
refuse "conversations" 4 "these shards hold conversations, wanted preferences" data.shards="$tmp/chat"
refuse "ipo with label smoothing" 2 "dpo.label_smoothing: dpo.loss = ipo has no such term" dpo.loss=ipo dpo.label_smoothing=0.1
refuse "ipo with a margin" 2 "dpo.margin: dpo.loss = ipo" dpo.loss=ipo dpo.margin=1
refuse "reference-free with a reference" 2 "dpo.reference: dpo.reference_free leaves no" dpo.reference_free=true dpo.reference="$tmp/runs/tiny"
refuse "reference-free dpop" 2 "dpo.dpop: dpo.reference_free leaves no" dpo.reference_free=true dpo.dpop=5
refuse "label smoothing of more than half" 2 "dpo.label_smoothing" dpo.label_smoothing=0.6
refuse "an answer longer than the row" 2 "pair [0-9]+ of the train split.* takes [0-9]+ tokens, a row has 32" data.seq_len=32 data.batch_tokens=512
refuse "no pair fits" 4 "no pair to train on.*[0-9]+ of them longer than a row" data.seq_len=32 data.batch_tokens=512 post.overlong=drop
shards "$tmp/other" 420
sed "s|$tmp/data|$tmp/other|; s/^name: tiny/name: other/" "$tmp/tiny.yaml" >"$tmp/other.yaml"
"$BIN/pretrain" --config "$tmp/other.yaml" --runs "$tmp/runs" --quiet sched.tokens=512 2>/dev/null
folders=$(ls -A "$tmp/runs")
refuse "a reference with another tokenizer" 4 "dpo.reference has tokenizer [0-9a-f]+, the shards and the model to train have" dpo.reference="$tmp/runs/other"
refuse "shards of another tokenizer" 4 "these shards were made with tokenizer" post.model="$tmp/runs/other"
refuse "a plan above max_gb" 7 "max_gb" train.max_gb=0.0001

# ---- alarms
pairs "$tmp/close.jsonl" 200 'c = "It is " s "."; r = "It is " w "."'
tokens "$tmp/close" "$tmp/close.jsonl"
A="data.shards=$tmp/close optim.lr=1e-2 sched.tokens=10240"
expect "likelihood displacement" 0 "warning: likelihood displacement: the chosen answers are [0-9.]+ nats per token less likely.*dpo.nll or dpo.dpop" \
    $P name=disp $A dpo.displacement=0.01
same "told once" "$(grep -c 'likelihood displacement' "$tmp/.err")" 1
check "and an event" grep -q '"t":"displacement"' "$tmp/runs/disp/events.jsonl"
expect "dpo.stop ends the run" 3 "step [0-9]+: likelihood displacement.*dpo.stop" $P name=stop $A dpo.displacement=0.01 dpo.stop=true
check "its state is saved" test -e "$tmp/runs/stop/ckpt/latest/state.json"
check "its summary says so" grep -q '"complete":false,"alarm":"step [0-9]*: likelihood displacement' "$tmp/runs/stop/summary.json"
expect "started again it ends the same way" 3 "step [0-9]+: likelihood displacement.*dpo.stop" $P name=stop $A dpo.displacement=0.01 dpo.stop=true
expect "it can go on" 0 "" $P name=stop $A dpo.displacement=0 --resume=must
same "off: no word" "$(grep -c 'likelihood' "$tmp/.err")" 0
# Nothing but length tells these apart.
pairs "$tmp/long.jsonl" 300 'k = int(rand() * 5); m = k + 1 + int(rand() * 3); c = r = "It is " s "."
    for (j = 0; j < m; j++) c = c " Yes."; for (j = 0; j < k; j++) r = r " Yes."'
tokens "$tmp/long" "$tmp/long.jsonl"
expect "length bias" 0 "warning: length bias: the margins follow the difference in length .correlation [+-][0-9.]+, .* the longer answer wins [0-9]+ % of the pairs" \
    $P name=long data.shards="$tmp/long" optim.lr=3e-3 dpo.length_bias=0.3
for i in 1 2; do
    expect "dpo.stop at the last step, try $i" 3 "step 10: length bias.*dpo.stop" \
        $P name=last data.shards="$tmp/long" optim.lr=3e-3 dpo.length_bias=0.2 val.every=0 dpo.stop=true
    check "status, try $i" grep -q '"state":"failed".*"step":10,.*"exit":3' "$tmp/runs/last/status.json"
done
# Start model and reference lie where others can change them (a `latest` that moved on).
cp -rL "$M" "$tmp/moves"
Q="$P name=moves post.model=$tmp/moves data.shards=$tmp/long optim.lr=3e-3 dpo.length_bias=0.2 val.every=0 dpo.stop=true"
expect "stopped, to go on" 3 "" $Q
rm -rf "$tmp/moves"
cp -rL "$tmp/runs/last/ckpt/latest" "$tmp/moves"
expect "not from another model" 4 "runs/moves: the run did not begin with the model at " $Q
rm -rf "$tmp/moves"
cp -rL "$M" "$tmp/moves"
expect "the old one is back" 3 "length bias.*dpo.stop" $Q
tokens "$tmp/long2" "$tmp/long.jsonl" 0
expect "without a validation the batches are judged" 0 "no validation split.*: dpo.stop has no effect.*warning: length bias" \
    $P name=long2 dpo.stop=true data.shards="$tmp/long2" optim.lr=3e-3 dpo.length_bias=0.3 sched.tokens=51200
finish
