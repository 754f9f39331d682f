#!/bin/sh
# collapse.sh -- study: what keeps experts alive, and which number tells first that they die?
#
# usage: configs/studies/collapse.sh     (`make study-collapse`; SEEDS, SMALL: lib.sh beside it)
# Balance loss x z-loss, each off and on, in runs/study-collapse-*: same tokens, same FLOPs.
. configs/studies/lib.sh
bytes=4M tokens=64k val_every=9 log_every=3
[ -z "$SMALL" ] || { bytes=200k tokens=8k val_every=4 log_every=2; }
speedrun_data $bytes
arms="none z lb lb+z"
for seed in $SEEDS; do
    for arm in $arms; do
        lb=0 z=0
        case $arm in *lb*) lb=0.01 ;; esac
        case $arm in *z*) z=1e-3 ;; esac
        "$B/pretrain" --quiet --threads 1 --config configs/speedrun.yaml --config $here/moe.yaml \
            name="$pre-collapse-$arm-s$seed" seed="$seed" model.lb_coef=$lb model.z_coef=$z \
            data.shards="$data" sched.tokens=$tokens log.every=$log_every val.every=$val_every \
            val.tokens=4k val.routes=1000 --resume=auto --if-done=skip
    done
    say "collapse: seed $seed"
done
# A line for each number of each row: arm, seed, step, name, value.
lines() { # ARM SEED
    awk -F '[,{}]' -v arm="$1" -v seed="$2" '{
        for (i = 1; i <= NF; i++) {
            split($i, f, ":")
            gsub("\"", "", f[1])
            if (f[1] == "step") step = f[2]
            if (f[1] ~ /^(moe\/[a-z0-9_]*|val\/bpb|train\/loss)$/ && f[1] !~ /_layer$/ &&
                f[2] ~ /^[-0-9.e+]+$/)
                print arm, seed, step, f[1], f[2]
        }
    }' "runs/$pre-collapse-$1-s$2/metrics.jsonl"
    # Router saturation: the share of a token's experts that are its experts at the end.
    last=$(ls "runs/$pre-collapse-$1-s$2/routes/" | tail -n 1)
    for file in "runs/$pre-collapse-$1-s$2"/routes/step-*.txt; do
        awk -v arm="$1" -v seed="$2" -v k=2 -v step="${file##*/step-}" '
            NR == FNR { for (i = 1; i <= NF; i++) end[FNR, i] = $i; next }
            {
                for (i = 1; i <= NF; i += k)
                    for (a = 0; a < k; a++) {
                        n++
                        for (b = 0; b < k; b++) same += $(i + a) == end[FNR, i + b]
                    }
            }
            END { print arm, seed, step + 0, "moe/saturation", same / n }' \
            "runs/$pre-collapse-$1-s$2/routes/$last" "$file"
    done
}
all=runs/$pre-collapse.txt
for arm in $arms; do
    for seed in $SEEDS; do lines "$arm" "$seed"; done
done >"$all"
tables() {
    awk "$stats"'
        $3 > last { last = $3 }
        END {
            split("none z lb lb+z", arm, " ")
            split("val/bpb moe/entropy moe/load_cv moe/max_vio moe/dead_experts " \
                  "moe/router_entropy moe/top1", name, " ")
            print "At the end, mean and 95 % interval over seeds:\n"
            head("losses", name, 7)
            for (a = 1; a <= 4; a++) {
                printf "| %s |", arm[a]
                for (i = 1; i <= 7; i++) printf " %s |", show(arm[a], last, name[i], 1, 3)
                print ""
            }
            print "\nRouter saturation by step (share of the two experts of a token that are its" \
                  " experts at the end; by chance 0.25):\n"
            for (i = 1; i <= n_steps; i++)
                if (avg(arm[1], steps[i], "moe/saturation")) { at[++n_at] = steps[i] }
            head("losses", at, n_at)
            for (a = 1; a <= 4; a++) {
                printf "| %s |", arm[a]
                for (i = 1; i <= n_at; i++)
                    printf " %s |", show(arm[a], at[i], "moe/saturation", 1, 2)
                print ""
            }
        }' "$all"
    echo
    echo "First step of three rows in a row in which a number is worse than in every run with both"
    echo "losses at the same step; a list over seeds, - for never:"
    echo
    awk '
        $4 ~ /^moe/ && $4 != "moe/saturation" {
            if ($1 == "lb+z") {
                k = $3 SUBSEP $4
                if (!(k in hi) || $5 > hi[k]) hi[k] = $5
                if (!(k in lo) || $5 < lo[k]) lo[k] = $5
            }
            line[++n] = $0
        }
        END {
            split("moe/load_cv moe/max_vio moe/entropy moe/router_entropy moe/top1 " \
                  "moe/dead_experts", name, " ")
            for (i = 1; i <= 2; i++) down[name[i + 2]] = 1
            for (i = 1; i <= n; i++) {
                split(line[i], f, " ")
                k = f[3] SUBSEP f[4]
                bad = f[4] in down ? f[5] < lo[k] : f[5] > hi[k]
                who = f[1] SUBSEP f[2] SUBSEP f[4]
                if (!bad) run[who] = 0
                else if (++run[who] == 1) from[who] = f[3]
                if (run[who] == 3 && !(who in first)) first[who] = from[who]
                seeds[f[2]]
            }
            printf "| losses |"
            for (i = 1; i <= 6; i++) printf " %s |", name[i]
            printf "\n|---|---|---|---|---|---|---|\n"
            split("none z lb", arm, " ")
            for (a = 1; a <= 3; a++) {
                printf "| %s |", arm[a]
                for (i = 1; i <= 6; i++) {
                    row = ""
                    for (s = 1; s < 100; s++) {
                        who = arm[a] SUBSEP s SUBSEP name[i]
                        if (!(s in seeds)) continue
                        row = row (row == "" ? "" : ", ") (who in first ? first[who] : "-")
                    }
                    printf " %s |", row
                }
                print ""
            }
        }' "$all"
}
tables | block collapse
mean_runs collapse "$all"
plot collapse "moe/entropy moe/load_cv moe/dead_experts moe/router_entropy moe/saturation val/bpb" \
    $means
