# lib.sh -- what the studies share: sizes, the base model, data, fine-tuned models, evaluations.
# Sourced by the scripts beside it, run from the repository root.
#
# SEEDS names the seeds (default "1 2 3"), RUN the demo that is the base model (default demo: made
# by data/demo.sh when it is not there).  SMALL=1 does everything at a size of seconds, from a base
# model of its own, in runs/study-small-*: numbers without meaning, a test that the scripts work.
# shellcheck shell=sh disable=SC2034,SC2086,SC2016,SC2013
set -eu
export LC_ALL=C
B=build/bin
here=configs/studies
: "${SEEDS:=1 2 3}" "${SMALL:=}"
pre=study out=docs/studies base=runs/${RUN:-demo}/ckpt/latest
conversations=8000 sft_tokens=400k sft_every=28 prompts=64 items=200 questions=420 fit=
if [ -n "$SMALL" ]; then
    pre=study-small out=runs/study-small-docs base=runs/study-small-base/ckpt/latest
    conversations=300 sft_tokens=16k sft_every=4 prompts=4 items=4 questions=21
    fit=post.overlong=drop # a poorer vocabulary makes longer rows
fi
text=runs/$pre-text
say() { printf '== %s\n' "$*" >&2; }
# As `world`, into a file of $text that is not there yet.
make_text() { # FILE options
    file=$text/$1
    shift
    mkdir -p "$(dirname "$file")"
    [ -s "$file" ] || "$B/world" --out "$file" "$@"
}
# Token shards runs/$pre-NAME of files of $text.
shards() { # NAME CONFIG TRAIN VAL
    [ -s "runs/$pre-$1/manifest.json" ] ||
        "$B/tokenize" --quiet --config "$2" tokenize.inputs="[$text/$3]" \
            tokenize.val_inputs="[$text/$4]" tokenize.tokenizer="$base" tokenize.val_frac=0 \
            tokenize.out="runs/$pre-$1" >/dev/null
}
# Stories for the runs that train from nothing, and their shards: $data.
speedrun_data() { # BYTES
    mkdir -p "$out"
    make_text "speedrun-$1.jsonl" --seed 1 --split train --bytes "$1"
    make_text speedrun-val.jsonl --seed 1 --split val --bytes 400k
    data=runs/$pre-speedrun-data-$1
    [ -s "$data/manifest.json" ] ||
        "$B/tokenize" --quiet --config configs/speedrun.yaml tokenize.val_frac=0 \
            tokenize.out="$data" tokenize.inputs="[$text/speedrun-$1.jsonl]" \
            tokenize.val_inputs="[$text/speedrun-val.jsonl]" >/dev/null
}
prepare() { # the base model, the questions that are asked
    mkdir -p "$out"
    if [ -n "$SMALL" ]; then
        make_text stories.jsonl --seed 1 --count 300
        [ -s "runs/$pre-data/manifest.json" ] ||
            "$B/tokenize" --quiet --config configs/demo.yaml tokenize.vocab_size=1024 \
                tokenize.inputs="[$text/stories.jsonl]" tokenize.out="runs/$pre-data" >/dev/null
        "$B/pretrain" --quiet --threads 1 --config configs/demo.yaml name=$pre-base \
            data.shards="runs/$pre-data" model.d_model=32 model.d_expert=32 model.n_experts=2 \
            model.ssm_head_dim=32 sched.tokens=16k sched.warmup=2k val.every=0 \
            --resume=auto --if-done=skip
    else
        [ -s "$base/model.safetensors" ] || LLAMA=no sh data/demo.sh >&2
    fi
    make_text world_questions.jsonl --seed 1 --kind questions --split test --count $questions
    make_text val/world_questions.jsonl --seed 1 --kind questions --split val --count $items
    make_text val.jsonl --seed 1 --kind instructions --split val --count 300 --turns 3
}
# SFT of the base model: runs/$pre-sft-NAME on the shards runs/$pre-DATA.  Every study that wants
# the model of a seed and a share of bad answers has the same one.
sft() { # NAME DATA SEED
    say "sft $1"
    "$B/sft" --quiet --threads 1 --config $here/sft.yaml name="$pre-sft-$1" post.model="$base" \
        data.shards="runs/$pre-$2" seed="$3" sched.tokens=$sft_tokens val.every=$sft_every \
        ckpt.every=100 ckpt.keep_last=1 panel.prompts=$prompts \
        panel.items=$items panel.data="$text/val" $fit --resume=auto --if-done=skip
}
sft_noise() { # PERCENT SEED: on conversations of which so many answers are bad
    make_text "noise-$1-s$2.jsonl" --seed "$2" --kind instructions --turns 3 --noise "0.$1" \
        --count $conversations
    shards "noise-$1-s$2" $here/sft.yaml "noise-$1-s$2.jsonl" val.jsonl
    sft "noise-$1-s$2" "noise-$1-s$2" "$2"
}
model() { echo "runs/$pre-$1/ckpt/${2:-latest}"; }
result() { echo "runs/$pre-eval/$1"; }
# A task's questions, in a folder, put to a model: runs/$pre-eval/NAME.
ask() { # NAME MODEL TASK DATA options
    ask_name=$1 ask_model=$2 ask_task=$3 ask_data=$4
    shift 4
    "$B/eval" --quiet --threads 1 --model "$ask_model" --tasks "$ask_task" \
        --out "$(result "$ask_name")" --if-done=skip eval.data="$ask_data" eval.batch=64 "$@" \
        >/dev/null
}
value() { # RESULT METRIC: its value, of the only task
    sed -n "s|.*\"eval/[a-z_]*/$2\":\([0-9.e+-]*\)[,}].*|\1|p" "$(result "$1")/results.json"
}
# Every line has its number; one that is missing would count as 0.
whole() { # FILE
    awk 'NF < 5 { print "error: no number: " $0; bad = 1 } END { exit bad }' "$1" >&2
}
# Standard input takes the place of what stands between the marks in $out/NAME.md; without such a
# page (SMALL) it becomes one.
block() { # NAME
    page=$out/$1.md
    [ -s "$page" ] || printf '<!-- begin numbers -->\n<!-- end numbers -->\n' >"$page"
    cat >"$page.block"
    awk -v block="$page.block" '
        /^<!-- end numbers/ { skip = 0 }
        !skip { print }
        /^<!-- begin numbers/ { skip = 1; while ((getline line < block) > 0) print line }
    ' "$page" >"$page.new"
    mv "$page.new" "$page"
    rm "$page.block"
    say "$page"
}
# The numbers of a run's validations, a line each: STEP NAME VALUE.
validations() { # RUN
    sed -n '/"val\/loss"/ { s/[{}"]//g; p; }' "$1/metrics.jsonl" | awk -F, '{
        step = 0
        for (i = 1; i <= NF; i++) { split($i, f, ":"); if (f[1] == "step") step = f[2] }
        for (i = 1; i <= NF; i++) { split($i, f, ":"); if (f[1] ~ /\//) print step, f[1], f[2] }
    }'
}
plot() { # FILE METRICS RUN... options: metrics in one word, separated by blanks
    picture=$out/$1.svg metrics=$2
    shift 2
    for m in $metrics; do set -- "$@" --metric "$m"; done
    "$B/regress" plot "$@" --out "$picture" >/dev/null
}
# For awk, over lines of GROUP SEED STEP NAME VALUE: groups and steps in order, means and deviations
# over seeds, quantiles of Student's t by degrees of freedom.  show: mean and half the width of its
# 95 % interval.  against: the same of the differences from another group, seed by seed.
stats='
function t975(df) { return df > 10 ? 1.96 + 2.5 / df : T95[df] }
function t995(df) { return df > 10 ? 2.58 + 5.5 / df : T99[df] }
function mean(x, n,   i, s) { s = 0; for (i = 1; i <= n; i++) s += x[i]; return n ? s / n : 0 }
function dev(x, n,   i, s, m) {
    m = mean(x, n); s = 0
    for (i = 1; i <= n; i++) s += (x[i] - m) ^ 2
    return n > 1 ? sqrt(s / (n - 1)) : 0
}
function half(x, n) { return n > 1 ? t975(n - 1) * dev(x, n) / sqrt(n) : 0 }
function get(g, s, m, out,   i) {
    for (i = 1; i <= n[g, s, m]; i++) out[i] = v[g, s, m, i]
    return n[g, s, m] + 0
}
function avg(g, s, m,   k, x) { k = get(g, s, m, x); return mean(x, k) }
function pm(x, k, scale, digits) {
    if (!k) return "-"
    return sprintf("%.*f ± %.*f", digits, mean(x, k) * scale, digits, half(x, k) * scale)
}
function show(g, s, m, scale, digits,   k, x) {
    k = get(g, s, m, x)
    return pm(x, k, scale, digits)
}
function against(h, g, s, m, scale, digits,   k, i, x, y) {
    k = get(g, s, m, x)
    if (k != get(h, s, m, y)) return "-"
    for (i = 1; i <= k; i++) x[i] -= y[i]
    return (mean(x, k) >= 0 ? "+" : "") pm(x, k, scale, digits)
}
function head(first, names, n,   i) {
    printf "| %s |", first
    for (i = 1; i <= n; i++) printf " %s |", names[i]
    printf "\n|---|"
    for (i = 1; i <= n; i++) printf "---|"
    print ""
}
BEGIN {
    split("12.706 4.303 3.182 2.776 2.571 2.447 2.365 2.306 2.262 2.228", T95, " ")
    split("63.657 9.925 5.841 4.604 4.032 3.707 3.499 3.355 3.250 3.169", T99, " ")
}
!($1 in group) { group[$1]; groups[++n_groups] = $1 }
$3 != "end" && !($3 in step) { step[$3]; steps[++n_steps] = $3 }
{ v[$1, $3, $4, ++n[$1, $3, $4]] = $5 }'
# The means of each group of such a file as runs, for `plot`; their folders go to $means.
mean_runs() { # STUDY FILE
    means=
    for g in $(awk '!($1 in s) { s[$1]; print $1 }' "$2"); do
        mkdir -p "runs/$pre-mean/$1-$g"
        awk "$stats"'
            !($4 in is) { is[$4]; name[++names] = $4 }
            END {
                for (i = 1; i <= n_steps; i++) {
                    printf "{\"t\":\"metrics\",\"seg\":1,\"step\":%s", steps[i]
                    for (j = 1; j <= names; j++)
                        if (n[g, steps[i], name[j]])
                            printf ",\"%s\":%.8g", name[j], avg(g, steps[i], name[j])
                    print "}"
                }
            }' g="$g" "$2" >"runs/$pre-mean/$1-$g/metrics.jsonl"
        means="$means runs/$pre-mean/$1-$g"
    done
}
# The names of a run's alarms, each with its first step: NAME@STEP.
alarms() { # RUN
    sed -n 's/.*"t":"\([a-z-]*\)".*"step":\([0-9]*\),.*"text":"\([^"]*\)".*/\1 \2 \3/p' \
        "$1/events.jsonl" |
        awk '$1 == "panel" { sub(":", "", $3); print $3 "@" $2 }
            $1 == "displacement" || $1 == "length-bias" { print $1 "@" $2 }' | sort -u -t@ -k1,1
}
