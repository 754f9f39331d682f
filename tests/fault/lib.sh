# lib.sh -- for fault tests of training: a tiny corpus, a tiny run file, the shim.
. tests/cli/lib.sh
: "${CC:=cc}"
shim=$tmp/shim.so
$CC -shared -fPIC -O1 -o "$shim" tests/fault/shim.c -ldl || { echo "cannot build the shim"; exit 1; }
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive

tiny_data() { # makes $tmp/shards
    "$BIN/world" --seed 7 --bytes 60k --out "$tmp/t.jsonl" >/dev/null 2>&1 &&
    "$BIN/tokenize" --quiet "tokenize.inputs=[$tmp/t.jsonl]" "tokenize.out=$tmp/shards" \
        tokenize.vocab_size=400 tokenize.val_frac=0.05 >"$tmp/.tok" 2>&1 || {
        cat "$tmp/.tok"; echo "cannot make the test's data"; exit 1; }
}
# A run of 12 steps with a checkpoint after each.
tiny_config() {
    cat >"$tmp/tiny.yaml" <<YAML
seed: 3
threads: 1
model: {d_model: 16, n_layers: 2, pattern: MA, ffn: E, n_heads: 2, n_kv_heads: 1,
        n_experts: 2, top_k: 1, d_expert: 8, ssm_state: 8, ssm_head_dim: 16, ssm_chunk: 16}
data: {shards: $tmp/shards, seq_len: 32, batch_tokens: 64}
optim: {lr: 3e-3}
sched: {tokens: 768, warmup: 128}
val: {every: 4, tokens: 200, samples: 0}
log: {every: 1}
ckpt: {every: 1, keep_last: 2}
YAML
}
pretrain() { "$BIN/pretrain" --config "$tmp/tiny.yaml" --runs "$tmp/runs" "$@"; }
# The same in the background; $pid is the tool's own.
spawn() {
    "$BIN/pretrain" --config "$tmp/tiny.yaml" --runs "$tmp/runs" "$@" >"$tmp/.out" 2>"$tmp/.err" &
    pid=$!
}
# The last checkpoint's sums: equal text means equal bytes in every file.
# (train.yaml holds the name of the run.)
final() { grep -v train.yaml "$tmp/runs/$1/ckpt/step-00000012/SHA256SUMS" 2>/dev/null; }
whole() { # every checkpoint of run $1 agrees with its sums, and there is one
    seen=0
    for d in "$tmp/runs/$1"/ckpt/step-*; do
        [ -d "$d" ] || return 1
        (cd "$d" && sha256sum -c --quiet SHA256SUMS) >/dev/null 2>&1 || return 1
        seen=$((seen + 1))
    done
    [ $seen -gt 0 ]
}
leftovers() { find "$tmp/runs/$1/ckpt" -maxdepth 1 -name '.*' ! -name . 2>/dev/null | grep -c . ; }
