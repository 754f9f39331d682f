#!/bin/sh
# speedrun.sh -- time to a fixed loss: the recipe of configs/speedrun.yaml against AdamW, tuned.
#
# usage: configs/studies/speedrun.sh [race]   (`make speedrun`; SEEDS, SMALL: lib.sh beside it)
# race: no sweeps.
# Same code, model, initialisation, batch and data order.  First each side's sweep, one seed, one
# length; then runs of several lengths, each decayed to its end, for every seed.  A side's time is
# that of the shortest run which ends at the target, interpolated between two lengths on log axes.
# The clock is CPU seconds of one thread in steps: it stands up on a machine that others use.
. configs/studies/lib.sh
target=0.76 tune_adamw=100k tune_ours=65k bytes=4M
adamw_lengths="85k 112k" ours_lengths="54k 68k"
rates="8e-3 16e-3 24e-3 32e-3 48e-3"
if [ -n "$SMALL" ]; then
    target=2.0 tune_adamw=3k tune_ours=3k bytes=200k rates="16e-3 24e-3"
    adamw_lengths="9k 24k" ours_lengths="6k 14k"
fi
speedrun_data $bytes
side_of() { # a side's files
    [ "$1" = ours ] || echo "--config $here/speedrun-adamw.yaml"
}
# A run of a side; --config files first, then what the run asks for.
run() { # SIDE NAME key=value...
    side=$1 name=$pre-speedrun-$1-$2
    shift 2
    # shellcheck disable=SC2046
    "$B/pretrain" --quiet --threads 1 --config configs/speedrun.yaml $(side_of "$side") \
        name="$name" data.shards="$data" "$@" --resume=auto --if-done=skip
}
# BPB TOKENS CPU-SECONDS of a run; a resumed one's clocks are added up.
end_of() { # SIDE NAME
    awk -F '[,{}]' '
        /"val\/bpb"/ || /"train\/cpu_s"/ {
            for (i = 1; i <= NF; i++) { split($i, f, ":"); v[f[1]] = f[2] }
            cpu[v["\"seg\""]] = v["\"train/cpu_s\""]
        }
        END {
            for (s in cpu) sum += cpu[s]
            print v["\"val/bpb\""] + 0, v["\"train/tokens\""] + 0, sum + 0
        }' "runs/$pre-speedrun-$1-$2/metrics.jsonl"
}
# The sweep of a side, seed 1: what it changes of a plain start.
start=runs/$pre-speedrun-start.yaml
printf 'optim: {lr: 16e-3, beta1: 0.9, muon_momentum: 0.95}\nsched: {kind: linear}\n' >"$start"
tune() { # SIDE VARIANT key=value...
    of=$1 variant=$2
    shift 2
    length=$tune_ours
    [ "$of" = ours ] || length=$tune_adamw
    run "$of" "tune-$variant" --config "$start" seed=1 sched.tokens=$length "$@"
    echo "$of $length $* $(end_of "$of" "tune-$variant")" >>"runs/$pre-speedrun-tune.txt"
}
if [ "${1:-}" != race ]; then
    : >"runs/$pre-speedrun-tune.txt"
    for lr in $rates; do tune adamw "lr$lr" optim.lr=$lr; done
    tune adamw beta2 optim.beta2=0.99
    tune adamw wsd sched.kind=wsd sched.decay_frac=0.5
    tune adamw beta1 optim.beta1=0.8
    tune adamw b7 optim.beta1=0.7
    tune adamw b8wsd optim.beta1=0.8 sched.kind=wsd sched.decay_frac=0.5
    tune adamw b7wsd optim.beta1=0.7 sched.kind=wsd sched.decay_frac=0.5
    for lr in $rates; do
        tune adamw "b8wsd-lr$lr" optim.beta1=0.8 sched.kind=wsd sched.decay_frac=0.5 optim.lr=$lr
    done
    for lr in $rates; do tune ours "lr$lr" optim.lr=$lr; done
    tune ours m9b8 optim.muon_momentum=0.9 optim.beta1=0.8
    tune ours m8b7 optim.muon_momentum=0.8 optim.beta1=0.7
    tune ours m7b6 optim.muon_momentum=0.7 optim.beta1=0.6
    fast="optim.muon_momentum=0.8 optim.beta1=0.7"
    tune ours steps5 $fast optim.muon_steps=5
    tune ours embed $fast optim.embed_lr=0
    tune ours wsd $fast sched.kind=wsd sched.decay_frac=0.5
    tune ours zloss $fast model.xent_z_coef=1e-4
    # Not in the race, where both sides have one batch:
    tune ours ramp $fast data.batch_from=256 data.batch_ramp=30k
fi

# The race: sides in turn, so that both meet the machine in the same mood.
: >"runs/$pre-speedrun-race.txt"
touch "runs/$pre-speedrun-tune.txt"
race() { # SIDE LENGTH SEED
    run "$1" "$2-s$3" seed="$3" sched.tokens="$2"
    echo "$1 $3 $(end_of "$1" "$2-s$3")" >>"runs/$pre-speedrun-race.txt"
}
for seed in $SEEDS; do
    ours_next=$ours_lengths
    for length in $adamw_lengths; do
        race adamw "$length" "$seed"
        race ours "${ours_next%% *}" "$seed"
        ours_next=${ours_next#* }
    done
    say "speedrun: seed $seed"
done
tables() {
    echo "Sweeps: final bits per byte of runs of one length, seed 1."
    echo
    echo "| side | tokens | changed | bits per byte | CPU s |"
    echo "|---|---|---|---|---|"
    awk '{
        k = ""
        for (i = 3; i <= NF - 3; i++) k = k (i > 3 ? " " : "") $i
        printf "| %s | %s | %s | %.4f | %.1f |\n", $1, $2, k, $(NF - 2), $NF
    }' "runs/$pre-speedrun-tune.txt"
    echo
    echo "The race: final bits per byte by length, and where each seed crosses $target."
    echo
    awk "$stats"'
        { side = $1; seed = $2; k = ++m[side, seed]; bpb[side, seed, k] = $3
          tok[side, seed, k] = $4; cpu[side, seed, k] = $5; is[seed] }
        function cross(side, seed,   i, w) { # sets at_tok, at_cpu; 0: not between two lengths
            for (i = 1; i < m[side, seed]; i++) {
                if (bpb[side, seed, i] < target || bpb[side, seed, i + 1] > target) continue
                w = (bpb[side, seed, i] - target) / (bpb[side, seed, i] - bpb[side, seed, i + 1])
                at_tok = exp((1 - w) * log(tok[side, seed, i]) + w * log(tok[side, seed, i + 1]))
                at_cpu = exp((1 - w) * log(cpu[side, seed, i]) + w * log(cpu[side, seed, i + 1]))
                return 1
            }
            return 0
        }
        function ratio(x, k) {
            return sprintf("**%.2f** (95 %% interval %.2f to %.2f)", exp(mean(x, k)),
                           exp(mean(x, k) - half(x, k)), exp(mean(x, k) + half(x, k)))
        }
        END {
            print "| seed | side | bits per byte by length | tokens to target | CPU s to target |"
            print "|---|---|---|---|---|"
            for (seed = 1; seed in is || seed < 100; seed++) {
                if (!(seed in is)) continue
                both = 0
                for (j = 1; j <= 2; j++) {
                    side = j == 1 ? "adamw" : "ours"
                    row = ""
                    for (i = 1; i <= m[side, seed]; i++)
                        row = row sprintf("%s%dk: %.4f", i > 1 ? ", " : "",
                                          tok[side, seed, i] / 1000, bpb[side, seed, i])
                    found = cross(side, seed)
                    both += found
                    t[j] = at_tok; c[j] = at_cpu
                    printf "| %s | %s | %s | %s | %s |\n", seed, side, row,
                        found ? sprintf("%.0fk", at_tok / 1000) : "not within the lengths",
                        found ? sprintf("%.2f", at_cpu) : "-"
                }
                if (both == 2) { r_tok[++n_r] = log(t[1] / t[2]); r_cpu[n_r] = log(c[1] / c[2]) }
            }
            printf "\nAdamW over ours, geometric mean of %d seeds: tokens %s, CPU seconds %s.\n",
                n_r, n_r ? ratio(r_tok, n_r) : "-", n_r ? ratio(r_cpu, n_r) : "-"
        }' target=$target "runs/$pre-speedrun-race.txt"
}
tables | block speedrun
plot speedrun train/loss "runs/$pre-speedrun-adamw-*-s1" "runs/$pre-speedrun-ours-*-s1" \
    --x train/cpu_s
