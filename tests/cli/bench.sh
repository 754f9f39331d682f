#!/bin/sh
# bench.sh -- every benchmark program runs on almost nothing, and bench.json has the keys that
# docs and comparisons read, each a number of the right kind.
. tests/cli/lib.sh
unset TORCH_PYTHON TORCH_SCRIPT
out=$tmp/bench.json

bench() { TINY=1 ROUNDS=$1 ONLY=$2 BENCH_OUT=$out BUSY=1 sh bench/run.sh; }
value() { sed -n "s|^ *\"$1\": \"\{0,1\}\([^\",]*\).*|\1|p" "$out"; }
# A key's value lies in (LEAST, LARGEST].
within() { # KEY LEAST LARGEST
    name="$1 is $(value "$1"), in ($2, $3]"
    : >"$tmp/.out"; : >"$tmp/.err"
    report "$name" "$(value "$1" | awk -v a="$2" -v b="$3" '{ ok = $1 > a && $1 <= b } END { print ok + 0 }')" \
        "missing or out of range"
}

expect "two rounds of a miniature run" 0 'round 2 of 2' bench 2 'host gemm ops train infer gguf'
json "bench.json is JSON" "$out"
same "no program failed" "$(grep -c 'bench: failed' "$tmp/.err")" 0
for key in host/cpu/name host/kernels/name host/blas/core host/date/utc host/commit/id; do
    same "$key is a text" "$(value $key | grep -c .)" 1
done
within host/threads/count 0 1
within op/linear/bf16/bwd/share_of_floor 0 100
within host/memory/gb_per_s 0.1 10000
within gemm/fp32/square-NN-2048x2048x2048/ours/gflops 0.1 1e6
within gemm/fp32/square-NN-2048x2048x2048/openblas/gflops 0.1 1e6
for op in linear attention moe xent ssd conv_silu gated_norm rmsnorm swiglu residual embed; do
    within op/$op/fp32/fwd/ms 0 1e6
    within op/$op/fp32/fwd/share_of_floor 0 100
done
for model in bench8m bench8m-moe bench30m bench8m-attention bench8m-mamba2; do
    within train/$model/fp32/tok_per_s 1 1e9
    within train/$model/fp32/mfu 0 1.5
    within train/$model/fp32/step_bytes 1e5 1e10
    within train/$model/bf16/mfu 0 1.5
done
within ratio/moe/bench8m-moe/fp32/x 0 10
within infer/demo/f32/decode_tok_per_s 1 1e9
within infer/demo/f32/prefill_tok_per_s 1 1e9
within infer/bench8m/q4_k_m/decode_tok_per_s 1 1e9
within infer/bench8m/q4_k_m/prefill_tok_per_s 1 1e9
within infer/bench8m/q4_k_m/rss_bytes 1e6 1e11
# The median of two rounds lies between them, and is their mean.
same "median of two" "$(value train/bench8m/fp32/tok_per_s | cut -c1-4)" \
    "$(awk -v a="$(value train/bench8m/fp32/tok_per_s_min)" -v b="$(value train/bench8m/fp32/tok_per_s_max)" \
        'BEGIN { printf "%.6g", (a + b) / 2 }' | cut -c1-4)"

# ---- words that are none are refused before anything is measured
expect "ONLY with a part there is not" 2 "no part 'foo'; there are host gemm" env ONLY='host foo' BENCH_OUT="$tmp/no.json" sh bench/run.sh
for r in x 0 -1 1.5; do
    expect "ROUNDS=$r" 2 "ROUNDS=$r: wanted a number" env ROUNDS=$r BENCH_OUT="$tmp/no.json" sh bench/run.sh
done
for p in attn gemm op host ssd; do
    expect "${p}_bench: a word there is not" 2 "error: 'foo=1': wanted .*json=1, busy=1 or threads=N" build/bench/${p}_bench foo=1
done
expect "step_bench: a key there is not" 2 "foo" build/bench/step_bench configs/bench8m.yaml foo.bar=1
expect "attn_bench: no number" 2 "error: 'rounds=x': wanted" build/bench/attn_bench rounds=x
expect "step_bench without words" 2 "error: which model\?" build/bench/step_bench
absent "nothing was measured" "$tmp/no.json" "$tmp/no.json.lines"
mkdir -p "$tmp/home/build" && ln -s "$PWD/build/bench" "$tmp/home/build/bench" && ln -s "$PWD/bench" "$PWD/configs" "$tmp/home"
echo '{"real": 1}' >"$tmp/home/build/bench.json"
check "a miniature without a place" sh -c 'cd "$0" && TINY=1 ROUNDS=1 ONLY=host BUSY=1 sh bench/run.sh' "$tmp/home"
same "does not replace a real run's numbers" "$(cat "$tmp/home/build/bench.json")" '{"real": 1}'
json "and has a file of its own" "$tmp/home/build/bench-tiny.json"

# ---- programs that fail are counted; a place that something else holds stays
expect "a program that fails" 1 "bench: failed: .*host_bench.*bench: 2 programs failed" \
    env CHIMERA_KERNELS=foo TINY=1 ROUNDS=2 ONLY=host BENCH_OUT="$tmp/fails.json" BUSY=1 sh bench/run.sh
expect "so does one that makes a model" 1 "bench: 2 programs failed" \
    env CHIMERA_KERNELS=foo TINY=1 ROUNDS=1 ONLY=gguf BENCH_OUT="$tmp/fails.json" BUSY=1 sh bench/run.sh
mkdir "$tmp/held"; echo 'name: mine' >"$tmp/mine.yaml"
for place in held mine.yaml; do
    expect "BENCH_OUT=$place" 2 "BENCH_OUT=$tmp/$place: is no" \
        env TINY=1 ROUNDS=1 ONLY=host BENCH_OUT="$tmp/$place" BUSY=1 sh bench/run.sh
done
same "stays" "$(cat "$tmp/mine.yaml"; ls -A "$tmp/held")" "name: mine"

# Lines whose medians and ratios are known.
cat >"$tmp/lines" <<'LINES'
text of a program that does not write JSON
{"round": 0}
{"gemm/fp32/square-NN-2048x2048x2048/ours/gflops": 100}
{"gemm/fp32/square-NN-2048x2048x2048/openblas/gflops": 80}
{"train/m/fp32/tok_per_s": 10, "train/m/fp32/gflops": 50}
{"train/m-T1024/fp32/gflops": 40}
{"peer/p/train/m/fp32/tok_per_s": 5}
{"infer/m/q8_0/decode_tok_per_s": 30, "peer/p/infer/m/q8_0/decode_tok_per_s": 20}
{"round": 1}
{"gemm/fp32/square-NN-2048x2048x2048/ours/gflops": 50}
{"gemm/fp32/square-NN-2048x2048x2048/openblas/gflops": 200}
{"train/m/fp32/tok_per_s": 20, "train/m/fp32/gflops": 100}
{"peer/p/train/m/fp32/tok_per_s": 40, "peer/p/train/m/bf16/tok_per_s": 80}
{"round": 2}
{"train/m/fp32/tok_per_s": 70, "host/cpu/name": "a \"b\""}
LINES
build/bench/join "$tmp/lines" >"$out"
json "joined lines are JSON" "$out"
same "median" "$(value train/m/fp32/tok_per_s)" 20
same "least" "$(value train/m/fp32/tok_per_s_min)" 10
same "utilisation is of the same round's best product" "$(value train/m/fp32/mfu)" 0.5
same "ratio by rounds" "$(value ratio/p/m/fp32/x_max)" 2
same "ratio to a peer's better precision" "$(value ratio/p/m/best/x)" 0.25
same "ratio of inference" "$(value ratio/p/infer/m/q8_0/decode/x)" 1.5
same "long rows against the formula" "$(value ratio/long/m-T1024/fp32/x)" 1.25

# A region of a document is replaced, the rest stays; a file that is not there is an error.
cat >"$tmp/doc.md" <<EOF
before
<!-- bench:train $out -->
old
<!-- end -->
after
EOF
expect_out "tables are made from the file" 'before.*m/fp32 \| 20 \(10 to 70\).*after' build/bench/tables "$tmp/doc.md"
same "nothing old stays" "$(build/bench/tables "$tmp/doc.md" | grep -c old)" 0
sed -i "s|$out|$tmp/none.json|" "$tmp/doc.md"
expect "a missing file is refused" 1 'none.json' build/bench/tables "$tmp/doc.md"
finish
