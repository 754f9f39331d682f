#!/bin/sh
# hybrid.sh -- study: attention, Mamba-2 and the hybrid, matched on parameters and tokens.
#
# usage: configs/studies/hybrid.sh     (`make study-hybrid`; SEEDS, SMALL: lib.sh beside it;
# RECALL_SEEDS: of the recall runs, default 1 2 3 4 5)
# In runs/study-hybrid-*: each arm on stories (loss; loss by position to four times the trained
# length) and, as another run, on rows of key-value pairs (recall of a held-out row's value).
. configs/studies/lib.sh
bytes=4M tokens=200k pairs=16 rows=12000 recall_tokens=800k asked=200
: "${RECALL_SEEDS:=1 2 3 4 5}"
if [ -n "$SMALL" ]; then
    bytes=200k tokens=6k pairs=4 rows=1500 recall_tokens=6k asked=20 RECALL_SEEDS=$SEEDS
fi
speedrun_data $bytes
make_text hybrid-test.jsonl --seed 1 --split test --bytes 100k
rows_of() { # FILE SEED ROWS ASK
    [ -s "$text/$1" ] ||
        awk -v seed="$2" -v rows="$3" -v pairs=$pairs -v ask="$4" -f $here/hybrid-rows.awk \
            >"$text/$1"
}
rows_of hybrid-rows.jsonl 1 $rows 0
rows_of hybrid-rows-val.jsonl 2 50 0
rows_of hybrid-recall.jsonl 3 $asked 1
recall=runs/$pre-hybrid-rows
# Each syllable becomes one piece: 80 of them, in a vocabulary with little room for more.
[ -s "$recall/manifest.json" ] ||
    "$B/tokenize" --quiet --config configs/speedrun.yaml tokenize.vocab_size=384 \
        tokenize.val_frac=0 tokenize.out="$recall" tokenize.inputs="[$text/hybrid-rows.jsonl]" \
        tokenize.val_inputs="[$text/hybrid-rows-val.jsonl]" >/dev/null
# Inner widths that make up for the mixers' sizes.
key() { # of an arm
    case $1 in
    attention) echo model.pattern=A model.d_ff=219 model.rope=plain ;;
    mamba) echo model.pattern=M model.d_ff=160 ;;
    hybrid) echo model.pattern=MMAM model.d_ff=175 model.rope=none ;;
    esac
}
train() { # NAME ARM SEED DATA TOKENS
    # shellcheck disable=SC2046
    "$B/pretrain" --quiet --threads 1 --config configs/speedrun.yaml --config $here/hybrid.yaml \
        $(key "$2") name="$pre-hybrid-$1-$2-s$3" seed="$3" data.shards="$4" sched.tokens="$5" \
        --resume=auto --if-done=skip
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
        train recall "$arm" "$seed" "$recall" $recall_tokens
        name=hybrid-recall-$arm-s$seed
        ask "$name" "$(model "$name")" $here/hybrid_recall.yaml "$text"
        echo "$arm $seed 2 recall $(value "$name" greedy)" >>"$all"
    done
    say "hybrid: recall, seed $seed"
done
tables() {
    awk "$stats"'
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
            print "\nRows of " pairs " pairs: share of held-out values recalled; seeds above 0.9.\n"
            print "| arm | by seed | successes |\n|---|---|---|"
            for (a = 1; a <= 3; a++) {
                k = get(arm[a], 2, "recall", x)
                list = ""; won = 0
                for (i = 1; i <= k; i++) {
                    list = list sprintf("%s%.2f", i > 1 ? ", " : "", x[i])
                    won += x[i] > 0.9
                }
                printf "| %s | %s | %d of %d |\n", arm[a], list, won, k
            }
        }' pairs=$pairs "$all"
}
tables | block hybrid
plot hybrid train/loss "runs/$pre-hybrid-story-*-s1" --x train/tokens
plot hybrid-recall train/loss "runs/$pre-hybrid-recall-*-s?" --x train/tokens
