#!/bin/sh
# moe.sh -- study: 8 experts, 2 for a token, against dense networks at matched FLOPs.
#
# usage: configs/studies/moe.sh     (`make study-moe`; SEEDS, SMALL: lib.sh beside it)
# In runs/study-moe-*: the model with experts; dense ones of its active size (inner width 128 =
# 2 x 64, the same FLOPs but for the router) at its tokens and more, each decayed to its end; dense
# ones of twice that width and of all experts' (512, the same parameters in all) at its tokens.  No
# text is read twice.
. configs/studies/lib.sh
bytes=10M lengths="1M 1.3M" batch=2048
[ -z "$SMALL" ] || { bytes=200k lengths="6k 9k 16k" batch=1024; }
speedrun_data $bytes
all=runs/$pre-moe.txt
: >"$all"
# ARM WIDTH LENGTH SEED: width 0 is the model with experts.  A line of $all: arm, seed, length, bits
# per byte, tokens, CPU seconds, parameters, active ones.
train() {
    keys=
    [ "$2" = 0 ] || keys="model.ffn=D model.d_ff=$2"
    run=runs/$pre-moe-$1-$3-s$4
    # shellcheck disable=SC2086
    "$B/pretrain" --quiet --threads 1 --config configs/speedrun.yaml --config $here/moe.yaml $keys \
        name="${run#runs/}" seed="$4" data.shards="$data" data.batch_tokens=$batch \
        sched.tokens="$3" \
        --resume=auto --if-done=skip
    cpu=$(sed -n 's|.*"seg":\([0-9]*\).*"train/cpu_s":\([0-9.e+-]*\).*|\1 \2|p' \
        "$run/metrics.jsonl" | awk '{ c[$1] = $2 } END { for (s in c) n += c[s]; print n }')
    number() { sed -n "s|.*\"$1\":\([0-9.e+-]*\).*|\1|p" "$run/summary.json"; }
    echo "$1 $4 $3 $(number val/bpb) $(number train/tokens) $cpu $(number model/params)" \
        "$(number model/params_active)" >>"$all"
}
first=${lengths%% *}
for seed in $SEEDS; do
    train moe 0 "$first" "$seed"
    for length in $lengths; do train dense128 128 "$length" "$seed"; done
    for width in 256 512; do train dense$width $width "$first" "$seed"; done
    say "moe: seed $seed"
done
tables() {
    # The lengths of dense128 are groups of their own.
    awk '{ $1 = $1 "@" $3; print $1, $2, 1, "bpb", $4; print $1, $2, 1, "tok", $5
           print $1, $2, 1, "rate", $5 / $6; print $1, $2, 1, "params", $7
           print $1, $2, 1, "active", $8 }' "$all" | awk "$stats"'
        function cell(g, m, scale, digits) { return show(g, 1, m, scale, digits) }
        # Seed by seed, x(tokens or parameters) at which the falling curve of n points meets want.
        function meet(x, y, n, want,   i, w) {
            for (i = 1; i < n; i++) {
                if (y[i] < want || y[i + 1] > want) continue
                w = (y[i] - want) / (y[i] - y[i + 1])
                return exp((1 - w) * log(x[i]) + w * log(x[i + 1]))
            }
            return 0
        }
        function curve(names, k, of, what, unit,   i, s, x, y, a, n_seeds, ratio, found, text) {
            n_seeds = n["moe@" first, 1, "bpb"]
            for (s = 1; s <= n_seeds; s++) {
                for (i = 1; i <= k; i++) {
                    x[i] = v[names[i], 1, of, s]
                    y[i] = v[names[i], 1, "bpb", s]
                }
                a = meet(x, y, k, v["moe@" first, 1, "bpb", s])
                if (a) ratio[++found] = log(a / v["moe@" first, 1, unit, s])
                text = text (s > 1 ? ", " : "") \
                    (a ? sprintf("%.2f", a / v["moe@" first, 1, unit, s]) : y[1] < \
                        v["moe@" first, 1, "bpb", s] ? "below 1" : \
                        sprintf("above %.2f", x[k] / v["moe@" first, 1, unit, s]))
            }
            if (found == n_seeds)
                text = text sprintf("; geometric mean %.2f (95 %% interval %.2f to %.2f)",
                    exp(mean(ratio, found)), exp(mean(ratio, found) - half(ratio, found)),
                    exp(mean(ratio, found) + half(ratio, found)))
            printf "- **%s**, by seed: %s\n", what, text
        }
        END {
            n_len = split(lengths, length_of, " ")
            first = length_of[1]
            print "Mean and 95 % interval over seeds; tokens a CPU second of one thread:\n"
            print "| model @ tokens | bits per byte | parameters | active | tokens/s |"
            print "|---|---|---|---|---|"
            for (i = 1; i <= n_groups; i++) {
                g = groups[i]
                printf "| %s | %s | %.0f | %.0f | %s |\n", g, cell(g, "bpb", 1, 4),
                    avg(g, 1, "params"), avg(g, 1, "active"), cell(g, "rate", 1, 0)
            }
            print ""
            for (i = 1; i <= n_len; i++) more[i] = "dense128@" length_of[i]
            curve(more, n_len, "tok", "Token speed-up", "tok")
            wide[1] = "dense128@" first; wide[2] = "dense256@" first; wide[3] = "dense512@" first
            curve(wide, 3, "params", "Dense-equivalent size over active parameters", "active")
            printf "- **Bits per byte** less dense of equal active size: %s; of equal total size: %s\n",
                against(more[1], "moe@" first, 1, "bpb", 1, 4),
                against(wide[3], "moe@" first, 1, "bpb", 1, 4)
            printf "- **Throughput** over dense of equal active size: %.2f; equal total size: %.2f\n",
                avg("moe@" first, 1, "rate") / avg(more[1], 1, "rate"),
                avg("moe@" first, 1, "rate") / avg(wide[3], 1, "rate")
        }' lengths="$lengths"
}
tables | block moe
plot moe train/loss "runs/$pre-moe-*-$first-s1" --x train/tokens
