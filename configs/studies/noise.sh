#!/bin/sh
# noise.sh -- study (a): SFT on conversations of which 0 to 80 % of the answers are bad.
#
# usage: configs/studies/noise.sh     (`make study-noise`; SEEDS, SMALL: lib.sh beside it)
# A model for each share and seed, in runs/study-sft-noise-*; the panel asks it at every validation,
# and the test questions are put to it in the end, at temperatures 0 and 1.
. configs/studies/lib.sh
shares="00 20 50 80"
[ -z "$SMALL" ] || shares="00 50"
: "${NOISE:=$shares}"
prepare
for noise in $NOISE; do
    for seed in $SEEDS; do
        sft_noise "$noise" "$seed"
        for t in 0 1; do
            ask "t$t-sft-noise-$noise-s$seed" "$(model "sft-noise-$noise-s$seed")" \
                eval/tasks/chat_world.yaml "$text" eval.temperature=$t
        done
    done
done

# All numbers, a line each: SHARE SEED STEP NAME VALUE.
numbers=runs/$pre-noise.txt
for noise in $NOISE; do
    for seed in $SEEDS; do
        run=sft-noise-$noise-s$seed
        {
            validations "runs/$pre-$run"
            for t in 0 1; do echo "end test$t $(value "t$t-$run" exact_match)"; done
            for a in $(alarms "runs/$pre-$run"); do echo "end alarm ${a%@*}"; done
        } | sed "s/^/$noise $seed /"
    done
done >"$numbers"
whole "$numbers"
mean_runs noise "$numbers"
# shellcheck disable=SC2086,SC2154
plot noise "panel/accuracy val/loss panel/nll panel/entropy panel/rep_4 panel/duplicates panel/kl" \
    $means

# When did a measure leave the clean runs?  At the first validation from which on, to the last, the
# 99 % interval of the difference of means (Student, pooled variance) leaves out zero on one side.
awk "$stats"'
    $4 == "alarm" { told[$1] = told[$1] " " $5 }
    function apart(g, s, m,   k, j, sd, d, a, b) {
        k = get(groups[1], s, m, a); j = get(g, s, m, b)
        if (k < 2 || j < 2) return 0
        sd = sqrt(((k - 1) * dev(a, k) ^ 2 + (j - 1) * dev(b, j) ^ 2) / (k + j - 2))
        d = mean(b, j) - mean(a, k)
        return (d > 0 ? d : -d) > t995(k + j - 2) * sd * sqrt(1 / k + 1 / j) ? (d > 0 ? 1 : -1) : 0
    }
    function since(g, m,   i, from, side) {
        from = 0; side = apart(g, steps[n_steps], m)
        for (i = n_steps; side && i > 0 && apart(g, steps[i], m) == side; i--) from = steps[i]
        return from ? from (side > 0 ? " up" : " down") : "-"
    }
    END {
        last = steps[n_steps]
        split("test, temperature 0, %;less clean, points;test, temperature 1, %;" \
            "less clean, points;alarms", h, ";")
        head("bad answers", h, 5)
        for (i = 1; i <= n_groups; i++) { g = groups[i]
            printf "| %d %% | %s | %s | %s | %s |%s |\n", g, show(g, "end", "test0", 100, 1),
                i == 1 ? "" : against(groups[1], g, "end", "test0", 100, 1),
                show(g, "end", "test1", 100, 1),
                i == 1 ? "" : against(groups[1], g, "end", "test1", 100, 1),
                told[g] ? told[g] : " none" }
        print ""
        for (i = 1; i <= n_groups; i++) h[i] = sprintf("%d %% at step %d", groups[i], last)
        for (i = 2; i <= n_groups; i++)
            h[n_groups + i - 1] = sprintf("%d %% apart from step", groups[i])
        head("measure", h, 2 * n_groups - 1)
        m = split("panel/accuracy val/loss panel/nll panel/entropy panel/kl panel/distinct_1 " \
            "panel/distinct_2 panel/rep_4 panel/loop panel/duplicates panel/length_ref " \
            "panel/unended panel/format", name, " ")
        for (j = 1; j <= m; j++) {
            short = name[j]; sub("panel/", "", short)
            printf "| `%s` |", short
            for (i = 1; i <= n_groups; i++) printf " %s |", show(groups[i], last, name[j], 1, 3)
            for (i = 2; i <= n_groups; i++) printf " %s |", since(groups[i], name[j])
            print ""
        }
        printf "\nAccuracy on the panel'"'"'s questions by step, in percent:\n\n"
        head("bad answers", steps, n_steps)
        for (i = 1; i <= n_groups; i++) {
            printf "| %d %% |", groups[i]
            for (s = 1; s <= n_steps; s++)
                printf " %s |", show(groups[i], steps[s], "panel/accuracy", 100, 0)
            print ""
        }
    }' "$numbers" | block noise
