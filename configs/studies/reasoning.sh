#!/bin/sh
# reasoning.sh -- study (d): sums with and without the think block, by steps of training.
#
# usage: configs/studies/reasoning.sh     (`make study-reasoning`; SEEDS, SMALL: lib.sh beside it)
# Two models a seed, on the conversations that ask for sums: `think` learns the working in its
# block, `direct` the same answers with the blocks cut out.  Asked at every checkpoint: think as it
# likes, think with an empty block put in its mouth (task.think: none), direct.
# shellcheck disable=SC2086
. configs/studies/lib.sh
tokens=409600 steps="25 50 100 150 200" every=25 n=420
[ -z "$SMALL" ] || { tokens=16k steps="4 8" every=4 n=42; }
prepare
make_text sums/all.jsonl --seed 1 --kind questions --split test --count $((2 * n))
grep '"sum":' "$text/sums/all.jsonl" >"$text/sums/world_questions.jsonl"
make_text all-val.jsonl --seed 1 --kind instructions --split val --count 300
grep '"sum":' "$text/all-val.jsonl" >"$text/think-val.jsonl"
cut='s|<think>[^<]*</think>||g'
sed "$cut" "$text/think-val.jsonl" >"$text/direct-val.jsonl"
for seed in $SEEDS; do
    make_text "all-s$seed.jsonl" --seed "$seed" --kind instructions --turns 3 \
        --count $((2 * conversations))
    grep '"sum":' "$text/all-s$seed.jsonl" >"$text/think-s$seed.jsonl"
    sed "$cut" "$text/think-s$seed.jsonl" >"$text/direct-s$seed.jsonl"
    for way in think direct; do
        shards "$way-s$seed" $here/sft.yaml "$way-s$seed.jsonl" "$way-val.jsonl"
        say "sft $way-s$seed"
        "$B/sft" --quiet --threads 1 --config $here/sft.yaml name="$pre-sft-$way-s$seed" \
            post.model="$base" data.shards="runs/$pre-$way-s$seed" seed="$seed" \
            sched.tokens=$tokens val.every=0 panel.prompts=0 ckpt.every=$every \
            ckpt.keep_every=$every $fit --resume=auto --if-done=skip
        for step in $steps; do
            at=$(printf 'step-%08d' "$step")
            sums() { # NAME TASK
                ask "$1-s$seed-$step" "$(model "sft-$way-s$seed" "$at")" "$2" \
                    "$text/sums"
            }
            sums "$way" eval/tasks/chat_world.yaml
            [ $way = direct ] || sums none $here/none.yaml
        done
    done
done

# All numbers, a line each: WAY SEED STEP NAME VALUE, and WAY SEED end SKILL PERCENT.
numbers=runs/$pre-reasoning.txt
skills=$(sed 's/.*"skill":"\([a-z_]*\)".*/\1/' "$text/sums/world_questions.jsonl" | sort -u)
for way in think none direct; do
    for seed in $SEEDS; do
        for step in $steps; do
            for m in exact_match parsed thought gen_tokens; do
                echo "$way $seed $step test/$m $(value "$way-s$seed-$step" $m)"
            done
        done
        "$B/judge" table "$text/sums/world_questions.jsonl" --train "$text/think-s$seed.jsonl" \
            "x=$(result "$way-s$seed-$step")" |
            awk -v way=$way -v seed="$seed" -v skills="$skills" '
                BEGIN { n = split(skills, s, "[ \n]") }
                { for (i = 1; i <= n; i++) if ($1 == s[i]) print way, seed, "end", $1, $NF }'
    done
done >"$numbers"
# Equations in the working of a skill's sums: WAY is `working`.
for skill in $skills; do
    grep "\"skill\":\"$skill\"" "$text/all-s${SEEDS%% *}.jsonl" |
        sed 's|.*"content":"<think>\([^<]*\)</think>.*|\1|' |
        awk -v skill="$skill" '{ n += gsub("=", "") } END { print "working 1 end", skill, n / NR }'
done >>"$numbers"
whole "$numbers"
grep -v '^working ' "$numbers" >"$numbers.curves"
mean_runs reasoning "$numbers.curves"
rm "$numbers.curves"
# shellcheck disable=SC2154
plot reasoning "test/exact_match test/parsed test/thought test/gen_tokens" $means
awk "$stats"'
    $1 == "working" { skill[++skills] = $4 }
    END {
        about["think"] = "learned with working, reasons"
        about["none"] = "learned with working, empty block"
        about["direct"] = "learned without working"
        print "Right on the test sums, in percent, by steps of training:\n"
        table("test/exact_match")
        print "\nParsed (no open block, an answer behind it), in percent:\n"
        table("test/parsed")
        print "\nAnswers with a block, in percent:\n"
        table("test/thought")
        last = steps[n_steps]
        split("equations;think;none;direct;think less direct, points", h, ";")
        printf "\nBy skill, step %d, percent right:\n\n", last
        head("skill", h, 5)
        for (i = 1; i <= skills; i++) { s = skill[i]
            printf "| %s | %.1f | %s | %s | %s | %s |\n", s, avg("working", "end", s),
                show("think", "end", s, 1, 0), show("none", "end", s, 1, 0),
                show("direct", "end", s, 1, 0), against("direct", "think", "end", s, 1, 0) }
        printf "| all | | %s | %s | %s | %s |\n", show("think", last, m0, 100, 1),
            show("none", last, m0, 100, 1), show("direct", last, m0, 100, 1),
            against("direct", "think", last, m0, 100, 1)
    }
    BEGIN { m0 = "test/exact_match" }
    function table(m,   i, s) {
        head("", steps, n_steps)
        for (i = 1; i <= 3; i++) {
            printf "| `%s`: %s |", groups[i], about[groups[i]]
            for (s = 1; s <= n_steps; s++) printf " %s |", show(groups[i], steps[s], m, 100, 1)
            print ""
        }
    }' "$numbers" | block reasoning
