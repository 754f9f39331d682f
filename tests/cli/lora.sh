#!/bin/sh
# lora.sh -- adapters through the programs: trained on a frozen base, loaded, merged, exported,
# and refused where base or targets are not what they should be.
. tests/cli/lib.sh
model
"$BIN/world" --kind instructions --seed 3 --split train --count 120 >"$tmp/train.jsonl"
"$BIN/tokenize" --quiet tokenize.tokenizer="$tmp/data/tokenizer.model" tokenize.inputs="$tmp/train.jsonl" \
    tokenize.val_frac=0.1 tokenize.max_tokens=256 tokenize.out="$tmp/chat" >/dev/null 2>&1
cat >"$tmp/lora.yaml" <<END
name: lora
threads: 1
post: {model: $M}
lora: {rank: 4, alpha: 8}
data: {shards: $tmp/chat, seq_len: 256, batch_tokens: 1024}
optim: {lr: 1e-2}
sched: {tokens: 4096}
val: {every: 4, samples: 0}
panel: {prompts: 0}
ckpt: {every: 4}
END
S="$BIN/sft --config $tmp/lora.yaml --runs $tmp/runs --quiet"
Q="$BIN/quantize"
run_dir=$tmp/runs/lora ckpt=$tmp/runs/lora/ckpt/latest
before=$(sha256sum <"$M/model.safetensors")
number() { grep -o "\"$1\":[0-9]*" "$tmp/.out" | cut -d: -f2; }

# ---- the plan: adapters of the tiny hybrid (model in lib.sh), layer 0 Mamba-2, 1 attention
expect_out "--dry-run tells what is trained" "trained +[0-9]+ .*in adapters, the rest is frozen" $S --dry-run
run $S --dry-run --json
trained=$(number params_trained) grads=$(number grads_bytes) moments=$(number optimizer_bytes)
saved=$(number checkpoint_bytes) weights=$(number weights_bytes) base=$(($(number params) - trained))
check "gradients: an adapter's numbers, each tensor on 64-byte lines" \
    [ "$grads" -ge $((trained * 4)) -a "$grads" -lt $((trained * 4 + 24 * 64)) ]
same "moments: twice as many" "$moments" "$((grads * 2))"
same "a checkpoint: weights and moments of adapters" "$saved" "$((trained * 12))"
check "weights: the base's and the adapters'" [ "$weights" -ge $(((base + trained) * 4)) ]
run $S --dry-run --json lora.base=bf16
check "lora.base=bf16: about half of that" [ $(($(number weights_bytes) * 10)) -lt $((weights * 7)) ]
run $S --dry-run --json "lora.targets=[q_proj, v_proj]"
same "two targets of 32 x 32 at rank 4" "$(number params_trained)" "$((2 * 4 * (32 + 32)))"
absent "--dry-run writes nothing" "$run_dir"

# ---- a run, and what it leaves
expect "a whole run" 0 "" $S
check "a checkpoint is an adapter as PEFT has it" [ -s "$ckpt/adapter_model.safetensors" ]
json "its description" "$ckpt/adapter_config.json"
check "with the absolute path of the base" grep -q "\"base_model_name_or_path\": \"$(realpath "$M")\"" "$ckpt/adapter_config.json"
check "layers by their names" grep -q '"target_modules": \["mamba.in_proj", "mamba.out_proj",' "$ckpt/adapter_config.json"
check "experts by their parameters" grep -q '"target_parameters": \["block_sparse_moe.experts.gate_up_proj", "block_sparse_moe.experts.down_proj"\]' "$ckpt/adapter_config.json"
absent "no weights of the base, no description that promises them" "$ckpt/model.safetensors" "$ckpt/config.json"
check "sums fit" sh -c "cd '$ckpt' && sha256sum -c --quiet SHA256SUMS"
same "the base is what it was" "$(sha256sum <"$M/model.safetensors")" "$before"
expect_out "--verify-resume, with dropout" "resume verified" $S name=vr --verify-resume=2 lora.dropout=0.1 \
    "lora.targets=[attention, mamba]"
expect "on a base of bf16" 0 "" $S name=narrow lora.base=bf16
expect "with two threads" 0 "" $S name=two --threads 2
same "the same adapter" "$(sha256sum <"$tmp/runs/two/ckpt/latest/adapter_model.safetensors")" \
    "$(sha256sum <"$ckpt/adapter_model.safetensors")"
same "memory is what was planned" "$(awk '{ split($0, f, /[,{}]/)
    for (i in f) { split(f[i], kv, ":"); v[kv[1]] = kv[2] } }
    END { print v["\"memory/perm_bytes\""] + v["\"memory/step_bytes\""] + v["\"memory/meta_bytes\""] - v["\"memory/planned_bytes\""] }' \
    "$run_dir/summary.json")" 0

# ---- used as any model
expect_out "generate" "" "$BIN/generate" --quiet --model "$run_dir" --prompt "One day" generate.max_tokens=4
expect_out "quantize merges" "largest logit difference 0.0e\+00" $Q --model "$run_dir" --out "$tmp/merged.gguf"
expect "into a checkpoint of its own" 0 "" $Q --model "$run_dir" --format checkpoint --out "$tmp/merged"
expect_out "from which one goes on" "resume verified" $S name=on post.model="$tmp/merged" --verify-resume=1
expect_out "or from the adapter itself" "resume verified" $S name=stack post.model="$run_dir" --verify-resume=1
expect "no learning" 0 "" $S name=still optim.lr=0
$Q --model "$tmp/runs/still" --out "$tmp/still.gguf" quantize.name=x >/dev/null
$Q --model "$M" --out "$tmp/base.gguf" quantize.name=x >/dev/null
check "is the base, to the bit" cmp "$tmp/still.gguf" "$tmp/base.gguf"
expect "a GGUF file as base" 0 "" $S name=imported post.model="$tmp/base.gguf"
expect_out "whose adapter finds it again" "largest logit difference 0.0e\+00" $Q --model "$tmp/runs/imported" --out "$tmp/again.gguf"
before_base=$(sha256sum <"$tmp/base.gguf")
expect "but not over that base" 2 "base.gguf.*adapter's base" $Q --model "$tmp/runs/imported" --out "$tmp/base.gguf"
same "which stays" "$(sha256sum <"$tmp/base.gguf")" "$before_base"
$Q --quiet --model "$M" --format hf --out "$tmp/hf"
$S name=onhf post.model="$tmp/hf" >/dev/null 2>&1
expect "nor over a folder of that kind" 2 "adapter's base" $Q --model "$tmp/runs/onhf" --format hf --out "$tmp/hf" --dry-run
check "and learning is not" sh -c "! cmp -s '$tmp/merged.gguf' '$tmp/base.gguf'"

# ---- the adapter alone
expect_out "quantize --adapter" "adapter of rank 4, F32" $Q --model "$run_dir" --adapter --out "$tmp/lora.gguf"
expect "which is no model" 4 "lora.gguf: is an adapter alone, no model" "$BIN/generate" --quiet --model "$tmp/lora.gguf" --prompt x
expect_out "--json" '"rank":4,"tensor_bytes":[0-9]+' $Q --json --model "$run_dir" --adapter --out "$tmp/lora.gguf"
for key in general.architecture general.type adapter.type adapter.lora.alpha; do
    check "key $key" grep -qa "$key" "$tmp/lora.gguf"
done
tensors() { grep -oa 'blk\.[0-9]\.[a-z_]*\.weight\.lora_[ab]' "$1" | sort | tr '\n' ' '; }
pairs=
for t in 0.ffn_down_exps 0.ffn_gate_exps 0.ffn_up_exps 0.ssm_in 0.ssm_out 1.attn_k 1.attn_output 1.attn_q \
    1.attn_v 1.ffn_down_exps 1.ffn_gate_exps 1.ffn_up_exps; do
    pairs="${pairs}blk.$t.weight.lora_a blk.$t.weight.lora_b "
done
same "a pair for every tensor" "$(tensors "$tmp/lora.gguf")" "$pairs"
expect_out "in halves" "F16" $Q --model "$run_dir" --adapter --type f16 --out "$tmp/half.gguf"
check "half as large" [ $(($(wc -c <"$tmp/half.gguf") * 10)) -lt $(($(wc -c <"$tmp/lora.gguf") * 7)) ]
# Rows of 32 are whole blocks of these types, rows of the rank are not.
for t in bf16 q8_0 q4_0 q4_1 q5_0 q5_1 q2_k q3_k_m q4_k_s q4_k_m q5_k_m q6_k iq4_nl iq4_xs; do
    for dry in --dry-run ""; do
        expect "in $t $dry" 0 "" $Q --model "$run_dir" --adapter --type $t --out "$tmp/lora-$t.gguf" $dry
    done
    same "$t: the same pairs" "$(tensors "$tmp/lora-$t.gguf")" "$pairs"
    check "$t: smaller" [ "$(wc -c <"$tmp/lora-$t.gguf")" -lt "$(wc -c <"$tmp/lora.gguf")" ]
done
absent "nothing half-written" "$tmp"/lora-*.tmp
$Q --json --dry-run --model "$run_dir" --adapter --type q4_k_m --out "$tmp/x.gguf" >"$tmp/j" 2>/dev/null
check "a row that is no block is F16" grep -q '"blk.0.ssm_in.weight.lora_b","shape":\[[0-9]*,4\],"type":"F16"' "$tmp/j"
check "one of 32 the type for that" grep -q '"blk.0.ssm_in.weight.lora_a","shape":\[4,32\],"type":"Q5_0"' "$tmp/j"
expect "of a model without one" 2 "no adapter there; --adapter wants a run trained with lora.rank" \
    $Q --model "$M" --adapter --out "$tmp/none.gguf"
expect "for other formats" 2 "adapter writes a GGUF file" $Q --model "$run_dir" --adapter --out "$tmp/none"
absent "nothing written" "$tmp/none.gguf" "$tmp/none"

# ---- a rank that no matrix can have
same "a rank of the smaller side: nothing to say" "$($S --dry-run name=rank lora.rank=32 2>&1 >/dev/null | grep -c lora.rank)" 0
expect "one above it" 0 "warning: lora.rank: 33 is above the smaller side of ([0-9]+) of the \\1 matrices with adapters \(.* is [0-9]+ x 32\)" \
    $S --dry-run name=rank lora.rank=33
same "in one sentence" "$(grep -c 'lora.rank' "$tmp/.err")" 1
expect "those that are not targeted do not count" 0 "is above the smaller side of 4 of the 4 matrices.*self_attn" \
    $S --dry-run name=rank lora.rank=33 "lora.targets=[attention]"

# ---- refusals
refuse() { name=$1 code=$2 regex=$3; shift 3; expect "$name" "$code" "$regex" $S name=refused "$@"
           absent "$name: nothing written" "$tmp/runs/refused"; }
refuse "targets that match nothing" 2 "lora.yaml|lora.targets: 'qproj' matches no linear layer of this model; it has mamba.in_proj, .*self_attn.q_proj" \
    "lora.targets=[qproj]"
refuse "no targets at all" 2 "lora.targets" "lora.targets=[]"
refuse "dropout in experts" 2 "lora.dropout: 0.1, but lora.targets takes in experts" lora.dropout=0.1
refuse "a rank below zero" 2 "lora.rank" lora.rank=-1
"$BIN/pretrain" --config "$tmp/tiny.yaml" --runs "$tmp/runs" --quiet name=other seed=9 data.shards="$tmp/data" \
    sched.tokens=2048 >"$tmp/.out" 2>&1 || true
other=$(realpath "$tmp/runs/other/ckpt/latest" 2>/dev/null)
cp -r "$ckpt/." "$tmp/bent" && rm "$tmp/bent/SHA256SUMS"
sed -i "s,\"base_model_name_or_path\": \"[^\"]*\",\"base_model_name_or_path\": \"$other\"," "$tmp/bent/adapter_config.json"
expect "an adapter for another base" 4 "an adapter for another base: it was trained on weights with SHA-256" \
    "$BIN/generate" --quiet --model "$tmp/bent" --prompt x
cp -r "$ckpt/." "$tmp/flipped"
flip "$tmp/flipped/adapter_model.safetensors" 2000
expect "a damaged adapter" 4 "damaged" "$BIN/generate" --quiet --model "$tmp/flipped" --prompt x
sed -i 's,"r": 4,"r": 5,' "$tmp/bent/adapter_config.json"
sed -i "s,\"base_model_name_or_path\": \"[^\"]*\",\"base_model_name_or_path\": \"$(realpath "$M")\"," "$tmp/bent/adapter_config.json"
expect "another rank than it says" 4 "has no place in the base model at rank 5" "$BIN/generate" --quiet --model "$tmp/bent" --prompt x
sed -i 's,"r": 5,"r": 4,; s,"bias": "none","bias": "all",' "$tmp/bent/adapter_config.json"
expect "what is no plain LoRA" 4 "bias: \"none\" was wanted" "$BIN/generate" --quiet --model "$tmp/bent" --prompt x
mv "$tmp/bent" "$tmp/lost" && sed -i "s,\"bias\": \"all\",\"bias\": \"none\",; s,\"base_model_name_or_path\": \"[^\"]*\",\"base_model_name_or_path\": \"/nowhere\"," "$tmp/lost/adapter_config.json"
expect "a base that is gone" 4 "the base model of this adapter is not there: base_model_name_or_path is '/nowhere'" \
    "$BIN/generate" --quiet --model "$tmp/lost" --prompt x
finish
