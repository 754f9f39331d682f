#!/bin/sh
# demo-chat.sh -- the demo, then goes on from its model: conversations, SFT, DPO, and what each is
# worth by the world's own checker, on questions whose facts and sums no training text has.
# usage: data/demo-chat.sh
# RUN names the demo (default demo).  Everything lands in runs/RUN-chat-text, runs/RUN-sft-data,
# runs/RUN-dpo-data, runs/RUN-sft and runs/RUN-dpo; done steps are not repeated.
set -eu
B=build/bin
RUN=${RUN:-demo}
base=runs/$RUN/ckpt/latest
text=runs/$RUN-chat-text
sft=runs/$RUN-sft/ckpt/latest
dpo=runs/$RUN-dpo/ckpt/latest
say() { printf '\n== %s\n' "$*"; }
# One thread each: two evaluations at a time use two cores better than one after the other.
ask() { # NAME MODEL TASK [options]
    name=$1 model=$2 task=$3
    shift 3
    $B/eval --model "$model" --tasks "eval/tasks/$task.yaml" --out "runs/$RUN-chat-eval/$name" \
        --if-done=skip --quiet --threads 1 eval.data="$text" eval.batch=64 "$@" >/dev/null
}
both() { # wait for two background jobs, fail when one of them did
    wait "$1" && wait "$2"
}
result() { echo "runs/$RUN-chat-eval/$1"; }

[ -z "${TEXT:-}" ] || {
    echo "demo-chat: error: its questions are about the default corpus; leave TEXT out" >&2; exit 2; }
start=$(date +%s)
sh data/demo.sh
chat=$(date +%s)
say "1. Conversations: questions about stories, worked sums, rewriting; a third answered badly"
mkdir -p "$text" "runs/$RUN-chat-eval"
make_text() { # NAME options
    [ -s "$text/$1.jsonl" ] || { f=$1; shift; $B/world --seed 1 --out "$text/$f.jsonl" "$@"; }
}
make_text world_questions --kind questions --split test --count 840 &
questions=$!
make_text instructions --kind instructions --count 26000 --turns 3 --noise 0.33
make_text val --kind instructions --split val --count 300 --turns 3
make_text world_preferences --kind preferences --count 4000
make_text world_shots --kind questions --split train --count 200
[ -s "runs/$RUN-sft-data/manifest.json" ] ||
    $B/tokenize --config configs/demo-sft.yaml tokenize.inputs="[$text/instructions.jsonl]" \
        tokenize.val_inputs="[$text/val.jsonl]" tokenize.tokenizer="$base" \
        tokenize.out="runs/$RUN-sft-data"
$B/tokenize head "runs/$RUN-sft-data" --docs 3
wait $questions

say "2. Does any training text hold what the test asks for?"
$B/judge leaks "$text/world_questions.jsonl" --seed 1 "runs/$RUN-text/train.jsonl" \
    "$text/instructions.jsonl" "$text/world_preferences.jsonl" "$text/world_shots.jsonl"

say "3. SFT: the loss is on what the assistant says"
$B/sft --config configs/demo-sft.yaml name="$RUN-sft" post.model="$base" \
    data.shards="runs/$RUN-sft-data" --resume=auto --if-done=skip

say "4. Answers to held-out questions, by skill: base model (few-shot, lenient checker) and SFT"
ask base "$base" chat_base & one=$!
ask sft "$sft" chat_world & two=$!
both $one $two
$B/judge table "$text/world_questions.jsonl" --train "$text/instructions.jsonl" \
    base="$(result base)" sft="$(result sft)" --of sft --least 60 --above 20

say "5. Preferences: the SFT model's own answers at temperature 1, judged"
ask sample1 "$sft" chat_ask eval.seed=1 & one=$!
ask sample2 "$sft" chat_ask eval.seed=2 & two=$!
both $one $two
[ -s "$text/dpo.jsonl" ] ||
    $B/judge pairs "$text/world_preferences.jsonl" "$(result sample1)" "$(result sample2)" \
        --out "$text/dpo.jsonl"
[ -s "runs/$RUN-dpo-data/manifest.json" ] ||
    $B/tokenize --config configs/demo-dpo.yaml tokenize.inputs="[$text/dpo.jsonl]" \
        tokenize.tokenizer="$base" tokenize.out="runs/$RUN-dpo-data"

say "6. DPO: the better of two answers becomes likelier than the reference has it"
$B/dpo --config configs/demo-dpo.yaml name="$RUN-dpo" post.model="$sft" \
    data.shards="runs/$RUN-dpo-data" --resume=auto --if-done=skip

say "7. SFT and DPO on the held-out questions: sampled at temperature 1, and the likeliest answers"
ask sft-t1 "$sft" chat_world eval.temperature=1 & one=$!
ask dpo-t1 "$dpo" chat_world eval.temperature=1 & two=$!
both $one $two
ask dpo "$dpo" chat_world
$B/judge wins "$text/world_questions.jsonl" "$(result dpo-t1)" "$(result sft-t1)" --least 60 \
    --drop 2 --length 20
$B/judge table "$text/world_questions.jsonl" --train "$text/instructions.jsonl" \
    sft="$(result sft)" dpo="$(result dpo)" sft-t1="$(result sft-t1)" dpo-t1="$(result dpo-t1)"

end=$(date +%s)
say "done in $((end - start)) s ($((chat - start)) s of them the demo); talk to it:"
echo "  $B/generate --model $dpo --chat"
