#!/bin/sh
# pretrain.sh -- training: its run folder, refusals, damage, signals, divergence, full disks.
. tests/cli/lib.sh
shards "$tmp/data"
tiny "$tmp/tiny.yaml"
P="$BIN/pretrain --config $tmp/tiny.yaml --runs $tmp/runs --quiet"
run_dir=$tmp/runs/tiny

# ---- the good way
expect_out "--dry-run prints the plan" "[Pp]arameters" $P --dry-run
absent "--dry-run writes nothing" "$tmp/runs"
expect "settings of muon without it" 0 "optim.muon_beta2 changes nothing: optim.kind is not muon" \
    $P --dry-run optim.kind=adamw optim.muon_beta2=0.9
expect "and with it" 0 "" $P --dry-run --quiet optim.kind=muon optim.muon_beta2=0.9
same "nothing to say" "$(cat "$tmp/.err")" ""
expect "a whole run" 0 "" $P
same "stdout is empty: results are files" "$(cat "$tmp/.out")" ""
same "--quiet: nothing to say" "$(cat "$tmp/.err")" ""
for f in metrics.jsonl events.jsonl summary.json status.json run.json; do
    json "$f is JSON" "$run_dir/$f"
done
expect_out "status says done" '"state":"done".*"exit":0' cat "$run_dir/status.json"
expect_out "config.yaml parses" "d_model: 32" "$BIN/pretrain" --config "$run_dir/config.yaml" --print-config
# docs/METRICS.md names what a run writes, and before its section on evaluations nothing else.
cat "$run_dir/metrics.jsonl" "$run_dir/summary.json" | grep -oE '"[a-z_/0-9]+":' | tr -d '":' |
    sed 's/_layer$//' | LC_ALL=C sort -u >"$tmp/written"
sed '/^## Evaluation metrics/,$d' docs/METRICS.md | grep -E '^\| `' | cut -d '|' -f 2 | grep -oE '`[a-z_/0-9]+`' | tr -d '`' | LC_ALL=C sort -u >"$tmp/told"
same "docs/METRICS.md names every metric" "$(comm -23 "$tmp/written" "$tmp/told")" ""
same "docs/METRICS.md names no other" "$(comm -13 "$tmp/written" "$tmp/told")" ""
check "memory is what was planned, to the byte" awk '
    { split($0, f, /[,{}]/); for (i in f) { split(f[i], kv, ":"); v[kv[1]] = kv[2] } }
    END { p = v["\"memory/perm_bytes\""] + v["\"memory/step_bytes\""] + v["\"memory/meta_bytes\""]
          exit !(p > 0 && p == v["\"memory/planned_bytes\""]) }' "$run_dir/summary.json"
check "the checkpoint's sums hold" sh -c "cd '$run_dir/ckpt/latest' && sha256sum --quiet -c SHA256SUMS"
good=$(tree "$run_dir")
weights=$(tree "$run_dir/ckpt")
expect "a finished run" 2 "holds a finished run.*--if-done=skip" $P
expect "--if-done=skip" 0 "" $P --if-done=skip
same "both leave everything as it was" "$(tree "$run_dir")" "$good"
expect "--resume=must with nothing there" 2 "no run to resume" $P name=other --resume=must
absent "leaves nothing" "$tmp/runs/other"
same "the same settings: nothing to say" "$(cat "$tmp/.err")" ""
expect "--if-done=skip names what changed since" 0 "tiny: kept.*other settings .optim.lr: 0.0.* -> 0.5; ckpt.every: 5 -> 7" \
    $P --if-done=skip optim.lr=0.5 ckpt.every=7
same "and leaves it" "$(tree "$run_dir")" "$good"
expect_out "--if-done=skip --json gives the kept run's summary" '^.*"complete":true.*"step":10,' $P --if-done=skip --json
expect "--if-done=redo" 0 "" $P --if-done=redo
same "redo ends in the same bits" "$(tree "$run_dir/ckpt")" "$weights"
expect "plain progress and log on stderr" 0 "tok  [0-9.kM]+ tok/s  eta .*step=10/10 loss=.*val loss" \
    "$BIN/pretrain" --config "$tmp/tiny.yaml" --runs "$tmp/runs" name=loud
same "and nothing on stdout" "$(cat "$tmp/.out")" ""
same "no colour, no carriage returns" "$(tr -cd '\033\r' <"$tmp/.err")" ""
if terminal; then
    TERM=xterm NO_COLOR=1 script -qec "$BIN/pretrain --config $tmp/tiny.yaml --runs $tmp/runs name=tty" \
        /dev/null >"$tmp/tty" 2>&1 </dev/null
    same "NO_COLOR holds on a terminal" "$(tr -cd '\033' <"$tmp/tty")" ""
else
    skip "NO_COLOR on a terminal" "no pseudo-terminal"
fi
expect_out "--verify-resume" "resume verified" $P name=vr --verify-resume=3
expect "other weights with another seed" 0 "" $P name=seed seed=43
seed=$(tree "$tmp/runs/seed")
$P name=js --json >"$tmp/js.json" 2>"$tmp/.err"
json "--json: the summary on stdout" "$tmp/js.json"
same "as in summary.json" "$(cat "$tmp/js.json")" "$(cat "$tmp/runs/js/summary.json")"
$P name=js2 --dry-run --json >"$tmp/js.json" 2>"$tmp/.err"
json "--dry-run --json" "$tmp/js.json"
check "has the plan" grep -q '"params":49670,.*"total_bytes":[0-9]*,.*"steps":10,' "$tmp/js.json"
$P name=vr --verify-resume=3 --json >"$tmp/js.json" 2>"$tmp/.err"
json "--verify-resume --json" "$tmp/js.json"

# ---- --profile
expect_out "--profile prints the account" "profile of 9 steps.*linear .*ssd .*optimizer .*rest" $P name=prof --profile
check "and changes no bit" cmp "$run_dir/ckpt/latest/optimizer.safetensors" "$tmp/runs/prof/ckpt/latest/optimizer.safetensors"
json "profile.json" "$tmp/runs/prof/profile.json"
check "has ops with their share of floor" grep -qE \
    '"linear":\{"calls":[0-9]+,"forward":\{"seconds":[0-9.e-]+,"flops":[0-9.e+]+,"bytes":[0-9.e+]+,"share_of_floor":[0-9.e-]+\}' \
    "$tmp/runs/prof/profile.json"
expect_out "--profile --json: the summary alone on stdout" '^\{"complete":true.*\} $' $P name=profj --profile --json
check "and the file" test -s "$tmp/runs/profj/profile.json"
absent "no profile unasked" "$run_dir/profile.json"
check "really other" sh -c "! cmp -s '$run_dir/ckpt/latest/model.safetensors' '$tmp/runs/seed/ckpt/latest/model.safetensors'"

expect "val.routes" 0 "" $P name=routes val.routes=70 val.tokens=300
for n in 5 10; do
    same "a line for each of 70 tokens, two different experts in each of two layers, step $n" "$(awk '
        NF == 4 && $1 != $2 && $3 != $4 && /^[0-3 ]*$/ { n++ } END { print n, NR }' \
        "$tmp/runs/routes/routes/step-000000$(printf %02d $n).txt")" "70 70"
done

# ---- refusals, before anything is written
folders=$(ls "$tmp/runs")
refuse() { # NAME CODE REGEX WORDS...
    what=$1 want=$2 regex=$3; shift 3
    expect "$what" "$want" "$regex" $P "$@"
    same "$what: nothing written" "$(ls "$tmp/runs")" "$folders"
}
refuse "no shards named" 2 "data.shards" data.shards=
refuse "missing shards" 2 "$tmp/none.*No such file" data.shards="$tmp/none"
refuse "a corpus smaller than one batch" 2 "data.(batch_tokens|seq_len)" data.batch_tokens=1280000
refuse "a corpus smaller than one row" 2 "data.seq_len|row" data.seq_len=200k data.batch_tokens=200k
refuse "batch no multiple of a row" 2 "data.batch_tokens.*multiple" data.batch_tokens=100
refuse "micro-batch does not divide the batch" 2 "data.micro_rows" data.micro_rows=3
refuse "another vocabulary than the shards'" 2 "model.vocab_size.*400" model.vocab_size=300
refuse "a plan above max_gb" 7 "max_gb" train.max_gb=0.0001
need=$($P --dry-run --json | sed 's/.*"total_bytes":\([0-9]*\).*/\1/')
short=$(awk "BEGIN { printf \"%.9f\", ($need - 1) / 1e9 }")
refuse "a byte less than it needs" 7 "needs 0.00[0-9]{2} GB of memory.*train.max_gb allows $short GB" \
    data.micro_rows=8 train.max_gb="$short"
refuse "a name that is a path" 2 "no name for a folder" name=../x
refuse "a model GGUF cannot say" 2 "model.pattern: GGUF cannot say" model.pattern=M
refuse "more threads than there can be" 2 "threads" --threads 5000
expect "verify-resume of nothing" 2 "verify-resume" $P --verify-resume=0
expect "verify-resume of more steps than there are" 2 "verify-resume=7" $P --verify-resume=7
expect "--resume=maybe" 2 "auto, must or never" $P --resume=maybe

# ---- damaged shards
cp -r "$tmp/data" "$tmp/hurt"
flip "$tmp/hurt/train-00000.tok.zst" "$(($(wc -c <"$tmp/data/train-00000.tok.zst") / 2))"
expect "a shard with one flipped bit" 4 "train-00000.tok.zst" $P name=hurt data.shards="$tmp/hurt"
absent "no checkpoint of it" "$tmp/runs/hurt/ckpt/latest"
shards "$tmp/other" 420
cp "$tmp/other/tokenizer.model" "$tmp/hurt/tokenizer.model"
cp "$tmp/data/train-00000.tok.zst" "$tmp/hurt/"
expect "another tokenizer in the shards' folder" 4 "tokenizer.model" $P name=hurt2 data.shards="$tmp/hurt"

# ---- what was told is not told again
E="$P name=experts model.lb_coef=0 sched.tokens=51200 ckpt.every=1"
$E 2>/dev/null &
pid=$!
for _ in $(seq 1000); do grep -qs '"step":30,' "$tmp/runs/experts/metrics.jsonl" && break; sleep 0.01; done
kill -9 $pid; wait $pid 2>/dev/null
check "cut off after a warning" grep -q "experts collapse" "$tmp/runs/experts/train.log"
expect "resumed" 0 "" $E
check "gone on, not begun again" grep -q "resuming at step" "$tmp/runs/experts/train.log"
same "collapsed experts are told once" "$(grep -c "experts collapse" "$tmp/runs/experts/train.log")" 1

# ---- resuming from damage
half() { # a run stopped after step 5 of 10, under NAME, with key=value...
    half=$1
    shift
    rm -rf "$tmp/runs/$half"
    "$BIN/pretrain" --config "$tmp/tiny.yaml" --runs "$tmp/runs" --quiet name="$half" ckpt.every=1 \
        ckpt.keep_last=3 "$@" >/dev/null 2>&1 &
    pid=$!
    for _ in $(seq 400); do [ -e "$tmp/runs/$half/ckpt/step-00000005" ] && break; sleep 0.02; done
    kill -9 $pid 2>/dev/null; wait $pid 2>/dev/null
    # Whatever step it got to, step 10 or not: put the run back to unfinished.
    sed -i 's/"state":"[a-z]*"/"state":"running"/' "$tmp/runs/$half/status.json"
}
half cut
for f in model.safetensors optimizer.safetensors state.json; do
    c=$(ls -d "$tmp"/runs/cut/ckpt/step-* | tail -n 1)
    head -c "$(($(wc -c <"$c/$f") / 2))" "$c/$f" >"$tmp/part" && cp "$tmp/part" "$c/$f"
    expect "truncated $f: the checkpoint before it is taken" 0 "$f: damaged.*trying the checkpoint before" \
        $P name=cut ckpt.every=1 ckpt.keep_last=3
    check "truncated $f: and the run ends in the same weights" cmp \
        "$tmp/runs/cut/ckpt/latest/model.safetensors" "$run_dir/ckpt/latest/model.safetensors"
    sed -i 's/"state":"done"/"state":"running"/' "$tmp/runs/cut/status.json"
done
for c in "$tmp"/runs/cut/ckpt/step-*; do flip "$c/model.safetensors" 5000; done
before=$(tree "$tmp/runs/cut/ckpt")
expect "every checkpoint damaged" 4 "model.safetensors: damaged" $P name=cut ckpt.every=1 ckpt.keep_last=3
same "none of them is lost for that" "$(tree "$tmp/runs/cut/ckpt")" "$before"
# What a checkpoint holds cannot change; the refusal leaves the run's own configuration.
half state
before=$(tree "$tmp/runs/state")
expect "resuming with other moments" 2 "optim.state: fp32 -> int8: its checkpoints have other tensors" \
    $P name=state ckpt.every=1 ckpt.keep_last=3 --resume=must optim.state=int8 train.compute=bf16
same "nothing is written" "$(tree "$tmp/runs/state")" "$before"
expect "and the run goes on as it was" 0 "" $P name=state ckpt.every=1 ckpt.keep_last=3
half mix
sums() { cat "$tmp"/runs/mix/ckpt/step-*/SHA256SUMS; }
before=$(sums)
expect "resuming on another tokenizer's shards" 4 "did not begin with the shards" $P name=mix data.shards="$tmp/other" --resume=must
"$BIN/tokenize" --quiet tokenize.out="$tmp/data2" "tokenize.inputs=$tmp/corpus.jsonl" tokenize.val_frac=0.2 \
    tokenize.tokenizer="$tmp/data/tokenizer.model" >/dev/null
all=$(tree "$tmp/runs/mix")
expect "resuming on other shards" 4 "did not begin with the shards at $tmp/data2" $P name=mix data.shards="$tmp/data2" --resume=must
same "nothing is written" "$(tree "$tmp/runs/mix")" "$all"
expect "resuming another model" 2 "another configuration" $P name=mix optim.lr=0.5
expect "--resume=never" 2 "unfinished run" $P name=mix --resume=never
same "its checkpoints are as they were" "$(sums)" "$before"
# A limit chooses the rows that experts are balanced over.
for rows in data.micro_rows=0 data.micro_rows=4 model.lb_coef=0 model.ffn=D; do
    half limit $rows
    $P name=limit $rows train.max_gb=1 --resume=must >/dev/null 2>"$tmp/.err"
    found=$(grep -A 1 "warning: .*the configuration has changed" "$tmp/.err" | grep -c "train.max_gb: 0 -> 1")
    same "another limit with $rows: a warning?" "$found" $([ $rows = data.micro_rows=0 ] && echo 1 || echo 0)
done

# OpenBLAS's kernels matter where it computes.
for how in fast strict; do
    OPENBLAS_CORETYPE=Prescott $P name=blas-$how numerics=$how sched.tokens=512 >/dev/null 2>"$tmp/.err"
    found=$(grep -c "warning: OpenBLAS runs its Prescott kernels" "$tmp/.err")
    same "$how numerics and OpenBLAS for an old CPU" "$found" $([ $how = strict ] && echo 0 || echo 1)
done

# The file of a whole project, every tool's section in it.
{ cat "$tmp/tiny.yaml"; printf 'generate:\n  max_tokens: 5\nquantize:\n  type: q8_0\n'; } >"$tmp/shared.yaml"
"$BIN/pretrain" --config "$tmp/shared.yaml" --runs "$tmp/runs" --quiet name=shared sched.tokens=10M val.every=0 \
    >/dev/null 2>&1 &
pid=$!
for _ in $(seq 400); do [ -e "$tmp/runs/shared/ckpt/latest" ] && break; sleep 0.02; done
kill -INT $pid; wait $pid
step=$(sed 's/.*"step":\([0-9]*\).*/\1/' "$tmp/runs/shared/status.json")
"$BIN/pretrain" --config "$tmp/shared.yaml" --runs "$tmp/runs" name=shared sched.tokens=10M val.every=0 \
    >/dev/null 2>"$tmp/shared.err" &
pid=$!
for _ in $(seq 400); do grep -q "resuming at step" "$tmp/shared.err" && break; kill -0 $pid 2>/dev/null || break; sleep 0.02; done
kill -INT $pid 2>/dev/null; wait $pid
same "other tools' sections in the file: the run goes on" \
    "$(sed -n 's/.*resuming at step \([0-9]*\) .*/\1/p' "$tmp/shared.err")" "$step"

# ---- a folder that goes away under the run
spawn_gone() { # NAME
    "$BIN/pretrain" --config "$tmp/tiny.yaml" --runs "$tmp/runs" name="$1" sched.tokens=10M val.every=0 ckpt.every=50 \
        >/dev/null 2>"$tmp/gone.err" &
    pid=$!
    for _ in $(seq 400); do [ -s "$tmp/runs/$1/metrics.jsonl" ] && break; sleep 0.02; done
}
spawn_gone removed
until rm -rf "$tmp/runs/removed" 2>/dev/null; do :; done
wait $pid
same "the run's folder is removed: exit 1" "$?" 1
check "and a sentence" grep -q "runs/removed: the run's folder.*was removed or moved" "$tmp/gone.err"
spawn_gone moved
mv "$tmp/runs/moved" "$tmp/elsewhere"
wait $pid
same "the run's folder is moved: exit 1" "$?" 1
check "which is said" grep -q "runs/moved: the run's folder.*was removed or moved" "$tmp/gone.err"

# ---- divergence
# Decoupled decay multiplies every matrix by 1 - 10 * 10 a step: infinity in 20 steps.
boom="optim.lr=10 optim.weight_decay=10 optim.clip=0 sched.kind=constant"
# shellcheck disable=SC2086
expect "NaN in training" 6 "NaN or infinity" $P name=nan $boom sched.tokens=51200 ckpt.every=1
expect_out "status says diverged" '"state":"diverged".*"exit":6' cat "$tmp/runs/nan/status.json"
c=$(readlink -f "$tmp/runs/mix/ckpt/latest")
sums=$(cat "$c/SHA256SUMS")
# shellcheck disable=SC2086
expect "NaN after a good checkpoint" 6 "untouched" $P name=mix --resume=must $boom sched.tokens=102400 ckpt.every=1000
same "the good checkpoint is as it was" "$(cat "$c/SHA256SUMS")" "$sums"
check "and whole" sh -c "cd '$c' && sha256sum --quiet -c SHA256SUMS"
# Steps that are NaN are skipped, so the first validation comes, of weights that are broken already.
# shellcheck disable=SC2086
expect "NaN in validation" 6 "step 5: the validation loss is NaN: .*untouched in" $P name=nanval $boom \
    val.every=5 val.samples=0 sched.tokens=51200
absent "it is never the best" "$tmp/runs/nanval/ckpt/best" "$tmp/runs/nanval/ckpt/latest"

# ---- folders that cannot be written, or are taken
expect "runs below a file" 1 "tiny.yaml" $P --runs "$tmp/tiny.yaml"
expect "runs in /proc" 1 "/proc" $P --runs /proc/chimera
denied "runs where we may not write" 1 "$tmp/ro" pretrain --config "$tmp/tiny.yaml" --runs "$tmp/ro"
denied "shards that we may not read" 2 "$tmp/secret" pretrain --config "$tmp/tiny.yaml" --runs "$tmp/ro" \
    data.shards="$tmp/secret"
denied "a configuration that we may not read" 2 "$tmp/secret" pretrain --config "$tmp/secret" --runs "$tmp/ro"
denied "a run of somebody else's" 1 "$tmp/runs/seed/lock" pretrain --config "$tmp/tiny.yaml" --runs "$tmp/runs" \
    name=seed --if-done=redo
same "which stays as it was" "$(tree "$tmp/runs/seed")" "$seed"
"$BIN/pretrain" --config "$tmp/tiny.yaml" --runs "$tmp/runs" name=long sched.tokens=10M val.every=0 ckpt.every=5 \
    >"$tmp/long.out" 2>"$tmp/long.err" &
pid=$!
for _ in $(seq 400); do [ -e "$tmp/runs/long/ckpt/latest" ] && break; sleep 0.02; done
expect "a folder in use, by whom" 2 "in use by process $pid" $P name=long sched.tokens=10M
same "one thread was asked for, and there is one" "$(find /proc/$pid/task -mindepth 1 -maxdepth 1 | wc -l)" 1
kill -INT $pid
wait $pid
same "SIGINT: exit 130" "$?" 130
check "SIGINT: what happens is said" grep -q "^stopping after saving; once more" "$tmp/long.err"
expect_out "SIGINT: saved, and status says so" '"state":"interrupted".*"exit":130' cat "$tmp/runs/long/status.json"
step=$(sed 's/.*"step":\([0-9]*\).*/\1/' "$tmp/runs/long/status.json")
check "SIGINT: the checkpoint is of the last step" test -d "$(printf '%s/runs/long/ckpt/step-%08d' "$tmp" "$step")"
expect "going on after it" 0 "" $P name=long sched.tokens=10M --dry-run
hangup() { # NAME COMMAND...: train under it, hang up when a checkpoint is there
    name=$1; shift
    "$@" "$BIN/pretrain" --config "$tmp/tiny.yaml" --runs "$tmp/runs" name="$name" sched.tokens="$tokens" val.every=0 \
        >"$tmp/hup.out" 2>"$tmp/hup.err" &
    pid=$!
    for _ in $(seq 400); do [ -e "$tmp/runs/$name/ckpt/latest" ] && break; sleep 0.02; done
    kill -HUP $pid; wait $pid
}
tokens=10M
hangup hup env
same "SIGHUP: exit 129" "$?" 129
expect_out "SIGHUP: saved, and status says so" '"state":"interrupted".*"exit":129' cat "$tmp/runs/hup/status.json"
step=$(sed 's/.*"step":\([0-9]*\).*/\1/' "$tmp/runs/hup/status.json")
check "SIGHUP: the checkpoint is of the last step" test -d "$(printf '%s/runs/hup/ckpt/step-%08d' "$tmp" "$step")"
tokens=102400
hangup nohup nohup
same "SIGHUP under nohup: it goes on to the end" "$?" 0

# ---- too few addresses: a sentence, and an end of it
for _ in 1 2 3 4 5; do
    if sanitized; then skip "ulimit -v" "built with sanitizers"; break; fi
    expect "ulimit -v" 7 "cannot reserve addresses within .ulimit -v. = 180000 KiB" \
        sh -c "ulimit -v 180000; exec timeout 20 $P name=narrow"
done

# ---- full disks
DISK_FULL_BYTES="0 3000 200000 700000" disk_full "pretrain" "$tmp/runs/nospc" $P name=nospc
check "a disk without room for a checkpoint is told before training" \
    grep -q 'nospc/ckpt: a checkpoint takes 582 KiB and the file system has 195 KiB free' "$tmp/runs/nospc/train.log"
check "what a full disk left can be verified" sh -c "for c in '$tmp'/runs/nospc/ckpt/step-*; do
    [ -d \$c ] || continue; (cd \$c && sha256sum --quiet -c SHA256SUMS) || exit 1; done"
expect "and resumed when there is room" 0 "" $P name=nospc
check "to the same weights" cmp "$tmp/runs/nospc/ckpt/latest/model.safetensors" "$run_dir/ckpt/latest/model.safetensors"
if mkdir "$tmp/full" && mount -t tmpfs -o size=3m tmpfs "$tmp/full" 2>/dev/null; then
    expect "a really full disk" 7 "No space left" $P --runs "$tmp/full" ckpt.every=1 ckpt.keep_last=100
    check "keeps whole checkpoints" sh -c "cd '$tmp/full/tiny/ckpt/latest' && sha256sum --quiet -c SHA256SUMS"
    same "and no halves" "$(find "$tmp/full" -name '.tmp-*')" ""
    umount "$tmp/full"
else
    skip "a really full disk" "cannot mount a tmpfs here"
fi

# ---- the big preset plans anywhere
start=$(date +%s%N)
run "$BIN/pretrain" --config configs/chimera-700m.yaml --dry-run
cp "$tmp/.out" "$tmp/plan"
ms=$((($(date +%s%N) - start) / 1000000))
same "chimera-700m --dry-run exits with 0" "$code" 0
expect_out "and counts 715.3M parameters" "parameters +715[0-9]{6} .*715" cat "$tmp/plan"
if [ "$BIN" = build/bin ]; then
    kb=$(python3 -c 'import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)' \
        "$BIN/pretrain" --config configs/chimera-700m.yaml --dry-run 2>/dev/null || echo unknown)
    if [ "$kb" = unknown ]; then skip "its memory" "no python3 to measure with"
    else same "in at most 300 MB ($kb kB)" "$((kb <= 300000))" 1; fi
    same "in at most 2 s of a quiet machine, 20 here ($ms ms)" "$((ms < 20000))" 1
fi
finish
