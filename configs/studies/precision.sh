#!/bin/sh
# precision.sh -- study: does training in BF16 learn what fp32 does?
#
# usage: configs/studies/precision.sh     (`make study-precision`; SEEDS, SMALL: lib.sh beside it)
# configs/ci.yaml (hybrid with experts, Muon) with both settings of train.compute, on the same
# batches from the same weights, seed by seed, in runs/study-precision-*.
. configs/studies/lib.sh
bytes=4M tokens=400k val_every=20
[ -z "$SMALL" ] || { bytes=200k tokens=8k val_every=2; }
speedrun_data $bytes
all=runs/$pre-precision.txt
for seed in $SEEDS; do
    for compute in fp32 bf16; do
        "$B/pretrain" --quiet --threads 1 --config configs/ci.yaml seed="$seed" \
            name="$pre-precision-$compute-s$seed" train.compute=$compute data.shards="$data" \
            sched.tokens=$tokens sched.warmup=8k val.every=$val_every val.tokens=20k \
            --resume=auto --if-done=skip
    done
    say "precision: seed $seed"
done
# A line for each number of each row: precision, seed, step, name, value.
for compute in fp32 bf16; do
    for seed in $SEEDS; do
        run=runs/$pre-precision-$compute-s$seed
        validations "$run" | sed "s/^/$compute $seed /"
        sed -n 's/.*"step":\([0-9]*\),.*"train\/loss":\([0-9.e+-]*\),.*/\1 train\/loss \2/p' \
            "$run/metrics.jsonl" | sed "s/^/$compute $seed /"
        cpu=$(sed -n 's|.*"seg":\([0-9]*\).*"train/cpu_s":\([0-9.e+-]*\).*|\1 \2|p' \
            "$run/metrics.jsonl" | awk '{ c[$1] = $2 } END { for (s in c) n += c[s]; print n }')
        echo "$compute $seed end cpu $cpu"
    done
done >"$all"
whole "$all"
tables() {
    awk "$stats"'
        $4 == "val/bpb" && $3 > last { last = $3 }
        { at[$1, $3, $4, $2] = $5; seeds[$2] }
        END {
            print "At the end:\n"
            split("fp32|bf16|difference|CPU time, bf16 over fp32", name, "|")
            head("seed", name, 4)
            for (s = 1; s < 100; s++) {
                if (!(s in seeds)) continue
                a = at["fp32", last, "val/bpb", s]; b = at["bf16", last, "val/bpb", s]
                printf "| %d | %.5f | %.5f | %+.5f | %.2f |\n", s, a, b, b - a,
                       at["bf16", "end", "cpu", s] / at["fp32", "end", "cpu", s]
            }
            printf "| mean ± half 95 %% interval | %s | %s | %s | %.2f |\n",
                   show("fp32", last, "val/bpb", 1, 5), show("bf16", last, "val/bpb", 1, 5),
                   against("fp32", "bf16", last, "val/bpb", 1, 5),
                   avg("bf16", "end", "cpu") / avg("fp32", "end", "cpu")
            print "\nDifference of val/bpb by step, mean and 95 % interval over seeds:\n"
            for (i = 1; i <= n_steps; i++)
                if (avg("fp32", steps[i], "val/bpb")) row[++n_row] = steps[i]
            head("step", row, n_row)
            printf "| bf16 - fp32 |"
            for (i = 1; i <= n_row; i++)
                printf " %s |", against("fp32", "bf16", row[i], "val/bpb", 1, 4)
            print ""
        }' "$all"
}
tables | block precision
mean_runs precision "$all"
plot precision "train/loss val/bpb" $means
