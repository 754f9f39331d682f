#!/bin/sh
# panel.sh -- diagnostics of post-training: what they say of planted failures, that they leave
# the training alone, and that an interruption changes nothing.
. tests/cli/lib.sh
model sched.tokens=100k
i=0
while [ $i -lt 160 ]; do
    i=$((i + 1))
    k=$((i * 7919 % 1000))
    # Answers of their own, and for the second set one answer to everything.
    echo "{\"messages\":[{\"role\":\"user\",\"content\":\"Say $k.\"},{\"role\":\"assistant\",\"content\":\"<think>$k</think>It is $k.\"}]}" >&3
    echo "{\"messages\":[{\"role\":\"user\",\"content\":\"Say $k.\"},{\"role\":\"assistant\",\"content\":\"<think>0</think>I do not know.\"}]}" >&4
    echo "{\"prompt\":\"Say $k.\",\"chosen\":\"It is $k. It is $k. It is $k.\",\"rejected\":\"It is $k.\"}" >&5
    echo "{\"id\":\"$i\",\"q\":\"Say $k.\",\"a\":\"is\"}" >&6
done 3>"$tmp/own.jsonl" 4>"$tmp/one.jsonl" 5>"$tmp/pairs.jsonl" 6>"$tmp/task.jsonl"
set_of() { # NAME TRAIN: the first 40 of VAL are held out
    tail -120 "$tmp/$2.jsonl" >"$tmp/train.jsonl"
    head -40 "$tmp/$3.jsonl" >"$tmp/val.jsonl"
    "$BIN/tokenize" --quiet tokenize.out="$tmp/$1" "tokenize.inputs=$tmp/train.jsonl" \
        "tokenize.val_inputs=$tmp/val.jsonl" "tokenize.tokenizer=$M" >/dev/null
}
set_of own own own
set_of one one own
set_of pairs pairs pairs
# The checker's own eyes: does the answer begin with "It is"?
printf 'task:\n  kind: generate\n  chat: true\n  temperature: 1\n  data: [task.jsonl]\n  prompt: "{q}"\n  answer: "{a}"\n  filter: "It (is)"\n  max_new_tokens: 30\n' >"$tmp/say.yaml"
train() { # TOOL MODEL NAME DATA STEPS ARG...: 1024 tokens a step
    "$BIN/$1" --threads "${threads:-1}" --quiet --runs "$tmp/runs" post.model="$tmp/runs/$2" data.shards="$tmp/$4" \
        name="$3" data.seq_len=64 data.batch_tokens=1024 sched.tokens=$(($5 * 1024)) val.every=10 val.samples=0 \
        ckpt.every=10 "panel.prompts=${prompts:-24}" $6
}
sft() { train sft tiny "$1" "$2" "$3" "optim.lr=${rate:-1e-2} $4"; }
row() { grep '"panel/' "$tmp/runs/$1/metrics.jsonl" | sed -n "${3:-\$}p" | sed "s/.*\"panel\/$2\":\([^,}]*\).*/\1/"; }
alarms() { grep '"t":"panel"' "$tmp/runs/$1/events.jsonl" | sed 's/.*"step":\([0-9]*\),.*"text":"\([a-z_0-9]*\):.*/\1 \2/'; }
less() { awk "BEGIN { exit !($1 < $2) }"; }
model_of() { sha256sum <"$tmp/runs/$1/ckpt/latest/model.safetensors"; }

# ---- a model that learns
expect "it learns to speak" 0 "" \
    sft good own 60 "panel.task=$tmp/say.yaml panel.data=$tmp panel.items=20"
same "no alarm while it cannot, as the start model could not" "$(row good alarms 1)" 0
check "which is noted" grep -q "step 10: panel: format is past panel.min_format = 0.8, as it was before training" "$tmp/runs/good/train.log"
same "and none once it can" "$(row good alarms)$(alarms good)" 0
json "the answers are left to be read" "$tmp/runs/good/panel/step-00000060.jsonl"
same "24 prompts and 20 items" "$(wc -l <"$tmp/runs/good/panel/step-00000060.jsonl")" 44
check "with prompt, answer, reference" grep -q '"doc":0,"prompt":"<s><|user|>Say [0-9]*.<|end|><|assistant|>","answer":"<think>.*","reference":"<think>[0-9]*</think>It is [0-9]*.","tokens":[0-9]*,"ended":true' \
    "$tmp/runs/good/panel/step-00000060.jsonl"
check "the checker's score rises" less 0.7 "$(row good accuracy)"
same "the win rate is half of it and a half: the start model never says so" \
    "$(awk "BEGIN { printf \"%.4f\", ($(row good accuracy) + 1) / 2 }")" "$(printf %.4f "$(row good win_rate)")"
check "the model moves away from where it started" less "$(row good kl 1)" "$(row good kl)"
check "the entropy falls" less "$(row good entropy)" "$(row good entropy 1)"

# ---- planted failures
expect "one answer to everything: told" 0 \
    "the model no longer listens: [0-9]* % of the answers are the same.*answers to different prompts are made of the same words" \
    sft same one 60 ""
check "distinct-2 and distinct-3 see it" sh -c "$(printf 'grep -c "distinct_[23]_ref: answers to different" %s | grep -q 2' "$tmp/runs/same/events.jsonl")"
check "the held-out answers are what it is sure against" grep -q '"text":"nll: the model is surer than it is right' \
    "$tmp/runs/same/events.jsonl"
same "all answers are the same in the end" "$(row same duplicates)" 1
rate=0
expect "the start model's own faults: no end" 0 "" sft still own 10 "panel.stop=true"
same "no word" "$(grep -v 'experts collapse' "$tmp/.err")" ""
rate=
same "no alarm" "$(row still alarms)" 0
check "but a note" grep -q "format is past panel.min_format = 0.8, as it was before training .the start model's .*24 prompts" "$tmp/runs/still/train.log"
same "not trained, not away" "$(row still kl)" 0
prompts=8
expect "few prompts: no alarm, which is said" 0 "the panel has 8 prompts, alarms need 16: there will be numbers only, panel.stop is without effect" \
    sft few one 20 "panel.stop=true"
prompts=
same "numbers" "$(row few alarms)" 0
expect "panel.kl_tokens=0" 0 "" sft nokl own 10 "panel.kl_tokens=0"
same "no nan in the log" "$(grep -c nan "$tmp/runs/nokl/train.log")" 0
"$BIN/tokenize" --quiet tokenize.out="$tmp/noval" "tokenize.inputs=$tmp/own.jsonl" tokenize.val_frac=0 "tokenize.tokenizer=$M" >/dev/null 2>&1
expect "no validation split: said" 0 "no validation split.*: no panel, panel.task is not asked, panel.stop has no effect" \
    sft noval noval 5 "panel.stop=true panel.task=$tmp/say.yaml"
expect "stop: the sentence, exit 3" 3 "step 30: the model no longer listens.*.panel.stop" \
    sft stop one 60 "panel.stop=true panel.after=30 panel.min_distinct_1=0 panel.min_distinct_2=0 panel.min_distinct_3=0"
check "the state is saved" test -e "$tmp/runs/stop/ckpt/step-00000030/model.safetensors"
same "nothing is told before panel.after" "$(alarms stop | awk '$1 < 30')" ""
tries() { sed -n 's/.*"exit":\([0-9]*\).*/\1/p' "$tmp/runs/$1/status.json"; }
vals() { grep -c '"val/loss"' "$tmp/runs/$1/metrics.jsonl"; }
same "status says so" "$(tries stop)" 3
check "and the summary" grep -q '"complete":false.*"alarm":"step 30: the model no longer listens.*"step":30' "$tmp/runs/stop/summary.json"
expect "started again, it is asked again: the same end" 3 "step 30: the model no longer listens.*.panel.stop" \
    sft stop one 60 "panel.stop=true panel.after=30 panel.min_distinct_1=0 panel.min_distinct_2=0 panel.min_distinct_3=0"
absent "nothing is trained" "$tmp/runs/stop/panel/step-00000040.jsonl"
same "one row a validation" "$(vals stop)" 3
for i in 1 2 3; do
    expect "an alarm at the last validation, try $i" 3 "step 20: .*panel.stop" sft last one 20 "panel.stop=true panel.after=20"
    same "status, try $i" "$(tries last)" 3
done
check "complete is something else" grep -q '"complete":false' "$tmp/runs/last/summary.json"
expect "on purpose" 0 "" sft last one 20 "panel.stop=false"
check "then it is complete" grep -q '"complete":true' "$tmp/runs/last/summary.json"
expect "a stopped run can go on with other thresholds" 0 "" \
    sft stop one 60 "panel.stop=false panel.min_distinct_1=0 panel.min_distinct_2=0 panel.min_distinct_3=0"
expect "longer is better: told" 0 "times as long as the (references|start model's)|length bias|likelihood displacement" \
    train dpo good long pairs 60 "optim.lr=3e-3 dpo.beta=0.05 panel.task=$tmp/say.yaml panel.data=$tmp panel.items=20"
check "answers grew" less 1.2 "$(row long length_start)"
check "longer than the start model's" less 0.6 "$(row long longer)"
check "dpo has a win rate" grep -q '"panel/win_rate":' "$tmp/runs/long/metrics.jsonl"
check "beside its own numbers" grep -q '"val/rewards/margins":.*"panel/kl":' "$tmp/runs/long/metrics.jsonl"

# ---- it leaves the training alone
prompts=0
sft none own 60 "" 2>/dev/null
prompts=
same "the same bits without a panel" "$(model_of none)" "$(model_of good)"
absent "of which then nothing is there" "$tmp/runs/none/panel"
threads=3
sft three own 60 "panel.task=$tmp/say.yaml panel.data=$tmp panel.items=20" 2>/dev/null
threads=1
panel_of() { (cd "$tmp/runs/$1/panel" && cat step-*0.jsonl start.safetensors | sha256sum); }
rows_of() { grep '"panel/' "$tmp/runs/$1/metrics.jsonl" | grep -o '"step":[0-9]*,\|"panel/[a-z_0-9]*":[^,}]*' | grep -v seconds | sha256sum; }
same "threads do not matter" "$(panel_of three) $(rows_of three)" "$(panel_of good) $(rows_of good)"
sft cut own 60 "panel.task=$tmp/say.yaml panel.data=$tmp panel.items=20" 2>/dev/null &
for _ in $(seq 600); do [ -e "$tmp/runs/cut/panel/step-00000020.jsonl" ] && break; sleep 0.01; done
kill -TERM "$(cat "$tmp/runs/cut/lock" 2>/dev/null | tr -dc 0-9)" 2>/dev/null || kill -TERM $!
wait $!
check "cut off in the middle" sh -c "! [ -e '$tmp/runs/cut/panel/step-00000060.jsonl' ]"
cp "$tmp/runs/cut/panel/start.safetensors" "$tmp/start"
flip "$tmp/runs/cut/panel/start.safetensors" 3000
expect "damage is seen" 0 "start.safetensors: it is damaged; the start model is measured again" \
    sft cut own 60 "panel.task=$tmp/say.yaml panel.data=$tmp panel.items=20"
check "and repaired" cmp "$tmp/start" "$tmp/runs/cut/panel/start.safetensors"
same "it goes on to the same bits, answers and numbers" "$(model_of cut) $(panel_of cut) $(rows_of cut)" \
    "$(model_of good) $(panel_of good) $(rows_of good)"
# A signal during a panel: its validation is done again, panel, alarms and all.
rate=1e-9 long="log.every=1 panel.max_tokens=700 panel.stop=true panel.max_kl=1e-12"
sft whole own 20 "$long" 2>/dev/null
for try in 1 2 3; do
    rm -rf "$tmp/runs/torn"
    sft torn own 20 "$long" 2>/dev/null &
    pid=$!
    for _ in $(seq 2000); do grep -qs '"step":10,.*"train/loss"' "$tmp/runs/torn/metrics.jsonl" && break; sleep 0.01; done
    sleep 0.1 # behind the validation's loss, before the panel's end
    kill -TERM "$(tr -dc 0-9 <"$tmp/runs/torn/lock")"
    wait $pid
    grep -q '"val/loss"' "$tmp/runs/torn/metrics.jsonl" || break
done
same "a signal during a panel: no row without its numbers" "$(grep -c '"val/loss"' "$tmp/runs/torn/metrics.jsonl")" 0
check "interrupted, saved" test -e "$tmp/runs/torn/ckpt/step-00000010"
expect "asked again: its alarm ends the run" 3 "step 10: .*panel.stop" sft torn own 20 "$long"
same "with the numbers and answers of an uninterrupted one" "$(panel_of torn) $(rows_of torn)" "$(panel_of whole) $(rows_of whole)"
rate=
expect "adapters have a panel too" 0 "" sft lora own 20 "lora.rank=4"
check "and move the model" less 0.001 "$(row lora kl)"
rate=1e-9
sft lora0 own 20 "lora.rank=4 lora.base=bf16" 2>/dev/null
check "from the base as they hold it" less "$(row lora0 kl)" 1e-6
sft lora1 own 20 "lora.rank=4 lora.base=bf16 panel.stop=true panel.max_kl=1e-15" 2>/dev/null
rm "$tmp/runs/lora1/panel/start.safetensors"
expect "measured again after an interruption" 0 "" sft lora1 own 20 "lora.rank=4 lora.base=bf16 panel.max_kl=1e-15"
check "the same" cmp "$tmp/runs/lora0/panel/start.safetensors" "$tmp/runs/lora1/panel/start.safetensors"
same "and what follows from it" "$(row lora1 kl) $(row lora1 length_start) $(row lora1 longer)" "$(row lora0 kl) $(row lora0 length_start) $(row lora0 longer)"
rate=
# Answers that cannot be kept do not end the training.
sft lost own 60 "" >/dev/null 2>"$tmp/lost.err" &
pid=$!
for _ in $(seq 2000); do [ -e "$tmp/runs/lost/panel/step-00000010.jsonl" ] && break; sleep 0.01; done
rm -rf "$tmp/runs/lost/panel"; : >"$tmp/runs/lost/panel"
wait $pid
same "the folder of the answers is gone: trained on" "$?" 0
check "with a warning" grep -q "panel.*answers of step 60 are not kept" "$tmp/lost.err"
same "to the same bits" "$(model_of lost)" "$(model_of good)"
# What was told is not told again by the next process.
sft twice one 60 "" 2>/dev/null &
for _ in $(seq 2000); do [ -e "$tmp/runs/twice/panel/step-00000040.jsonl" ] && break; sleep 0.01; done
kill -TERM "$(tr -dc 0-9 <"$tmp/runs/twice/lock")"
wait $!
sft twice one 60 "" 2>/dev/null
check "alarms were told" test -n "$(alarms twice)"
same "each once, whatever was interrupted" "$(alarms twice)" "$(alarms same)"

# ---- refusals
sed 's/kind: generate/kind: cloze/; /answer\|filter\|max_new\|temper/d; s/{q}"/{q}"\n  target: "{a}"/' "$tmp/say.yaml" >"$tmp/cloze.yaml"
expect "a task that says nothing" 2 "panel.task: .*cloze.yaml is of kind cloze, wanted generate" sft bad own 5 "panel.task=$tmp/cloze.yaml panel.data=$tmp"
expect "no such task" 2 "none.yaml" sft bad own 5 "panel.task=$tmp/none.yaml"
sed -i 's/task.jsonl/gone.jsonl/' "$tmp/say.yaml"
expect "its data are missing" 2 "gone.jsonl: task say wants this file; .*panel.data" sft bad own 5 "panel.task=$tmp/say.yaml panel.data=$tmp"
expect "answers shorter than the references" 2 "panel.max_tokens: 3 is too short for 100 % of the references" sft bad own 5 panel.max_tokens=3
expect "a drift that always alarms" 2 "panel.max_drift: 0.5 would always alarm" sft bad own 5 panel.max_drift=0.5
expect "a length that always alarms" 2 "panel.min_length: 0.9 is above panel.max_length = 0.5" sft bad own 5 "panel.min_length=0.9 panel.max_length=0.5"
absent "nothing was written" "$tmp/runs/bad"
finish
