#!/bin/sh
# run.sh -- products, training steps, decoding and scoring; a table, and build/bench.json.
# usage: make bench     TORCH_PYTHON=/path/to/python also times PyTorch (bench/torch_peer.py)
# Ours and PyTorch take turns, ROUNDS times (3), and the best of each counts.
set -eu
unset OPENBLAS_NUM_THREADS OPENBLAS_CORETYPE 2>/dev/null || true
rounds=${ROUNDS:-3} out=build/bench.txt
: > "$out"

put() { echo "$1 $2" >> "$out"; } # key value; the largest value of a key wins

train() { # preset
    build/bench/step_bench "configs/$1.yaml" steps=3 | awk -v k="train/$1/fp32" '
        /^best step/ { print k "/tok_per_s", $5; print k "/gflops", $7 }' >> "$out"
    [ -z "${TORCH_PYTHON:-}" ] || "$TORCH_PYTHON" bench/torch_peer.py "$1" steps=3 |
        awk -v k="peer/torch/$1/fp32/tok_per_s" '{ print k, $2 }' >> "$out"
}

build/bench/gemm_bench 0.3 | awk '
    { for (i = 1; i < NF; i++) if ($i == "ours" && $(i + 1) > best) best = $(i + 1) }
    END { print "gemm/fp32/peak_gflops", best }' >> "$out"
i=0
while [ $i -lt "$rounds" ]; do
    for c in bench8m bench8m-moe bench30m; do train $c; done
    for c in demo bench8m bench30m; do
        build/bench/generate_bench "configs/$c.yaml" steps=64 | awk -v k="generate/$c/fp32" '
            /^prefill/ { print k "/prefill_tok_per_s", $3; print k "/decode_tok_per_s", $7 }
        ' >> "$out"
    done
    build/bench/score configs/demo.yaml rounds=1 | awk -v k="score/demo/fp32" '
        /^(engine|prefill)/ { print k "/" $1 "_tok_per_s", $2 }
        /^engine/ { print k "/engine_texts_per_s", $4 }
        /^loop/ { print k "/loop_texts_per_s", $2 }' >> "$out"
    i=$((i + 1))
done
put host/threads "$(nproc)"

awk '
    !($1 in best) { order[++n] = $1 }
    !($1 in best) || $2 > best[$1] { best[$1] = $2 }
    END {
        for (i = 1; i <= n; i++) {
            k = order[i]
            if (split(k, part, "/") != 5 || part[1] != "peer") continue
            ours = "train/" part[3] "/fp32/tok_per_s"
            ratio = "ratio/torch/" part[3] "/fp32"
            order[++n] = ratio
            best[ratio] = sprintf("%.2f", best[ours] / best[k])
        }
        print "{" > "build/bench.json"
        for (i = 1; i <= n; i++) {
            printf "%-44s %12s\n", order[i], best[order[i]]
            printf "  \"%s\": %s%s\n", order[i], best[order[i]], i < n ? "," : "" \
                > "build/bench.json"
        }
        print "}" > "build/bench.json"
    }' "$out"
