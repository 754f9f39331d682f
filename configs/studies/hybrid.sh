#!/bin/sh
# hybrid.sh -- study: attention, Mamba-2 and the hybrid, matched on parameters and tokens.
#
# usage: configs/studies/hybrid.sh     (`make study-hybrid`; SEEDS, SMALL: lib.sh beside it;
# RECALL_SEEDS: of the recall runs, default 1 2 3 4 5)
# In runs/study-hybrid-*: each arm on stories (loss; loss by position to four times the trained
# length) and, two layers of it, on rows of key-value pairs (recall of a held-out row's value).
. configs/studies/lib.sh
bytes=4M tokens=200k rows=48000 budgets="500k 3M" asked=200
: "${RECALL_SEEDS:=1 2 3 4 5}"
if [ -n "$SMALL" ]; then
    bytes=200k tokens=6k rows=400 budgets="4k 6k" asked=20 RECALL_SEEDS=$SEEDS
fi
trained=2,4,8 asked_pairs="4 8 16"
speedrun_data $bytes
make_text hybrid-test.jsonl --seed 1 --split test --bytes 100k
rows_of() { # FILE SEED ROWS PAIRS ASK
    mkdir -p "$(dirname "$text/$1")"
    [ -s "$text/$1" ] ||
        awk -v seed="$2" -v rows="$3" -v pairs="$4" -v items=32 -v ask="$5" \
            -f $here/hybrid-rows.awk >"$text/$1"
}
rows_of hybrid-rows.jsonl 1 $rows $trained 0
rows_of hybrid-rows-val.jsonl 2 200 $trained 0
for n in $asked_pairs; do rows_of "recall-$n/hybrid-recall.jsonl" 3 $asked "$n" 1; done
recall=runs/$pre-hybrid-rows
# Each syllable becomes one piece: 32 of them, in a vocabulary with little room for more.
[ -s "$recall/manifest.json" ] ||
    "$B/tokenize" --quiet --config configs/speedrun.yaml tokenize.vocab_size=320 \
        tokenize.val_frac=0 tokenize.out="$recall" tokenize.inputs="[$text/hybrid-rows.jsonl]" \
        tokenize.val_inputs="[$text/hybrid-rows-val.jsonl]" >/dev/null
# Inner widths that make up for the mixers' sizes.
key() { # NAME ARM
    case $1-$2 in
    *-attention) echo model.pattern=A model.d_ff=219 model.rope=plain ;;
    *-mamba) echo model.pattern=M model.d_ff=160 ;;
    story-hybrid) echo model.pattern=MMAM model.d_ff=175 model.rope=none ;;
    recall-*-hybrid) echo model.pattern=MA model.d_ff=190 model.rope=none ;;
    esac
    [ "$1" = story ] || echo "--config $here/hybrid_mqar.yaml"
}
train() { # NAME ARM SEED DATA TOKENS
    # shellcheck disable=SC2046
    "$B/pretrain" --quiet --threads 1 --config configs/speedrun.yaml --config $here/hybrid.yaml \
        $(key "$1" "$2") name="$pre-hybrid-$1-$2-s$3" seed="$3" data.shards="$4" \
        sched.tokens="$5" --resume=auto --if-done=skip
}
all=runs/$pre-hybrid.txt
: >"$all"
number() { sed -n "s|.*\"$2\":\([0-9.e+-]*\).*|\1|p" "runs/$1/summary.json"; }
arms="attention mamba hybrid"
for seed in $SEEDS; do
    for arm in $arms; do
        train story "$arm" "$seed" "$data" $tokens
        name=hybrid-story-$arm-s$seed
        ask "$name" "$(model "$name")" $here/hybrid_curve.yaml "$text" eval.context=1024
        line="$arm $seed 1"
        echo "$line bpb $(number "$pre-$name" val/bpb)" >>"$all"
        echo "$line params $(number "$pre-$name" model/params)" >>"$all"
        # Bits per byte by position, in powers of two.
        tr '{' '\n' <"$(result "$name")/results.json" | awk -v line="$line" '
            at != "" && match($0, /"bits_per_byte":[0-9.]*/) {
                print line, "from" at, substr($0, RSTART + 16, RLENGTH - 16)
            }
            { at = match($0, /"position=[0-9]*/) ? substr($0, RSTART + 10, RLENGTH - 10) : "" }
        ' >>"$all"
    done
    say "hybrid: stories, seed $seed"
done
for seed in $RECALL_SEEDS; do
    for arm in $arms; do
        for budget in $budgets; do
            train "recall-$budget" "$arm" "$seed" "$recall" "$budget"
            name=hybrid-recall-$budget-$arm-s$seed
            for n in $asked_pairs; do
                ask "$name-$n" "$(model "$name")" $here/hybrid_recall.yaml "$text/recall-$n"
                echo "$arm $seed $n recall-$budget $(value "$name-$n" greedy)" >>"$all"
            done
        done
        echo "$arm $seed 2 params $(number "$pre-$name" model/params)" >>"$all"
    done
    say "hybrid: recall, seed $seed"
done
tables() {
    awk "$stats"'
        function wilson(won, k,   z, mid, wide) {
            z = 1.96
            mid = (won + z * z / 2) / (k + z * z)
            wide = z * sqrt(won * (k - won) / k + z * z / 4) / (k + z * z)
            return sprintf("%.2f (%.2f to %.2f)", won / k, mid - wide, mid + wide)
        }
        function won_by(arm, budget, pairs,   k, x, list, won, j) {
            k = get(arm, pairs, "recall-" budget, x)
            list = ""; won = 0
            for (j = 1; j <= k; j++) {
                list = list sprintf("%s%.2f", j > 1 ? ", " : "", x[j])
                won += x[j] > 0.9
            }
            printf "| %s | %s | %d | %s | %d of %d | %s |\n", arm, budget, pairs, list, won, k,
                wilson(won, k)
        }
        function row(what, m, step, scale, digits,   a) {
            printf "| %s |", what
            for (a = 1; a <= 3; a++) printf " %s |", show(arm[a], step, m, scale, digits)
            printf " %s | %s |\n", against(arm[1], arm[3], step, m, scale, digits),
                against(arm[2], arm[3], step, m, scale, digits)
        }
        END {
            split("attention mamba hybrid", arm, " ")
            split("attention mamba hybrid hybrid-attention hybrid-mamba", names, " ")
            print "Stories: mean and 95 % interval over seeds; differences seed by seed.\n"
            head("bits per byte", names, 5)
            row("parameters", "params", 1, 1, 0)
            row("validation", "bpb", 1, 1, 4)
            for (p = 64; p <= 512; p *= 2) row("from token " p, "from" p, 1, 1, 4)
            n_asked = split(asked, pairs, " ")
            n_budgets = split(budgets, budget, " ")
            print "\nRecall after rows of " trained " pairs: share of held-out values.\n"
            head("share recalled", names, 5)
            row("parameters", "params", 2, 1, 0)
            for (b = 1; b <= n_budgets; b++)
                for (i = 1; i <= n_asked; i++)
                    row(budget[b] " tokens, " pairs[i] " pairs", "recall-" budget[b], pairs[i], 1, 3)
            print "\nSeeds that recall more than nine in ten; rate with Wilson\47s 95 % interval.\n"
            print "| arm | tokens | pairs | by seed | successes | rate |\n|---|---|---|---|---|---|"
            for (a = 1; a <= 3; a++)
                for (b = 1; b <= n_budgets; b++)
                    for (i = 1; i <= n_asked; i++) won_by(arm[a], budget[b], pairs[i])
        }' trained="$(echo $trained | sed 's/,\([0-9]*\)$/ or \1/; s/,/, /g')" asked="$asked_pairs" \
        budgets="$budgets" \
        "$all"
}
tables | block hybrid
plot hybrid train/loss "runs/$pre-hybrid-story-*-s1" --x train/tokens
plot hybrid-recall train/loss "runs/$pre-hybrid-recall-${budgets##* }-*-s?" --x train/tokens
