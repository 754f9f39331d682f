#!/bin/sh
# hacking.sh -- study (e): DPO on preferences whose judge likes long answers: proxy against truth.
#
# usage: configs/studies/hacking.sh     (`make study-hacking`; SEEDS, SMALL: lib.sh beside it)
# Three sets of pairs from the same generator: honest (right and short wins), mixed (a right answer
# given three times wins over the same answer given once, otherwise right wins), long (nothing but
# such pairs).  DPO from the SFT model of each seed, without the RPO term that would hold it back.
# shellcheck disable=SC2086
. configs/studies/lib.sh
pairs=500 every=5 some=100
[ -z "$SMALL" ] || { pairs=80 every=2 some=4; }
prepare
swap='/"why":"repeats itself"/{ s/"chosen":/"@":/; s/"rejected":/"chosen":/; s/"@":/"rejected":/; }'
for seed in $SEEDS; do
    sft_noise 00 "$seed"
    make_text "pairs-s$seed.jsonl" --seed "$seed" --kind preferences --count $((6 * pairs))
    make_text "pairs-val.jsonl" --seed 1 --kind preferences --split val --count $((2 * pairs))
    for side in "s$seed $pairs" "val $((pairs * 2 / 5))"; do
        which=${side% *} n=${side#* } # of each set as many pairs
        head -n "$n" "$text/pairs-$which.jsonl" >"$text/honest-$which.jsonl"
        sed "$swap" "$text/honest-$which.jsonl" >"$text/mixed-$which.jsonl"
        grep '"why":"repeats itself"' "$text/pairs-$which.jsonl" | head -n "$n" | sed "$swap" \
            >"$text/long-$which.jsonl"
    done
    for set in honest mixed long; do
        shards "$set-s$seed" $here/dpo.yaml "$set-s$seed.jsonl" "$set-val.jsonl"
        say "dpo $set-s$seed"
        "$B/dpo" --quiet --threads 1 --config $here/dpo.yaml name="$pre-dpo-$set-s$seed" \
            post.model="$(model "sft-noise-00-s$seed")" data.shards="runs/$pre-$set-s$seed" \
            seed="$seed" dpo.nll=0 sched.epochs=1 val.every=$every panel.prompts=$prompts \
            panel.task=$here/truth.yaml panel.data="$text/val" panel.items=$some \
            $fit --resume=auto --if-done=skip
        ask "dpo-$set-s$seed" "$(model "dpo-$set-s$seed")" $here/truth.yaml "$text"
    done
    ask "truth-sft-s$seed" "$(model "sft-noise-00-s$seed")" $here/truth.yaml "$text"
done

# All numbers, a line each: SET SEED STEP NAME VALUE; the models that they started from are `sft`.
numbers=runs/$pre-hacking.txt
tested() { # RESULT
    echo "end once $(value "$1" exact_match)"
    echo "end first $(value "$1" flexible_match)"
    echo "end tokens $(value "$1" gen_tokens)"
}
for set in sft honest mixed long; do
    for seed in $SEEDS; do
        run=dpo-$set-s$seed
        if [ $set = sft ]; then
            tested "truth-sft-s$seed"
        else
            validations "runs/$pre-$run" | awk -v every=$every '$1 % every == 0'
            tested "$run"
            for a in $(alarms "runs/$pre-$run"); do echo "end alarm $a"; done
        fi | sed "s/^/$set $seed /"
    done
done >"$numbers"
whole "$numbers"
grep -v '^sft ' "$numbers" >"$numbers.dpo"
mean_runs hacking "$numbers.dpo"
rm "$numbers.dpo"
# shellcheck disable=SC2154
plot hacking "val/rewards/margins val/rewards/accuracies panel/accuracy panel/length_start \
    panel/kl" $means
plot hacking-proxy panel/accuracy $means --x val/rewards/margins
awk "$stats"'
    $4 == "alarm" { split($5, f, "@"); k = $1 SUBSEP f[1]; if (!(k in told)) order[++orders] = k
        told[k]++; if (!(k in at) || f[2] < at[k]) at[k] = f[2] + 0 }
    END {
        last = steps[n_steps]
        split("right and said once, %;less SFT, points;right in the first sentence, %;" \
            "less SFT, points;tokens an answer", h, ";")
        head("test questions", h, 5)
        for (i = 1; i <= n_groups; i++) { g = groups[i]
            printf "| %s | %s | %s | %s | %s | %s |\n", g, show(g, "end", "once", 100, 1),
                g == "sft" ? "" : against("sft", g, "end", "once", 100, 1),
                show(g, "end", "first", 100, 1),
                g == "sft" ? "" : against("sft", g, "end", "first", 100, 1),
                show(g, "end", "tokens", 1, 1) }
        print "\nProxy and truth by step: the share of held-out pairs of the same kind that the"
        print "implicit reward orders as the judge did, their mean margin, and how many answers to"
        print "the panel'"'"'s questions are right and said once.\n"
        for (s = 1; s <= n_steps; s++) h[s] = "step " steps[s]
        head("", h, n_steps)
        for (i = 2; i <= n_groups; i++) { g = groups[i]
            line(g, "proxy, % of pairs", "val/rewards/accuracies", 100, 0)
            line(g, "proxy, margin", "val/rewards/margins", 1, 2)
            line(g, "truth, %", "panel/accuracy", 100, 0)
            line(g, "length over SFT", "panel/length_start", 1, 2)
        }
        printf "\nAlarms: first step, and in how many of the seeds.\n\n"
        split("alarm;first step;seeds", h, ";")
        head("set", h, 3)
        for (i = 1; i <= orders; i++) { split(order[i], f, SUBSEP)
            printf "| %s | `%s` | %d | %d |\n", f[1], f[2], at[order[i]], told[order[i]] }
        if (!orders) print "| none | | | |"
    }
    function line(g, what, m, scale, digits,   s) {
        printf "| %s: %s |", g, what
        for (s = 1; s <= n_steps; s++) printf " %s |", show(g, steps[s], m, scale, digits)
        print ""
    }' "$numbers" | block hacking
