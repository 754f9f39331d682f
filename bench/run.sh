#!/bin/sh
# run.sh -- products, ops, training steps, inference; ours and peers by turns; build/bench.json.
#
#   make bench                 everything: an hour or two
#   QUICK=1 make bench         the small models at T = 512: three minutes, peers not counted
#   TINY=1                     every program once on almost nothing: do they run?
#   ROUNDS=5                   how often all take turns; medians and intervals come from that
#   ONLY='host gemm'           some of: host gemm ops train long big infer gguf length attn
#                              (long holds length and attn)
#   TORCH_PYTHON='python3 ...' Pythons with PyTorch, which then train the same models
#   TORCH_SCRIPT=file.py       for training, in place of bench/torch_peer.py: a script called as
#                              `file.py 256 8 [bf16]` that prints lines with moe=BOOL bf16=BOOL
#                              tok/s=NUMBER
#   BUSY=1                     for a machine that others use: one thread, its processor time
#   BENCH_OUT=FILE             instead of build/bench.json (with TINY build/bench-tiny.json)
# OPENBLAS_* and OMP_* are unset: libraries choose for themselves.
set -eu
for v in $(env | sed -n 's/^\(OPENBLAS_[A-Z_]*\|OMP_[A-Z_]*\|GOMP_[A-Z_]*\)=.*/\1/p'); do unset "$v"; done
quick=${QUICK:-} rounds=${ROUNDS:-${QUICK:+3}} rounds=${rounds:-5}
only=${ONLY:-host gemm ops train long big infer gguf}
[ -z "$quick" ] || only=${ONLY:-host gemm ops train}
gguf=chimera-700m small= seconds=0.3 repetitions=3 # small: words for TINY; the last one of a key counts
if [ -n "${TINY:-}" ]; then
    small='rows=1 model.n_layers=2 model.d_model=64 model.vocab_size=512' seconds=0 repetitions=1 gguf=bench8m
fi
refuse() { echo "bench: $*" >&2; exit 2; }
case $rounds in '' | *[!0-9]* | 0*) refuse "ROUNDS=$rounds: wanted a number, 1 or more" ;; esac
[ -n "${only# }" ] || refuse "ONLY is empty"
for part in $only; do
    case $part in
    host | gemm | ops | train | long | big | infer | gguf | length | attn) ;;
    *) refuse "ONLY: there is no part '$part'; there are host gemm ops train long big infer gguf length attn" ;;
    esac
done
if [ -n "${BENCH_OUT:-}" ] && [ -e "$BENCH_OUT" ]; then
    [ -f "$BENCH_OUT" ] || refuse "BENCH_OUT=$BENCH_OUT: is no file that numbers could take the place of"
    case $(head -c 1 "$BENCH_OUT" | tr -d '\0') in
    '{') ;;
    *) [ ! -s "$BENCH_OUT" ] || refuse "BENCH_OUT=$BENCH_OUT: is not a benchmark's JSON; it stays, name another file" ;;
    esac
fi
# A miniature's numbers mean nothing: they do not replace those of a real run.
bin=build/bench out=${BENCH_OUT:-build/bench${TINY:+-tiny}.json}
lines=$out.lines dir=$(dirname "$out")
[ -d "$dir" ] && [ -w "$dir" ] || refuse "$out: $dir is no folder that can be written to"
how="json=1${BUSY:+ busy=1}" threads=$(nproc)
[ -z "${BUSY:-}" ] || threads=1
: >"$lines"

wants() { case " $only " in *" $1 "*) ;; *) return 1 ;; esac; }
# A program that fails is told and counted, and its numbers are missing; the others go on.
failures=0
failed() {
    echo "bench: failed: $*" >&2
    failures=$((failures + 1))
}
measure() {
    echo "  $*" >&2
    # shellcheck disable=SC2086
    "$@" $how >>"$lines" || failed "$@"
}
step() { # CONFIG WORDS...: ours, in each precision
    config=$1; shift
    for compute in fp32 bf16; do
        # shellcheck disable=SC2086
        measure $bin/step_bench "configs/$config.yaml" "$@" train.compute=$compute steps=2 $small
    done
}
peers() { # CONFIG WORDS...
    for python in ${TORCH_PYTHON:-}; do
        for compute in fp32 bf16; do
            measure "$python" bench/torch_peer.py "$@" compute=$compute
        done
    done
}
script() { # the given script, which measures dense and MoE by itself
    for python in ${TORCH_SCRIPT:+${TORCH_PYTHON:-}}; do
        version=$("$python" -c 'import torch; print(torch.__version__.split("+")[0])')
        for mode in '' bf16; do
            # shellcheck disable=SC2086
            "$python" "$TORCH_SCRIPT" 256 8 $mode >"$lines.script" || failed "$TORCH_SCRIPT" $mode
            awk -v who="script-torch-$version" '
                { moe = /moe=True/ ? "-moe" : ""; how = /bf16=True/ ? "bf16" : "fp32" }
                match($0, /tok\/s=[0-9.]+/) {
                    printf "{\"peer/%s/train/bench8m%s/%s/tok_per_s\": %s}\n", who, moe, how,
                        substr($0, RSTART + 6, RLENGTH - 6) }' "$lines.script" >>"$lines"
            rm -f "$lines.script"
        done
    done
}

# A GGUF file of random weights, ours and, where `make interop` installed it, llama.cpp.
gguf() { # MODEL TYPE
    file=build/bench/$1-$2.gguf
    # llama.cpp wants a tokenizer in the file, any.
    [ -s "$file" ] ||
        $bin/infer_bench make "configs/$1.yaml" "$2" "$file" tests/golden/chat/tokenizer.model >&2 ||
        { failed "infer_bench make $file"; return 0; }
    peer=
    [ ! -d build/interop/node_modules ] || peer='node bench/infer_peer.mjs'
    $bin/infer_bench run "$file" rounds=1 key="$1/$2" $how threads="$threads" \
        ${peer:+peer="$peer"} >>"$lines" || failed infer_bench "$file"
}

commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
[ -z "$(git status --porcelain 2>/dev/null)" ] || commit="$commit, with changes"
echo "{\"host/commit/id\": \"$commit\", \"host/rounds/count\": $rounds}" >>"$lines"
round=0
while [ $round -lt "$rounds" ]; do
    echo "round $((round + 1)) of $rounds" >&2
    echo "{\"round\": $round}" >>"$lines"
    if wants host; then measure $bin/host_bench; fi
    if wants gemm; then
        measure $bin/gemm_bench seconds=$seconds
        peers gemm seconds=$seconds
    fi
    if wants ops; then measure $bin/op_bench repetitions=$repetitions; fi
    if wants train; then
        for c in bench8m bench8m-moe bench30m; do
            step $c
            [ -n "${TORCH_SCRIPT:-}" ] || peers $c steps=2
        done
        step bench8m name=bench8m-attention model.pattern=A
        step bench8m name=bench8m-mamba2 model.pattern=M
        script
    fi
    if wants long; then
        for T in 2048 8192 16384; do
            rows=$((T < 4096 ? 4096 / T : 1))
            for c in bench8m bench30m bench8m-moe; do step $c T=$T rows=$rows; done
            step bench8m name=bench8m-attention model.pattern=A T=$T rows=$rows
            step bench8m name=bench8m-mamba2 model.pattern=M T=$T rows=$rows
        done
    fi
    if wants big && [ $round -lt 2 ]; then
        for T in 512 2048 8192 16384; do
            step sparse-moe-125m T=$T rows=$((T < 4096 ? 4096 / T : 1)) train.recompute=block
        done
    fi
    if wants infer; then
        for c in demo bench8m bench30m; do
            # shellcheck disable=SC2086
            measure $bin/generate_bench "configs/$c.yaml" steps=64 ${small#* }
        done
        # shellcheck disable=SC2086
        measure $bin/score configs/demo.yaml rounds=1 ${small:+pairs=8} $small
    fi
    if wants gguf; then
        for type in q4_k_m q8_0; do gguf "$gguf" $type; done
    fi
    if wants long || wants length; then
        for c in bench8m bench30m; do
            for compute in fp32 bf16; do
                # shellcheck disable=SC2086
                measure $bin/length_bench "configs/$c.yaml" T=512,16384 rounds=1 \
                    train.compute=$compute ${small:+T=64,256 tokens=256} ${small#* }
            done
        done
    fi
    if wants long || wants attn; then
        for compute in fp32 bf16; do
            measure $bin/attn_bench rounds=1 compute=$compute
            for python in ${TORCH_PYTHON:-}; do
                "$python" bench/torch_attn.py rounds=1 threads="$threads" \
                    compute=$compute >>"$lines" || failed torch_attn.py
            done
        done
    fi
    round=$((round + 1))
    $bin/join "$lines" >"$out.new" && mv "$out.new" "$out"
done
echo "$out: $(grep -c '^  "' "$out") numbers" >&2
grep -E '"(ratio/.*|.*/mfu)"' "$out" || true
if [ "$failures" -gt 0 ]; then
    echo "bench: $failures programs failed; their numbers are missing from $out" >&2
    exit 1
fi
