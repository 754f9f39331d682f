#!/bin/sh
# stability.sh -- study (c): which norms, multipliers and positions bear a higher learning rate?
#
# usage: configs/studies/stability.sh     (`make study-stability`; SEEDS, SMALL: lib.sh beside it)
# Nine variants of configs/studies/stability.yaml x five rates x the seeds, in
# runs/study-stability-*.
. configs/studies/lib.sh
bytes=4M tokens=120k rates="3e-3 1e-2 3e-2 1e-1 3e-1"
variants="base eps embed residual zloss nope linear yarn theta"
[ -z "$SMALL" ] || { bytes=400k tokens=8k rates="1e-2 3e-2" variants="base yarn"; }
mkdir -p "$out"
make_text stability.jsonl --seed 1 --bytes $bytes
[ -s "runs/$pre-stability-data/manifest.json" ] ||
    "$B/tokenize" --quiet tokenize.vocab_size=1024 tokenize.inputs="[$text/stability.jsonl]" \
        tokenize.val_frac=0.05 tokenize.out="runs/$pre-stability-data" >/dev/null
key() { # of a variant
    case $1 in
    base) echo model.norm_eps=1e-5 ;;
    eps) echo model.norm_eps=0.01 ;;
    embed) echo model.embedding_scale=8 ;; # sqrt(width)
    residual) echo model.residual_scale=0.354 ;; # 1 / sqrt(2 layers)
    zloss) echo model.xent_z_coef=1e-4 ;;
    nope) echo model.rope=none ;;
    linear | yarn) echo "model.rope=$1 model.rope_factor=4" ;;
    theta) echo model.rope_theta=1000000 ;;
    *) echo "stability: error: no variant '$1'" >&2; return 2 ;;
    esac
}
for v in $variants; do
    keys=$(key "$v")
    for lr in $rates; do
        for seed in $SEEDS; do
            code=0
            # shellcheck disable=SC2086
            "$B/pretrain" --quiet --threads 1 --config $here/stability.yaml $keys optim.lr="$lr" \
                name="$pre-stability-$v-lr$lr-s$seed" seed="$seed" sched.tokens=$tokens \
                data.shards="runs/$pre-stability-data" --resume=auto --if-done=skip || code=$?
            [ $code = 0 ] || [ $code = 6 ] || exit $code # 6: it diverged, which is a result
        done
    done
    say "stability: $v"
done

# All numbers, a line each: VARIANT SEED end bpb@RATE VALUE, and the same of rise, the largest from
# one step to the next of the loss, and norm, the largest of the gradient before clipping.  A run
# that diverged counts as 9 bits a byte: knowing nothing is 8.
numbers=runs/$pre-stability.txt
for v in $variants; do
    for lr in $rates; do
        for seed in $SEEDS; do
            run=runs/$pre-stability-$v-lr$lr-s$seed
            number() { sed -n "s|.*\"$1\":\([0-9.e+-]*\).*|\1|p" "$run/summary.json" 2>/dev/null; }
            norm=$(sed -n 's|.*"train/grad_norm":\([0-9.e+-]*\).*|\1|p' "$run/metrics.jsonl" |
                awk '$1 > m { m = $1 } END { print m }')
            rise=$(sed -n 's|.*"train/loss":\([0-9.e+-]*\).*|\1|p' "$run/metrics.jsonl" |
                awk 'NR > 1 && $1 - last > m { m = $1 - last } { last = $1 } END { print m + 0 }')
            bpb=$(number val/bpb)
            echo "$v $seed end bpb@$lr ${bpb:-9}"
            echo "$v $seed end rise@$lr $rise"
            echo "$v $seed end norm@$lr $norm"
        done
    done
done >"$numbers"
whole "$numbers"
set --
for v in $variants; do
    mkdir -p "runs/$pre-mean/$v"
    set -- "$@" "runs/$pre-mean/$v"
    awk "$stats"'
        END {
            n_rates = split(rates, rate, " ")
            for (i = 1; i <= n_rates; i++)
                printf "{\"t\":\"metrics\",\"seg\":1,\"step\":%d,\"sweep/log10_lr\":%.4f," \
                    "\"val/bpb\":%.8g}\n", i, log(rate[i]) / log(10), avg(g, "end", "bpb@" rate[i])
        }' g="$v" rates="$rates" "$numbers" >"runs/$pre-mean/$v/metrics.jsonl"
done
plot stability val/bpb "$@" --x sweep/log10_lr
middle=${rates#* } middle=${middle#* } middle=${middle%% *}
plot stability-curves "train/loss train/grad_norm" "runs/$pre-stability-*-lr$middle-s${SEEDS%% *}"
# Sensitivity to the rate (Wortsman et al. 2023, arXiv:2309.14322): how much is lost, on average
# over the rates, against the variant's own best rate; here seed by seed, in bits a byte.
awk "$stats"'
    END {
        n_rates = split(rates, rate, " ")
        n_seeds = n[groups[1], "end", "bpb@" rate[1]]
        for (i = 1; i <= n_groups; i++) { g = groups[i]
            for (k = 1; k <= n_seeds; k++) {
                best = 99; s = 0
                for (r = 1; r <= n_rates; r++) {
                    x = v[g, "end", "bpb@" rate[r], k]; s += x / n_rates
                    if (x < best) best = x
                }
                v[g, "end", "best", k] = best; v[g, "end", "sensitivity", k] = s - best
            }
            n[g, "end", "best"] = n[g, "end", "sensitivity"] = n_seeds
        }
        print "Validation bits per byte:\n"
        for (r = 1; r <= n_rates; r++) h[r] = "rate " rate[r]
        h[r] = "best rate"; h[r + 1] = "sensitivity"
        head("variant", h, n_rates + 2)
        for (i = 1; i <= n_groups; i++) { g = groups[i]
            printf "| %s |", g
            for (r = 1; r <= n_rates; r++) printf " %s |", show(g, "end", "bpb@" rate[r], 1, 3)
            printf " %s | %s |\n", show(g, "end", "best", 1, 3),
                show(g, "end", "sensitivity", 1, 3) }
        print "\nThe same, less base:\n"
        head("variant", h, n_rates + 2)
        for (i = 2; i <= n_groups; i++) { g = groups[i]
            printf "| %s |", g
            for (r = 1; r <= n_rates; r++)
                printf " %s |", against("base", g, "end", "bpb@" rate[r], 1, 3)
            printf " %s | %s |\n", against("base", g, "end", "best", 1, 3),
                against("base", g, "end", "sensitivity", 1, 3) }
        print "\nLargest gradient norm before clipping, and largest rise of the loss in a step:\n"
        for (r = 1; r <= n_rates; r++) h[r] = "norm, " rate[r]
        for (r = 1; r <= n_rates; r++) h[n_rates + r] = "rise, " rate[r]
        head("variant", h, 2 * n_rates)
        for (i = 1; i <= n_groups; i++) { g = groups[i]
            printf "| %s |", g
            for (r = 1; r <= n_rates; r++) printf " %s |", show(g, "end", "norm@" rate[r], 1, 2)
            for (r = 1; r <= n_rates; r++) printf " %s |", show(g, "end", "rise@" rate[r], 1, 2)
            print ""
        }
    }' rates="$rates" "$numbers" | block stability
