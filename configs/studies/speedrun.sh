#!/bin/sh
# speedrun.sh -- time to a fixed loss: the recipe of configs/speedrun.yaml against AdamW, tuned.
#
# usage: configs/studies/speedrun.sh [race]   (`make speedrun`; SEEDS, SMALL: lib.sh beside it)
# race: no sweeps.  DISTANCES: short, long or both; the page then holds these alone.
# TORCH=python3 (one that has PyTorch): speedrun_torch.py races as well.
# Same code, model, initialisation, batch and data order, over two distances.  For each, first each
# side's sweep, one seed, one length; then runs of several lengths, each decayed to its end, for
# every seed.  A side's time is that of the shortest run which ends at the target, interpolated
# between two lengths on log axes.  The clock is CPU seconds of one thread in steps: it stands up on
# a machine that others use.
. configs/studies/lib.sh
bytes=4M
: "${DISTANCES:=short long}"
rates="8e-3 12e-3 16e-3 24e-3 32e-3 48e-3" low_rates="8e-3 12e-3 16e-3 24e-3" torch_rates="4e-3 8e-3 12e-3 16e-3 24e-3"
: "${TORCH:=}"
[ -z "$SMALL" ] || { bytes=200k DISTANCES=short rates="16e-3 24e-3" low_rates=16e-3 \
    torch_rates=8e-3; }
# short or long: target, lengths, and what the winners of its sweeps change (ours: nothing).  embed: AdamW with a
# rate of its own for the embedding.
set_distance() {
    dist=$1 target=0.76 tune_adamw=100k tune_ours=65k
    adamw_lengths="86k 112k" embed_lengths="56k 72k" ours_lengths="48k 60k"
    adamw_keys="optim.lr=16e-3 sched.kind=wsd" embed_keys="optim.lr=8e-3 optim.embed_lr=72e-3"
    if [ "$1" = long ]; then
        target=0.46 tune_adamw=300k tune_ours=200k
        adamw_lengths="240k 300k" embed_lengths="225k 280k" ours_lengths="165k 210k"
        adamw_keys="optim.lr=12e-3" embed_keys="optim.lr=8e-3 optim.embed_lr=48e-3"
    fi
    [ -z "$SMALL" ] || target=2.0 tune_adamw=3k tune_ours=3k adamw_lengths="9k 24k" \
        embed_lengths="9k 24k" ours_lengths="6k 14k"
}
speedrun_data $bytes
side_of() { # a side's files
    [ "$1" = ours ] || echo "--config $here/speedrun-adamw.yaml"
}
# A run of a side; --config files first, then what the run asks for.
run() { # SIDE NAME key=value...
    side=$1 name=$pre-speedrun-$dist-$1-$2
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
        }' "runs/$pre-speedrun-$dist-$1-$2/metrics.jsonl"
}
# The sweep of a side, seed 1: what it changes of a plain start.
start=runs/$pre-speedrun-start.yaml
printf '%s\n' 'optim: {lr: 16e-3, beta1: 0.9, muon_momentum: 0.95, muon_beta2: 0}' \
    'sched: {kind: linear}' >"$start"
tune() { # SIDE VARIANT key=value...
    of=$1 variant=$2
    shift 2
    length=$tune_ours
    [ "$of" = ours ] || length=$tune_adamw
    run "$of" "tune-$variant" --config "$start" seed=1 sched.tokens="$length" "$@"
    echo "$of $length $* $(end_of "$of" "tune-$variant")" >>"runs/$pre-speedrun-$dist-tune.txt"
}
# shellcheck disable=SC2086
sweep() {
    : >"runs/$pre-speedrun-$dist-tune.txt"
    for lr in $rates; do tune adamw "lr$lr" optim.lr=$lr; done
    tune adamw beta2 optim.beta2=0.99
    tune adamw wsd sched.kind=wsd sched.decay_frac=0.5
    base="optim.beta1=0.8 sched.kind=wsd sched.decay_frac=0.5"
    for lr in $rates; do tune adamw "b8wsd-lr$lr" $base optim.lr=$lr; done
    for lr in $rates; do tune adamw "b8-lr$lr" optim.beta1=0.8 optim.lr=$lr; done
    for b in 7 6 5; do
        base="optim.beta1=0.$b sched.kind=wsd sched.decay_frac=0.5"
        for lr in $low_rates; do tune adamw "b${b}wsd-lr$lr" $base optim.lr=$lr; done
        for lr in $low_rates; do tune adamw "b$b-lr$lr" optim.beta1=0.$b optim.lr=$lr; done
    done
    base="optim.beta1=0.7 optim.lr=12e-3"
    tune adamw b7-beta2 $base optim.beta2=0.9
    for e in 24 48 72 96; do tune adamw b7-embed$e $base optim.embed_lr=${e}e-3; done
    for lr in 4e-3 6e-3 8e-3 16e-3; do
        for e in 48 72; do
            tune adamw "b7-lr$lr-embed$e" optim.beta1=0.7 optim.lr=$lr optim.embed_lr=${e}e-3
        done
    done
    tune adamw b7-decay0 $base optim.weight_decay=0
    tune adamw b7-wsd9 $base sched.kind=wsd sched.decay_frac=0.9
    for lr in $rates; do tune ours "lr$lr" optim.lr=$lr; done
    base="optim.muon_momentum=0.9 optim.beta1=0.8"
    for lr in $rates; do tune ours "m9b8-lr$lr" $base optim.lr=$lr; done
    tune ours embed0 $base optim.embed_lr=0
    tune ours embed32 $base optim.embed_lr=32e-3
    tune ours decay0 $base optim.weight_decay=0
    tune ours zloss $base model.xent_z_coef=1e-4
    base="optim.muon_momentum=0.8 optim.beta1=0.7"
    for lr in $rates 64e-3; do tune ours "m8b7-lr$lr" $base optim.lr=$lr; done
    tune ours steps5 $base optim.muon_steps=5
    tune ours wsd $base sched.kind=wsd sched.decay_frac=0.5
    base="optim.muon_momentum=0.8 optim.beta1=0.5 optim.muon_beta2=0.9"
    for lr in $rates 64e-3 80e-3; do tune ours "v9-lr$lr" $base optim.lr=$lr; done
    for e in 72 96; do tune ours v9-lr64e-3-embed$e $base optim.lr=64e-3 optim.embed_lr=${e}e-3; done
    tune ours v9-wsd9 $base optim.lr=48e-3 sched.kind=wsd sched.decay_frac=0.9
    for n in 2 4; do tune ours v9-steps$n $base optim.lr=48e-3 optim.muon_steps=$n; done
    base="optim.lr=48e-3 optim.muon_momentum=0.8"
    tune ours v9-b7 $base optim.beta1=0.7 optim.muon_beta2=0.9
    for v in 0 0.8 0.95; do tune ours v$v $base optim.beta1=0.5 optim.muon_beta2=$v; done
    tune ours v9-m7 optim.lr=48e-3 optim.muon_momentum=0.7 optim.beta1=0.5 optim.muon_beta2=0.9
    base="optim.muon_momentum=0.8 optim.beta1=0.7"
    # Not in the race, where both sides have one batch:
    tune ours ramp $base data.batch_from=256 data.batch_ramp=60k
}
# The race: sides in turn, so that all meet the machine in the same mood.
race() { # SIDE LENGTH SEED KEYS
    # shellcheck disable=SC2086
    run "$1" "$2-s$3" seed="$3" sched.tokens="$2" $4
    echo "$1 $3 $(end_of "$1" "$2-s$3")" >>"runs/$pre-speedrun-$dist-race.txt"
}
race_all() {
    touch "runs/$pre-speedrun-$dist-tune.txt"
    : >"runs/$pre-speedrun-$dist-race.txt"
    for seed in $SEEDS; do
        ours_next=$ours_lengths embed_next=$embed_lengths
        for length in $adamw_lengths; do
            race adamw "$length" "$seed" "$adamw_keys"
            race embed "${embed_next%% *}" "$seed" "$embed_keys"
            race ours "${ours_next%% *}" "$seed" ""
            ours_next=${ours_next#* } embed_next=${embed_next#* }
        done
        say "speedrun: $dist, seed $seed"
    done
}
# Where a side of a seed crosses the target: SIDE SEED TOKENS CPU-SECONDS, no line if it does not.
cross() {
    sort -s -k 1,1 -k 2,2g "runs/$pre-speedrun-$dist-race.txt" | awk '
        $1 " " $2 == last && was >= target && $3 <= target {
            w = (was - target) / (was - $3)
            print last, exp((1 - w) * log(tok) + w * log($4)), exp((1 - w) * log(cpu) + w * log($5))
        }
        { last = $1 " " $2; was = $3; tok = $4; cpu = $5 }
    ' target="$target" >"runs/$pre-speedrun-$dist-cross.txt"
}
# PyTorch: the CPU seconds that ours took to the target; rates at seed 1, then the best for all.
torch=runs/$pre-speedrun-torch
torch_run() { # SEED RATE: a line of $torch/$dist.txt, SEED RATE TOKENS SECONDS BPB VERSION
    seconds=$(awk -v seed="$1" '$1 == "ours" && $2 == seed { printf "%.2f", $4 }' \
        "runs/$pre-speedrun-$dist-cross.txt")
    if [ -n "$seconds" ] && ! grep -q "^$1 $2 " "$torch/$dist.txt"; then
        line=$("$TORCH" $here/speedrun_torch.py "$torch" seconds="$seconds" lr="$2" seed="$1")
        echo "$1 $line" >>"$torch/$dist.txt"
    fi
}
torch_all() {
    mkdir -p "$torch"
    touch "$torch/$dist.txt"
    for split in train val; do
        [ -s "$torch/$split.jsonl" ] ||
            "$B/tokenize" head "$data" --split $split --docs 10000000 --tokens 10000000 --json \
                >"$torch/$split.jsonl"
    done
    for lr in $torch_rates; do torch_run 1 "$lr"; done
    best=$(sort -g -k 5 "$torch/$dist.txt" | awk '$1 == 1 { print $2; exit }')
    for seed in $SEEDS; do torch_run "$seed" "$best"; done
}
torch_table() {
    [ -s "$torch/$dist.txt" ] || { echo "PyTorch was not raced."; return; }
    echo "PyTorch $(awk '{ v = $6 } END { print v }' "$torch/$dist.txt"), AdamW, given the CPU seconds" \
        "that ours takes to $target bits per byte:"
    echo
    echo "| seed | rate | tokens | CPU s | bits per byte |"
    echo "|---|---|---|---|---|"
    awk '{ printf "| %s | %s | %.0fk | %.2f | %.4f |\n", $1, $2, $3 / 1000, $4, $5 }' \
        "$torch/$dist.txt"
}
tables() {
    echo "### To $target bits per byte"
    echo
    echo "Sweeps: final bits per byte of runs of one length, seed 1."
    echo
    echo "| side | tokens | changed | bits per byte | CPU s |"
    echo "|---|---|---|---|---|"
    awk '{
        k = ""
        for (i = 3; i <= NF - 3; i++) k = k (i > 3 ? " " : "") $i
        printf "| %s | %s | %s | %.4f | %.1f |\n", $1, $2, k, $(NF - 2), $NF
    }' "runs/$pre-speedrun-$dist-tune.txt"
    echo
    echo "The race: final bits per byte by length, and where each seed crosses $target."
    echo
    awk "$stats"'
        FILENAME ~ /-cross/ { at_tok[$1, $2] = $3; at_cpu[$1, $2] = $4; next }
        { side = $1; seed = $2; k = ++m[side, seed]; bpb[side, seed, k] = $3
          tok[side, seed, k] = $4; is[seed] }
        function ratio(x, k) {
            return sprintf("**%.2f** (95 %% interval %.2f to %.2f)", exp(mean(x, k)),
                           exp(mean(x, k) - half(x, k)), exp(mean(x, k) + half(x, k)))
        }
        function both(t, c, k) {
            return "tokens " ratio(t, k) ", CPU seconds " ratio(c, k) "."
        }
        END {
            print "| seed | side | bits per byte by length | tokens to target | CPU s to target |"
            print "|---|---|---|---|---|"
            for (seed = 1; seed in is || seed < 100; seed++) {
                if (!(seed in is)) continue
                for (j = 1; j <= 3; j++) {
                    side = j == 1 ? "adamw" : j == 2 ? "embed" : "ours"
                    row = ""
                    for (i = 1; i <= m[side, seed]; i++)
                        row = row sprintf("%s%dk: %.4f", i > 1 ? ", " : "",
                                          tok[side, seed, i] / 1000, bpb[side, seed, i])
                    found = (side, seed) in at_tok
                    printf "| %s | %s | %s | %s | %s |\n", seed, side, row,
                        found ? sprintf("%.0fk", at_tok[side, seed] / 1000) : "not within the lengths",
                        found ? sprintf("%.2f", at_cpu[side, seed]) : "-"
                }
                if (!(("ours", seed) in at_tok)) continue
                if (("adamw", seed) in at_tok) {
                    a_tok[++n_a] = log(at_tok["adamw", seed] / at_tok["ours", seed])
                    a_cpu[n_a] = log(at_cpu["adamw", seed] / at_cpu["ours", seed])
                }
                if (("embed", seed) in at_tok) {
                    e_tok[++n_e] = log(at_tok["embed", seed] / at_tok["ours", seed])
                    e_cpu[n_e] = log(at_cpu["embed", seed] / at_cpu["ours", seed])
                }
            }
            print "\nOver ours, geometric means over seeds:"
            if (n_a) print "AdamW with one rate: " both(a_tok, a_cpu, n_a)
            if (n_e) print "AdamW with an embedding rate of its own: " both(e_tok, e_cpu, n_e)
        }' "runs/$pre-speedrun-$dist-cross.txt" "runs/$pre-speedrun-$dist-race.txt"
    echo
    torch_table
}
for d in $DISTANCES; do
    set_distance "$d"
    [ "${1:-}" = race ] || sweep
    race_all
    cross
    [ -z "$TORCH" ] || torch_all
done
for d in $DISTANCES; do
    set_distance "$d"
    tables
    echo
done | block speedrun
plot speedrun train/loss "runs/$pre-speedrun-$dist-adamw-*k-s1" "runs/$pre-speedrun-$dist-ours-*k-s1" \
    --x train/cpu_s
