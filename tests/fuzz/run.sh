#!/bin/sh
# run.sh -- fuzz every reader of outside bytes (tests/fuzz/*_fuzz.c) with clang's libFuzzer.
# usage: tests/fuzz/run.sh [SECONDS [TARGET ...]]     SECONDS for each target (default 60), two at
# a time.  Corpora begin with small valid files made on the spot and stay in build/fuzz/corpus.  A
# finding is kept in build/fuzz/found; repeat it with build/fuzz/fuzz/TARGET_fuzz FILE.
set -u
seconds=${1:-60}
[ $# -gt 0 ] && shift
command -v clang >/dev/null 2>&1 || {
    echo "skip fuzzing: no clang (apt-get install clang)"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
}
make -s MODE=fuzz fuzz-build >build/fuzz.log 2>&1 || {
    tail -n 20 build/fuzz.log
    echo "FAIL the fuzz targets do not build"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
}
out=build/fuzz
seeds=$out/seeds
FUZZ_SCRATCH=$(mktemp -d /dev/shm/chimera-fuzz-XXXXXX) || exit 1
export FUZZ_SCRATCH
trap 'rm -rf "$FUZZ_SCRATCH"' EXIT
trap 'kill $pa $pb 2>/dev/null; wait; exit 130' INT TERM
pa= pb=
[ $# -gt 0 ] || set -- $(ls tests/fuzz/*_fuzz.c | sed 's,.*/,,; s,_fuzz.c$,,')

# ---- seeds: one small valid file of each kind, cut to sizes that mutate well
make_seeds() {
    . tests/cli/lib.sh
    corpus "$tmp/corpus.jsonl" 60
    rm -rf "$seeds"
    for t in yaml shard jsonl talk safetensors gguf spm results imatrix adapter; do mkdir -p "$seeds/$t"; done
    cp configs/*.yaml "$seeds/yaml/"
    "$BIN/pretrain" --print-config >"$seeds/yaml/all"
    printf 'optim.lr=3e-4' >"$seeds/yaml/word"
    printf 'tokenize.inputs=[a, "b c"]' >"$seeds/yaml/list"
    head -n 3 "$tmp/corpus.jsonl" | split -l 1 - "$seeds/jsonl/"
    printf '{"a":[1,-2.5e3,true,null,{"b":"\\ud83d\\ude00"}],"text":"\\u0041\\n"}' >"$seeds/jsonl/kinds"
    cat tests/cli/chat/*.jsonl | split -l 1 - "$seeds/talk/"
    cp tests/cli/chat/* "$seeds/talk/"
    "$BIN/tokenize" --quiet tokenize.out="$tmp/d" "tokenize.inputs=$tmp/corpus.jsonl" \
        tokenize.vocab_size=340 tokenize.val_frac=0.2 >/dev/null
    cp "$tmp"/d/*.tok.zst "$seeds/shard/"
    for k in chat preference; do
        "$BIN/tokenize" --quiet tokenize.out="$tmp/$k" tokenize.inputs=tests/cli/chat/$k.jsonl \
            tokenize.tokenizer=tests/golden/chat tokenize.val_frac=0 >/dev/null
        for f in "$tmp/$k"/*.tok.zst; do cp "$f" "$seeds/shard/$k-$(basename "$f")"; done
    done
    cp "$tmp/d/tokenizer.model" "$seeds/spm/"
    tiny "$tmp/tiny.yaml"
    "$BIN/pretrain" --quiet --config "$tmp/tiny.yaml" --runs "$tmp/runs" data.shards="$tmp/d" \
        model.d_model=8 model.n_heads=1 model.n_kv_heads=1 model.d_expert=8 model.ssm_state=4 \
        model.ssm_head_dim=8 model.ssm_chunk=16 sched.tokens=512 ckpt.every=0 val.samples=0
    make -s build/release/test/cli/mkresult
    build/release/test/cli/mkresult "$tmp/result" n=8 groups=2
    { cat "$tmp/result/results.json"; printf '\000'; zstd -qdc "$tmp/result/items.jsonl.zst"; } >"$seeds/results/small"
    cp "$tmp/runs/tiny/ckpt/latest/model.safetensors" "$seeds/safetensors/"
    "$BIN/tokenize" --quiet tokenize.out="$tmp/talk" tokenize.inputs=tests/cli/chat/chat.jsonl \
        tokenize.tokenizer="$tmp/runs/tiny" tokenize.val_frac=0 >/dev/null
    for t in attention mamba experts; do
        "$BIN/sft" --quiet --threads 1 --runs "$tmp/runs" post.model="$tmp/runs/tiny" data.shards="$tmp/talk" name="$t" \
            data.seq_len=512 data.batch_tokens=512 sched.tokens=512 lora.rank=2 lora.targets="[$t]" panel.prompts=0
        a=$tmp/runs/$t/ckpt/latest
        { cat "$a/adapter_config.json"; printf '\000'; cat "$a/adapter_model.safetensors"; } >"$seeds/adapter/$t"
    done
    "$BIN/quantize" --quiet --model "$tmp/runs/tiny/ckpt/latest" --out "$seeds/gguf/tiny" --format gguf >/dev/null
    for t in q4_0 iq4_nl; do
        "$BIN/quantize" --quiet --model "$tmp/runs/tiny/ckpt/latest" --out "$seeds/gguf/$t" --format gguf --type $t \
            quantize.max_kl=9 >/dev/null
    done
    echo "One day a girl went to the garden and saw a bird on a tall tree." >"$tmp/calib.txt"
    for e in gguf dat; do
        "$BIN/quantize" --quiet --model "$tmp/runs/tiny/ckpt/latest" --calibration "$tmp/calib.txt" quantize.context=16 \
            quantize.imatrix_out="$tmp/im.$e" && cp "$tmp/im.$e" "$seeds/imatrix/"
    done
}
(make_seeds) || echo "warning: not every seed could be made"

# ---- one target, in a process that becomes it: 0 when it ran its time without a finding
fuzz() {
    mkdir -p "$out/corpus/$1" "$out/found"
    extra=
    [ -d "$seeds/$1" ] && extra=$seeds/$1
    case $1 in gguf | imatrix | safetensors | adapter) len=65536 ;; yaml) len=4096 ;; *) len=16384 ;; esac
    # shellcheck disable=SC2086
    exec env ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 nice "$out/fuzz/${1}_fuzz" \
        -max_total_time="$seconds" -max_len=$len -rss_limit_mb=3000 -timeout=25 -print_final_stats=1 \
        -artifact_prefix="$out/found/$1-" "$out/corpus/$1" $extra >"$out/$1.log" 2>&1
}
p=0 f=0
settle() { # TARGET STATUS
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$out/$1.log")
    if [ "$2" = 0 ]; then
        p=$((p + 1)); echo "ok   $1: $runs inputs in $seconds s, no finding"
    else
        f=$((f + 1)); echo "FAIL $1 (exit $2), log in $out/$1.log:"
        grep -aE 'ERROR|SUMMARY|runtime error|panic|Test unit|found/' "$out/$1.log" | head -6 | sed 's/^/  /'
    fi
}
while [ $# -gt 0 ]; do
    a=$1 b=${2:-}
    fuzz "$a" & pa=$!
    [ -z "$b" ] || { fuzz "$b" & pb=$!; }
    wait $pa; settle "$a" $?
    [ -z "$b" ] || { wait $pb; settle "$b" $?; }
    shift; [ $# -eq 0 ] || shift
done
echo "$p passed, $f failed, 0 skipped"
[ $f = 0 ] && [ $p -gt 0 ]
