#!/bin/sh
# win.sh -- study (b): SFT, SFT that goes on with right answers, DPO: who wins on new questions?
#
# usage: configs/studies/win.sh     (`make study-win`; SEEDS, SMALL: lib.sh beside it)
# SFT models of study (a), from clean data and from data of which half the answers are bad, answer
# training questions twice at temperature 1, `judge pairs` makes preferences of that, and two models
# go on from each: `more` learns the chosen answers (SFT), `dpo` the pairs.  Win rates are at
# temperature 1 and 0 on test questions, by the world's checker.
# shellcheck disable=SC2086
. configs/studies/lib.sh
models="sft-noise sft-more dpo-own" many=1200 epochs=2 every=16 items=100
: "${FROM:=00 50}"
[ -z "$SMALL" ] || { many=120 epochs=1 every=4 items=4 FROM=00; }
prepare
# The curves' own questions; the verdict is on others.
panel="panel.prompts=16 panel.task=$here/sampled.yaml panel.data=$text/val panel.items=$items"
study() { # PERCENT SEED: of bad answers in the SFT model's data
    id=$1-s$2
    sft_noise "$1" "$2"
    start=$(model "sft-noise-$id")
    make_text "ask-s$2/world_preferences.jsonl" --seed "$((100 + $2))" --kind preferences \
        --count $many
    for draw in 1 2; do
        ask "sample$draw-$id" "$start" eval/tasks/chat_ask.yaml "$text/ask-s$2" eval.seed=$draw
    done
    [ -s "$text/own-$id.jsonl" ] ||
        "$B/judge" pairs "$text/ask-s$2/world_preferences.jsonl" "$(result "sample1-$id")" \
            "$(result "sample2-$id")" --out "$text/own-$id.jsonl"
    # The first twentieth is held out for the curves.
    n=$(($(wc -l <"$text/own-$id.jsonl") / 20 + 1))
    head -n "$n" "$text/own-$id.jsonl" >"$text/own-val-$id.jsonl"
    tail -n "+$((n + 1))" "$text/own-$id.jsonl" >"$text/own-train-$id.jsonl"
    for f in train val; do
        sed 's/"chosen":/"response":/; s/"rejected":/"not":/' "$text/own-$f-$id.jsonl" \
            >"$text/more-$f-$id.jsonl"
    done
    shards "own-$id" $here/dpo.yaml "own-train-$id.jsonl" "own-val-$id.jsonl"
    shards "more-$id" $here/sft.yaml "more-train-$id.jsonl" "more-val-$id.jsonl"
    say "more $id"
    "$B/sft" --quiet --threads 1 --config $here/sft.yaml name="$pre-sft-more-$id" \
        post.model="$start" data.shards="runs/$pre-more-$id" seed="$2" optim.lr=1e-3 \
        sched.epochs=$epochs val.every=$every $panel $fit --resume=auto --if-done=skip
    say "dpo own $id"
    "$B/dpo" --quiet --threads 1 --config $here/dpo.yaml name="$pre-dpo-own-$id" \
        post.model="$start" data.shards="runs/$pre-own-$id" seed="$2" dpo.nll=2 \
        sched.epochs=$epochs val.every=$every $panel $fit --resume=auto --if-done=skip
    for m in $models; do
        for t in 0 1; do
            ask "t$t-$m-$id" "$(model "$m-$id")" eval/tasks/chat_world.yaml "$text" \
                eval.temperature=$t
        done
    done
}
for seed in $SEEDS; do
    for from in $FROM; do study "$from" "$seed"; done
done

# All numbers, a line each: MODEL SEED STEP NAME VALUE.  MODEL: sft-00, more-00, dpo-00, sft-50 ...
numbers=runs/$pre-win.txt
for from in $FROM; do
    for m in $models; do
        case $m in sft-more) short="more" ;; dpo-own) short="dpo" ;; *) short="sft" ;; esac
        short=$short-$from
        for seed in $SEEDS; do
            id=$m-$from-s$seed
            [ "$m" = sft-noise ] || validations "runs/$pre-$id" |
                awk -v every=$every -v of="$short $seed" '$1 % every == 0 { print of, $0 }'
            for t in 0 1; do
                echo "$short $seed end t$t $(value "t$t-$id" exact_match)"
                echo "$short $seed end tokens$t $(value "t$t-$id" gen_tokens)"
            done
        done
    done
done >"$numbers"
whole "$numbers"
grep -v '^sft-' "$numbers" >"$numbers.curves"
mean_runs win "$numbers.curves"
rm "$numbers.curves"
# shellcheck disable=SC2154
plot win "panel/win_rate panel/accuracy panel/kl" $means
# The win rate of B over A with its interval: a line of the table.
rate() { # WHAT A B: patterns of results
    "$B/regress" --quiet ${4:-} "$2" "$3" --json >"$numbers.json" 2>/dev/null || [ $? -le 5 ]
    printf '| %s |' "$1"
    tr '{' '\n' <"$numbers.json" | grep '"metric":"exact_match","gates"' | tr ',' '\n' |
        awk -F: '{ gsub(/"/, "", $1); f[$1] = $2 }
            END {
                printf " %.1f %% |", 100 * f["win_rate"]
                if (f["win_lo"] == "") printf " - |"
                else printf " %.1f to %.1f |", 100 * f["win_lo"], 100 * f["win_hi"]
                printf " %d | %d |\n", f["gains"], f["losses"]
            }'
}
{
    awk "$stats"'
        END {
            split("temperature 1, %;less SFT, points;temperature 0, %;less SFT, points;" \
                "tokens an answer, temperature 1", h, ";")
            head("right", h, 5)
            for (i = 1; i <= n_groups; i++) { g = groups[i]
                from = g; sub(".*-", "sft-", from)
                printf "| %s | %s | %s | %s | %s | %s |\n", g, show(g, "end", "t1", 100, 1),
                    g == from ? "" : against(from, g, "end", "t1", 100, 1),
                    show(g, "end", "t0", 100, 1),
                    g == from ? "" : against(from, g, "end", "t0", 100, 1),
                    show(g, "end", "tokens1", 1, 1) }
        }' "$numbers"
    printf '\n| win rate | | 95 %% interval | won | lost |\n|---|---|---|---|---|\n'
    for from in $FROM; do
        for pair in "dpo-$from over sft-$from:sft-noise:dpo-own" \
            "more-$from over sft-$from:sft-noise:sft-more" \
            "dpo-$from over more-$from:sft-more:dpo-own"; do
            what=${pair%%:*} two=${pair#*:}
            one=${two%:*}-$from-s two=${two#*:}-$from-s
            for t in 1 0; do
                rate "$what, temperature $t, all seeds" "$(result "t$t-$one*")" \
                    "$(result "t$t-$two*")" --replicates
            done
            for seed in $SEEDS; do
                rate "$what, temperature 1, seed $seed" "$(result "t1-$one$seed")" \
                    "$(result "t1-$two$seed")"
            done
        done
    done
} | block win
