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
within ratio/bf16/bench8m/x 0 100
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
for p in step length; do
    expect "${p}_bench without words" 2 "error: which model\?" build/bench/${p}_bench
done
none() { # PROGRAM WORDS...: the last is no value
    expect "$*" 2 "^error: '[a-zA-Z]+=.*': wanted [a-zA-Z]+=[NX]" build/bench/"$@"
}
c=configs/demo.yaml
for w in rounds=0 rounds=65 rounds=x rounds=3x H=0 G=0 T=-5 T=0 T=abc T= T=8x T=8, T=8,0 T=1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1; do
    none attn_bench $w
done
for w in repetitions=0 repetitions=-1 threads=-1 threads=2x; do none op_bench $w; done
for w in T=0 T=abc tokens=0 rounds=0 rounds=33 forward=2; do none length_bench $c $w; done
for w in B T H P N G Q; do none ssd_bench $w=0; done
for w in rows=0 rows=1x T=0 steps=0; do none step_bench $c $w; done
for w in pairs=0 stem=-1 ends=0 end=0 rounds=0 rows=-1 batch=x; do none score $c $w; done
for w in prompt=0 steps=-1; do none generate_bench $c $w; none infer_bench run none.gguf $w; done
for w in ngram=-1 guesses=x temperature=-1 tokens=0 rounds=100; do none speculate_bench none $w; done
for p in gemm ssd; do none ${p}_bench seconds=-1; none ${p}_bench seconds=1s; done
none infer_bench run none.gguf rounds=65
none quant_bench rounds=3x
none host_bench threads=x
for p in attn ssd; do
    expect "${p}_bench: heads and groups" 2 "^error: H=4 is no multiple of G=3" build/bench/${p}_bench H=4 G=3
done
expect "length_bench: rows that do not fit" 2 "^error: T=300 does not divide tokens=16384" build/bench/length_bench $c T=300
# What steps here would not heed: refused as a word, ignored in a file.
for w in optim.state=int8 optim.kind=muon train.recompute=auto train.max_gb=4 data.seq_len=64; do
    expect "step_bench $w" 2 "^error: .*${w%=*}" build/bench/step_bench configs/bench8m.yaml $w
done
printf '%s\n' 'optim: {state: int8}' 'train: {recompute: auto, max_gb: 4}' 'data: {seq_len: 64}' >"$tmp/run.yaml"
expect_out "in a file they are ignored" 'tokens/s' build/bench/step_bench "$tmp/run.yaml" model.vocab_size=64 \
    model.n_layers=1 model.d_model=64 rows=1 T=8 steps=1 busy=1
expect "BENCH_OUT in a folder there is not" 2 "^bench: $tmp/none/x: $tmp/none is no folder" \
    env ROUNDS=1 ONLY=host BENCH_OUT="$tmp/none/x" sh bench/run.sh
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

# The peak is the best product but the first, by a clock on which four take 1, 8, 4 and 5 s.
cat >"$tmp/clock.c" <<'CLOCK'
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *t) {
    static const int took[] = { 1, 8, 4, 5 };
    static int calls, now;
    if (id != CLOCK_PROCESS_CPUTIME_ID) return (int)syscall(SYS_clock_gettime, id, t);
    if (calls++ % 2) now += calls <= 8 ? took[calls / 2 - 1] : 1;
    *t = (struct timespec){ .tv_sec = now };
    return 0;
}
CLOCK
if "${CC:-cc}" -shared -fPIC -o "$tmp/clock.so" "$tmp/clock.c" 2>"$tmp/.err"; then
    expect_out "attn_bench's peak" '"attention/bf16/peak_gflops": 4.29' env LD_PRELOAD="$tmp/clock.so" \
        build/bench/attn_bench compute=bf16 T=8 rounds=1 busy=1 json=1
else
    skip "attn_bench's peak" "no compiler for the clock"
fi

# Lines whose medians and ratios are known.
cat >"$tmp/lines" <<'LINES'
text of a program that does not write JSON
{"round": 0}
{"gemm/fp32/square-NN-2048x2048x2048/ours/gflops": 100}
{"gemm/fp32/square-NN-2048x2048x2048/openblas/gflops": 80}
{"train/m/fp32/tok_per_s": 10, "train/m/fp32/gflops": 50}
{"train/m-T1024/fp32/gflops": 40}
{"peer/p/train/m/fp32/tok_per_s": 5}
{"train/n/fp32/tok_per_s": 10, "train/n/bf16/tok_per_s": 30}
{"infer/m/q8_0/decode_tok_per_s": 30, "peer/p/infer/m/q8_0/decode_tok_per_s": 20}
{"round": 1}
{"gemm/fp32/square-NN-2048x2048x2048/ours/gflops": 50}
{"gemm/fp32/square-NN-2048x2048x2048/openblas/gflops": 200}
{"train/m/fp32/tok_per_s": 20, "train/m/fp32/gflops": 100}
{"peer/p/train/m/fp32/tok_per_s": 40, "peer/p/train/m/bf16/tok_per_s": 80}
{"train/n/fp32/tok_per_s": 20, "train/n/bf16/tok_per_s": 40}
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
same "bf16 over fp32 by rounds" "$(value ratio/bf16/n/x) $(value ratio/bf16/n/x_max)" "2.5 3"
same "long rows against the formula" "$(value ratio/long/m-T1024/fp32/x)" 1.25

# A region of a document is replaced, the rest stays; a file that is not there is an error.
cat >"$tmp/doc.md" <<EOF
before
<!-- bench:train $out -->
old
<!-- end -->
<!-- bench:list $out ratio/bf16/ -->
<!-- end -->
after
EOF
expect_out "tables are made from the file" 'before.*m/fp32 \| 20 \(10 to 70\).*ratio/bf16/n/x \| 2.5 \| 2 \| 3 .*after' build/bench/tables "$tmp/doc.md"
same "nothing old stays" "$(build/bench/tables "$tmp/doc.md" | grep -c old)" 0
sed -i "s|$out|$tmp/none.json|" "$tmp/doc.md"
expect "a missing file is refused" 1 'none.json' build/bench/tables "$tmp/doc.md"
finish
