#!/bin/sh
# pretrain.sh -- command-line cases of pretrain: mistakes, plans, finished runs, bad data.
. tests/fault/lib.sh
tiny_data
tiny_config
P="$BIN/pretrain --config $tmp/tiny.yaml --runs $tmp/runs"

# ---- configuration: file:line:col, exit 2, nothing written
printf 'optim:\n  learning_rate: 1e-3\n' >"$tmp/a.yaml"
expect "unknown key" 2 'a.yaml:2:3: error: .*optim.learning_rate.*did you mean' \
    "$BIN/pretrain" --config "$tmp/a.yaml" --runs "$tmp/none"
printf 'optim:\n  lr: 1e-3\n  lr: 1e-4\n' >"$tmp/b.yaml"
expect "duplicate key" 2 'b.yaml:3:3: error: .*duplicate' "$BIN/pretrain" --config "$tmp/b.yaml"
printf 'optim:\n  beta1: 1.5\n' >"$tmp/c.yaml"
expect "value out of range" 2 'c.yaml:2:10: error: .*beta1' "$BIN/pretrain" --config "$tmp/c.yaml"
expect "missing config file" 2 'nowhere.yaml' "$BIN/pretrain" --config "$tmp/nowhere.yaml"
expect "no shards named" 2 'data.shards' "$BIN/pretrain" --runs "$tmp/none"
expect "shards that are not there" 2 'nowhere' $P data.shards="$tmp/nowhere" name=n1
expect "batch is no multiple of the row" 2 'data.batch_tokens.*multiple' $P data.batch_tokens=65 name=n2
expect "micro-batch does not divide the batch" 2 'data.micro_rows' $P data.batch_tokens=128 data.micro_rows=3 name=n3
expect "corpus smaller than one batch" 2 'training split has .* tokens' $P data.batch_tokens=3200000 name=n4
expect "another vocabulary" 2 'model.vocab_size.*tokenizer' $P model.vocab_size=401 name=n5
expect "what GGUF cannot say" 2 'model.ffn' $P model.ffn=DE name=n6
expect "more memory than allowed" 7 'train.max_gb' $P train.max_gb=0.0001 name=n7
check "none of these wrote anything" test ! -e "$tmp/runs" -a ! -e "$tmp/none"

# ---- plans
expect_out "dry run" 'parameters +[0-9]+ .*active.*total +[0-9]+ bytes.*steps +12 .*FLOP.*checkpoint.*gemm probe' \
    $P --dry-run name=dry
expect_out "dry run of 700M parameters, no data" 'parameters +715334352 ' \
    "$BIN/pretrain" --config configs/chimera-700m.yaml --dry-run
check "a dry run writes nothing" test ! -e "$tmp/runs"

# ---- runs
check "a run" $P name=a
check "left a summary with its exact memory" awk '
    { split($0, f, /[,{}]/); for (i in f) { split(f[i], kv, ":"); v[kv[1]] = kv[2] } }
    END { p = v["\"memory/perm_bytes\""] + v["\"memory/step_bytes\""] + v["\"memory/meta_bytes\""]
          exit !(p > 0 && p == v["\"memory/planned_bytes\""]) }' "$tmp/runs/a/summary.json"
check "and a checkpoint that sha256sum confirms" sh -c "cd $tmp/runs/a/ckpt/latest && sha256sum -c --quiet SHA256SUMS"
expect "a finished run again" 2 'finished' $P name=a
check "unless --if-done=skip" $P name=a --if-done skip
check "or redo" $P name=a --if-done redo
expect "nothing to resume" 2 '' $P name=fresh --resume must
expect "verified resume" 0 '' $P --verify-resume 3
expect "more steps than the run has" 2 'verify-resume=7' $P --verify-resume 7
expect "NaN in training" 6 'NaN or infinity' $P name=nan train.nan_limit=1 \
    optim.lr=10 optim.weight_decay=10 sched.kind=constant sched.warmup=0 sched.tokens=6400
check "leaves its state behind" grep -q '"state":"diverged"' "$tmp/runs/nan/status.json"

# ---- resuming what does not belong
half() { # run $1 stops after three steps
    LD_PRELOAD=$shim CM_SHIM_UNDER=/ckpt CM_SHIM_KILL=130 $P name="$1" >/dev/null 2>&1
}
half other
expect "another configuration" 2 'optim.lr' $P name=other optim.lr=1e-4
check "the same one goes on" $P name=other
half tok
"$BIN/tokenize" --quiet "tokenize.inputs=[$tmp/t.jsonl]" "tokenize.out=$tmp/shards2" \
    tokenize.vocab_size=400 tokenize.val_frac=0.06 tokenize.min_bytes=80 >/dev/null 2>&1
expect "other data under the same run" 4 'shards are|tokenizer' $P name=tok data.shards="$tmp/shards2" --resume must
half cut
truncate -s 1000 "$tmp/runs/cut/ckpt/step-00000003/model.safetensors"
expect "a truncated checkpoint is passed over" 0 'damaged.*before it' $P name=cut
half gone
for d in "$tmp"/runs/gone/ckpt/step-*; do truncate -s 1000 "$d/model.safetensors"; done
expect "with none left it stops" 4 'model.safetensors: damaged' $P name=gone

# ---- a flipped bit in a shard
cp -r "$tmp/shards" "$tmp/bad"
f=$(ls "$tmp"/bad/train-*.tok.zst | head -n 1)
at=$(($(wc -c <"$f") / 2))
byte=$(od -An -tu1 -j "$at" -N 1 "$f" | tr -d ' ')
# shellcheck disable=SC2059
printf "$(printf '\\%03o' $((byte ^ 1)))" | dd of="$f" bs=1 seek="$at" conv=notrunc 2>/dev/null
expect "a shard with one flipped bit" 4 'train-.*tok.zst' $P name=bit data.shards="$tmp/bad"
finish
