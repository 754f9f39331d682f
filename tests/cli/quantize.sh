#!/bin/sh
# quantize.sh -- conversions: round trips, refusals, damaged sources, full disks.
. tests/cli/lib.sh
model
Q="$BIN/quantize --threads 1"
G="$BIN/generate --threads 1 --quiet"
greedy() { $G --model "$1" --prompt "One day" generate.temperature=0 generate.max_tokens=40; }
text=$(greedy "$M")

for t in f32 f16 bf16 q8_0; do
    expect_out "$t GGUF, parity checked" "parity: tensors within" $Q --model "$M" --type $t --out "$tmp/$t.gguf"
    expect_out "$t GGUF: generate reads it" "." $G --model "$tmp/$t.gguf" --prompt "One day" generate.max_tokens=5
done
same "f32 GGUF: the same greedy text" "$(greedy "$tmp/f32.gguf")" "$text"
for t in q4_0 q4_1 q5_0 q5_1 q2_k q3_k_m q4_k_s q4_k_m q5_k_m q6_k iq4_nl iq4_xs; do
    expect_out "$t GGUF, parity checked" "parity: tensors within" $Q --model "$M" --type $t --out "$tmp/$t.gguf" quantize.max_kl=5
done
"$BIN/quantize" --threads 2 --quiet --model "$M" --type q4_k_m --out "$tmp/one.gguf" quantize.max_kl=5 \
    quantize.name=q4_k_m.gguf >/dev/null
same "the same bytes on two threads" "$(sha256sum <"$tmp/one.gguf")" "$(sha256sum <"$tmp/q4_k_m.gguf")"
expect_out "--dry-run names the fallback" "Q[58]_0 .*\(Q[46]_K: rows of [0-9]* are not whole blocks" \
    $Q --model "$M" --type q4_k_m --out "$tmp/dry.gguf" --dry-run
expect_out "an exception by name" "token_embd.weight +BF16 " $Q --model "$M" --type q8_0 --out "$tmp/dry.gguf" --dry-run \
    "quantize.tensors=[token_embd.weight=bf16]"
expect_out "a pattern that an earlier one leaves nothing: said, and the first counts" "blk.0.ssm_in.weight +Q4_0 " $Q --model "$M" \
    --type q8_0 --out "$tmp/dry.gguf" --dry-run "quantize.tensors=['blk.*=q4_0', 'blk.0.ssm_in.weight=f16']"
expect "in a sentence" 0 "warning: quantize.tensors: 'blk.0.ssm_in.weight=f16' changes nothing: earlier patterns" $Q --model "$M" \
    --out "$tmp/dry.gguf" --dry-run "quantize.tensors=['blk.*=q4_0', 'blk.0.ssm_in.weight=f16']"
expect "a type there is not, by exception" 2 "'q8' is no type of a tensor \(did you mean Q8_0\?\); there are F32, F16" $Q --model "$M" \
    --out "$tmp/x.gguf" "quantize.tensors=[blk.0.*=q8]"
expect "an exception that a folder cannot hold" 2 "safetensors cannot hold Q8_0" $Q --model "$M" --format hf --type f16 \
    --out "$tmp/x" "quantize.tensors=[model.embed*=q8_0]"
expect "an exception for nothing" 2 "no tensor has such a name" $Q --model "$M" --type q8_0 --out "$tmp/x.gguf" \
    "quantize.tensors=[nothing=bf16]"
expect "block types in a folder" 2 "safetensors cannot hold Q4_K_M" $Q --model "$M" --format hf --type q4_k_m --out "$tmp/x"
# Deep and untrained, with decays of all sizes and chunks that GGUF's own keys do not tell.
"$BIN/pretrain" --config "$tmp/tiny.yaml" --runs "$tmp/runs" --quiet name=deep model.pattern=MMMMMAMM \
    model.ffn=D model.n_layers=48 model.d_model=64 model.ssm_head_dim=16 model.d_ff=128 model.rope=plain \
    optim.lr=1e-9 sched.tokens=512 ckpt.every=0 val.every=0
# ---- importance matrices and the card
sed -n 's/.*"text": *"\([^"]*\)".*/\1/p' "$tmp/corpus.jsonl" | head -n 40 >"$tmp/calib.txt"
I="quantize.context=32 quantize.chunks=8"
for e in gguf dat; do
    check "importances collected ($e)" $Q --model "$M" --calibration "$tmp/calib.txt" quantize.imatrix_out="$tmp/im.$e" $I
    expect_out "and rounded by ($e)" "parity: tensors within" $Q --model "$M" --type q4_k_s --imatrix "$tmp/im.$e" \
        --out "$tmp/im-$e.gguf" quantize.max_kl=5
done
expect_out "told" "$tmp/im.gguf: importances of 14 tensors, from 8 chunks of 32 tokens" $Q --model "$M" --calibration "$tmp/calib.txt" \
    quantize.imatrix_out="$tmp/im.gguf" $I
same "as JSON" "$($Q --json --model "$M" --calibration "$tmp/calib.txt" quantize.imatrix_out="$tmp/im.gguf" $I)" \
    "{\"imatrix\":\"$tmp/im.gguf\",\"tensors\":14,\"chunks\":8,\"tokens\":256}"
few="quantize.context=16 quantize.chunks=1 quantize.imatrix_out=$tmp/few.gguf quantize.max_kl=5"
without="warning: importances: 12 of 12 tensors have none, 0 none for some experts .zeros, or too few tokens; first blk.0.ssm_in.weight.: rounded as without"
expect "importances of too few tokens say nothing, which is said" 0 "$without" $Q --model "$M" --type q4_0 \
    --calibration "$tmp/calib.txt" $few --out "$tmp/few-x.gguf"
for dry in "" --dry-run; do
    expect "from a file too $dry" 0 "$without" $Q --model "$M" --type q4_0 --imatrix "$tmp/few.gguf" --out "$tmp/few-x.gguf" \
        quantize.max_kl=5 $dry
done
expect "and of those that some experts lack" 0 "importances: [0-9] of 12 tensors have none, [1-9] none for some experts" $Q --model "$M" \
    --type q4_0 --calibration "$tmp/calib.txt" quantize.context=64 quantize.chunks=1 --out "$tmp/few-x.gguf" quantize.max_kl=5
expect_out "a card" "card: KL" $Q --model "$M" --type q4_k_s --imatrix "$tmp/im.gguf" --card "$tmp/calib.txt" \
    --out "$tmp/im-gguf.gguf" quantize.max_kl=5 $I
json "the card is JSON" "$tmp/im-gguf.gguf.card.json"
check "and Markdown" grep -q "| importances | calib.txt |" "$tmp/im-gguf.gguf.card.md"
check "computed with the file's blocks" grep -q '"computed_with": *"blocks"' "$tmp/im-gguf.gguf.card.json"
cp "$tmp/im-gguf.gguf.card.json" "$tmp/blocks.json"
flat() { tr -d ' \n'; }
same "--json ends with the same card" "$($Q --json --model "$M" --type q4_k_s --imatrix "$tmp/im.gguf" --card "$tmp/calib.txt" \
    --out "$tmp/im-gguf.gguf" quantize.max_kl=5 $I | flat | sed 's/.*"card"://; s/}$//')" "$(flat <"$tmp/blocks.json")"
expect_out "or with floats" "card: KL" $Q --model "$M" --type q4_k_s --imatrix "$tmp/im.gguf" --card "$tmp/calib.txt" \
    --out "$tmp/im-gguf.gguf" quantize.max_kl=5 quantize.weights=float $I
check "and it says so" grep -q '"computed_with": *"float"' "$tmp/im-gguf.gguf.card.json"
kl_of() { tr -d ' \n' <"$1" | sed 's/.*"kl":{"value":\([^,]*\),.*/\1/'; }
check "rounding activations changes the divergence, a little" awk -v a="$(kl_of "$tmp/blocks.json")" \
    -v b="$(kl_of "$tmp/im-gguf.gguf.card.json")" 'BEGIN { exit !(a > 0 && b > 0 && a != b && a < 1.2 * b && a > b / 1.2) }'
expect_out "several types, one table" "Q4_0 \| 0\.[0-9]+ \|.*IQ4_NL \| 0\..*importances: calib.txt" env BIN="$BIN" TYPES="q4_0 iq4_nl" \
    KEEP=no sh bench/types.sh "$M" "$tmp/calib.txt" "$tmp/types" "$tmp/calib.txt" -- $I
json "as JSON" "$tmp/types/types.json"
same "a card a type, no file where none is to be kept" "$(ls "$tmp/types" | tr '\n' ' ')" \
    "imatrix.gguf iq4_nl.gguf.card.json iq4_nl.gguf.card.md q4_0.gguf.card.json q4_0.gguf.card.md types.json types.md "
rm "$tmp/types/types.md"
expect "a text there is not" 2 "no.txt: no such file" sh bench/types.sh "$M" "$tmp/no.txt" "$tmp/types"
expect "a type there is not" "[12]" "wanted one of" env BIN="$BIN" TYPES=q9 sh bench/types.sh "$M" "$tmp/calib.txt" "$tmp/types" -- $I
absent "and no table then" "$tmp/types/types.md"
check "a folder's card" $Q --quiet --model "$M" --type bf16 --format hf --card "$tmp/calib.txt" --out "$tmp/carded/" $I
same "tells the size of its weights" "$(flat <"$tmp/carded.card.json" | sed 's/.*"file_bytes":\([0-9]*\),.*/\1/')" \
    "$(wc -c <"$tmp/carded/model.safetensors")"
check "by the folder's name" grep -q "^# carded$" "$tmp/carded.card.md"
# A card goes with the file it describes; a file of the user's of that name does not.
cards() { ls "$tmp" | grep "^carded.gguf.card" | tr '\n' ' '; }
check "a card" $Q --quiet --model "$M" --type q8_0 --card "$tmp/calib.txt" --out "$tmp/carded.gguf" $I
both="carded.gguf.card.json carded.gguf.card.md "
same "is two files" "$(cards)" "$both"
check "--dry-run" $Q --model "$M" --type q2_k --out "$tmp/carded.gguf" --dry-run
same "keeps them" "$(cards)" "$both"
check "a file over theirs" $Q --quiet --model "$M" --type q8_0 --out "$tmp/carded.gguf"
same "takes them away" "$(cards)" ""
check "another card" $Q --quiet --model "$M" --type q8_0 --card "$tmp/calib.txt" --out "$tmp/carded.gguf" $I
expect "a file over theirs that is not as it should be" 3 "parity" $Q --quiet --model "$M" --type q2_k --out "$tmp/carded.gguf" \
    --card "$tmp/calib.txt" quantize.max_kl=1e-9 $I
same "takes them away, too" "$(cards)" ""
echo "# mine" >"$tmp/carded.gguf.card.md"; echo '{"type":"mine"}' >"$tmp/carded.gguf.card.json"
check "what is no card" $Q --quiet --model "$M" --type q8_0 --out "$tmp/carded.gguf"
same "stays" "$(cat "$tmp/carded.gguf.card.json" "$tmp/carded.gguf.card.md" | tr '\n' ' ')" '{"type":"mine"} # mine '
# A text by any other form is the same text.
gzip -c "$tmp/calib.txt" >"$tmp/calib.gz"
sed 's/\\/&&/g; s/.*/{"id":1,"text":"&"}/' "$tmp/calib.txt" >"$tmp/calib.jsonl"
gzip -c "$tmp/calib.jsonl" >"$tmp/calib.jsonl.gz"
numbers() { tr -d ' \n' <"$1" | sed 's/"text":"[^"]*"//; s/"importances":"[^"]*"//'; }
$Q --model "$M" --type q4_k_s --calibration "$tmp/calib.txt" --card "$tmp/calib.txt" --out "$tmp/forms.gguf" quantize.max_kl=5 \
    $I >/dev/null
zst=
if zstd -q -c "$tmp/calib.txt" >"$tmp/calib.zst" 2>/dev/null; then zst=zst; else skip "calibration and card, .zst" "no zstd"; fi
for e in gz $zst jsonl jsonl.gz; do
    check "calibration and card, .$e" $Q --model "$M" --type q4_k_s --calibration "$tmp/calib.$e" --card "$tmp/calib.$e" \
        --out "$tmp/form.gguf" quantize.max_kl=5 $I
    same ".$e: the same card" "$(numbers "$tmp/form.gguf.card.json")" "$(numbers "$tmp/forms.gguf.card.json")"
done
printf 'One day \377 a dog' >"$tmp/bad.txt"; printf '{"text":"fine"}\n{"text":1}\n' >"$tmp/bad.jsonl"
gzip -c "$tmp/calib.txt" | head -c 300 >"$tmp/bad.gz"
for o in --calibration --card; do
    expect "$o: bytes that are no text" 4 "bad.txt: invalid UTF-8 at byte 8" $Q --model "$M" --out "$tmp/x.gguf" $o "$tmp/bad.txt" $I
    expect "$o: lines without text" 4 "bad.jsonl:2: " $Q --model "$M" --out "$tmp/x.gguf" $o "$tmp/bad.jsonl" $I
    expect "$o: cut short" 4 "bad.gz" $Q --model "$M" --out "$tmp/x.gguf" $o "$tmp/bad.gz" $I
done
expect "importances of another model" 4 "of another model" $Q --model "$tmp/runs/deep/ckpt/latest" --type q4_k_s \
    --imatrix "$tmp/im.gguf" --out "$tmp/x.gguf"
expect "importances that are none" 4 "not an importance matrix" $Q --model "$M" --type q4_k_s \
    --imatrix "$tmp/q4_k_m.gguf" --out "$tmp/x.gguf"
head -c 300 "$tmp/im.dat" >"$tmp/cut.dat"
expect "importances cut short" 4 "cut.dat: damaged" $Q --model "$M" --type q4_k_s --imatrix "$tmp/cut.dat" --out "$tmp/x.gguf"
expect "importances that are missing" 2 "none.gguf" $Q --model "$M" --type q4_k_s --imatrix "$tmp/none.gguf" --out "$tmp/x.gguf"
expect "two sources of importances" 2 "one importance matrix" $Q --model "$M" --imatrix "$tmp/im.dat" \
    --calibration "$tmp/calib.txt" --out "$tmp/x.gguf"
expect "less than a row of text" 2 "less than one chunk" $Q --model "$M" --calibration "$tmp/calib.txt" \
    quantize.context=65536 --out "$tmp/x.gguf"
expect "feedback without a text" 2 "rounding=feedback wants a text" $Q --model "$M" --type q4_k_s --imatrix "$tmp/im.dat" \
    quantize.rounding=feedback --out "$tmp/x.gguf"
absent "nothing of these was written" "$tmp/x.gguf"
for k in 1 2; do
    check "rounding by feedback, $k threads" $Q --model "$M" --type q4_k_s --calibration "$tmp/calib.txt" --threads $k \
        quantize.context=16 quantize.rounding=feedback quantize.name=fed --out "$tmp/fed$k.gguf"
done
check "gives the same bytes" cmp "$tmp/fed1.gguf" "$tmp/fed2.gguf"
$Q --model "$M" --type q4_k_s --calibration "$tmp/calib.txt" quantize.context=16 --out "$tmp/unfed.gguf" >/dev/null
same "and the size of the search's file" "$(wc -c <"$tmp/fed1.gguf")" "$(wc -c <"$tmp/unfed.gguf")"
check "but not its bytes" sh -c '! cmp -s "$0" "$1"' "$tmp/fed1.gguf" "$tmp/unfed.gguf"
check "Hugging Face folder" $Q --model "$M" --format hf --out "$tmp/hf"
same "Hugging Face folder: the same greedy text" "$(greedy "$tmp/hf")" "$text"
check "GGUF to checkpoint" $Q --model "$tmp/f32.gguf" --format checkpoint --out "$tmp/back"
same "GGUF to checkpoint: the same greedy text" "$(greedy "$tmp/back")" "$text"
check "there and back to GGUF" $Q --model "$tmp/back" --type f32 --out "$tmp/again.gguf"
json "config.json is JSON" "$tmp/hf/config.json"
# ---- what is planned is what is written; what was asked for and changes nothing is said
exact() { # NAME FILE ARG...: the size that --dry-run tells is the file's
    name=$1 file=$2; shift 2
    told=$($Q "$@" --dry-run 2>/dev/null | sed -n 's/^total: .*: \([0-9]*\) bytes$/\1/p')
    in_json=$($Q "$@" --dry-run --json 2>/dev/null | sed -n 's/.*"file_bytes":\([0-9]*\).*/\1/p')
    $Q "$@" >/dev/null 2>"$tmp/.err"
    same "$name: the size that --dry-run tells" "$told $in_json" "$(wc -c <"$file") $(wc -c <"$file")"
}
exact "q4_k_m" "$tmp/e.gguf" --model "$M" --type q4_k_m --out "$tmp/e.gguf" quantize.max_kl=5
exact "exceptions and a name" "$tmp/e.gguf" --model "$M" --type q5_0 --out "$tmp/e.gguf" quantize.max_kl=5 \
    "quantize.tensors=['blk.0.*=f16']" quantize.name="a name of some length"
exact "importances" "$tmp/e.gguf" --model "$M" --type q4_k_s --out "$tmp/e.gguf" --imatrix "$tmp/im.dat" quantize.max_kl=5
exact "importances to be collected" "$tmp/e.gguf" --model "$M" --type q4_0 --out "$tmp/e.gguf" --calibration "$tmp/calib.txt" \
    quantize.max_kl=5 $I
exact "a folder" "$tmp/e-hf/model.safetensors" --model "$M" --type bf16 --out "$tmp/e-hf"
exact "48 layers" "$tmp/e.gguf" --model "$tmp/runs/deep/ckpt/latest" --type q8_0 --out "$tmp/e.gguf"
$Q --model "$M" --type q4_k_m --out "$tmp/dry.gguf" --dry-run --json >"$tmp/j2.json"
json "the table is JSON" "$tmp/j2.json"
check "with shape, type, bytes, and why it is not what was wanted" grep -q '"name":"blk.0.ssm_in.weight","shape":\[[0-9]*,32\],"type":"Q5_0","bytes":[0-9]*,"wanted":"Q4_K","why":"rows of 32 are not whole blocks of 256"}' "$tmp/j2.json"
same "a row for each tensor" "$(grep -o '"shape"' "$tmp/j2.json" | wc -l)" "$(sed 's/.*"tensors":\([0-9]*\).*/\1/' "$tmp/j2.json")"
expect "the real run names fallbacks" 0 "warning: [0-9]+ tensors are Q5_0, not Q4_K: rows, as those of 32 in blk" $Q --model "$M" --quiet \
    --type q4_k_m --out "$tmp/e.gguf" quantize.max_kl=5
same "and --quiet is quiet" "$(cat "$tmp/.out")" ""
same "the card's line too" "$($Q --quiet --model "$M" --type q8_0 --card "$tmp/calib.txt" --out "$tmp/e.gguf" $I 2>&1)" ""
for t in f16 q8_0; do
    expect "importances for $t change nothing" 0 "warning: quantize.imatrix changes nothing in a file of" $Q --model "$M" --type $t \
        --imatrix "$tmp/im.gguf" --out "$tmp/e.gguf"
done
expect "feedback neither" 0 "warning: quantize.rounding=feedback changes nothing in a file of Q8_0" $Q --model "$M" --type q8_0 \
    --calibration "$tmp/calib.txt" quantize.rounding=feedback --out "$tmp/e.gguf" --dry-run $I
same "an exception they act on: nothing to say" "$($Q --quiet --model "$M" --type f16 --imatrix "$tmp/im.gguf" --out "$tmp/e.gguf" \
    "quantize.tensors=[blk.0.ssm_in.weight=q4_0]" 2>&1)" ""
expect "blocks rounded to blocks again" 0 "q8_0.gguf: its weights were rounded to Q8_0 before, and are rounded a second time" $Q \
    --model "$tmp/q8_0.gguf" --type q4_0 --out "$tmp/e.gguf" quantize.max_kl=5
same "nor blocks of Q8_0 to the same" "$($Q --quiet --model "$tmp/q8_0.gguf" --type q8_0 --out "$tmp/e.gguf" 2>&1)" ""
expect_out "which come back the same" '"max_logit_diff_rel":0,' $Q --model "$tmp/q8_0.gguf" --type q8_0 --out "$tmp/e.gguf" --json
for o in type model out card; do
    expect "--$o twice" 2 "error: --$o is given twice: 'a' and 'b'" $Q --$o a --$o b
done
for o in card calibration; do
    expect "a folder for --$o" 2 "is a folder" $Q --model "$M" --type q4_0 --out "$tmp/none.gguf" --$o "$tmp"
done
same "blocks to floats lose nothing" "$($Q --quiet --model "$tmp/q8_0.gguf" --type f32 --out "$tmp/e.gguf" 2>&1)" ""
for i in $(seq 500); do cat "$tmp/calib.txt"; done >"$tmp/long.txt" # collecting on it takes 5 s of a processor
expect "--dry-run collects nothing" 0 "" sh -c 'ulimit -t 2; exec "$@"' sh $Q --model "$M" --type q4_0 --out "$tmp/dry.gguf" --dry-run --calibration \
    "$tmp/long.txt" quantize.context=32
$Q --model "$M" --out "$tmp/j.gguf" --json >"$tmp/j.json"
json "--json" "$tmp/j.json"
expect_out "--dry-run lists and totals" "total: " $Q --model "$M" --out "$tmp/dry.gguf" --dry-run
$Q --model "$M" --out "$tmp/dry.gguf" --dry-run --json >"$tmp/j2.json"
json "--dry-run --json" "$tmp/j2.json"
check "has the total" grep -q '"type":"F32","format":"gguf","tensors":[0-9]*,"tensor_bytes":[0-9]*,"file_bytes":[0-9]*,"table":' "$tmp/j2.json"
absent "--dry-run writes nothing" "$tmp/dry.gguf"
for k in ref ""; do
    expect_out "48 layers to f32 GGUF and back, ${k:-the best} kernels: the same bits" "difference 0.0e\+00 of the RMS" \
        env CHIMERA_KERNELS=$k $Q --model "$tmp/runs/deep/ckpt/latest" --out "$tmp/deep.gguf"
done
denied "where we may not write" 1 "$tmp/ro/x.gguf" quantize --model "$M" --out "$tmp/ro/x.gguf"

# ---- refusals
printf '{"text":"mine"}\n' >"$tmp/mine.jsonl"
expect "another file in the way" 2 "is not a GGUF file" $Q --model "$M" --format gguf --out "$tmp/mine.jsonl"
check "which stays" grep -q mine "$tmp/mine.jsonl"
expect "a data set in the way" 2 "is not a model folder" $Q --model "$M" --format hf --out "$tmp/data"
cp -r "$tmp/runs/tiny/ckpt/latest/" "$tmp/ours"
before=$(tree "$tmp/ours")
for format in hf checkpoint; do
    expect "a run's checkpoint in the way, $format" 2 "is a checkpoint of a run, which could not be resumed" $Q \
        --model "$tmp/f32.gguf" --format $format --out "$tmp/ours"
done
rm "$tmp/ours/SHA256SUMS"; mv "$tmp/ours/optimizer.safetensors" "$tmp/moments"
check "a copy without its state is a model folder" $Q --model "$tmp/f32.gguf" --format checkpoint --out "$tmp/ours" --dry-run
mv "$tmp/moments" "$tmp/ours/optimizer.safetensors"; cp "$M/SHA256SUMS" "$tmp/ours"
same "which stays, to the byte" "$(tree "$tmp/ours")" "$before"
mkfifo "$tmp/pipe.gguf"
for dry in "" --dry-run; do
    for out in /dev/null "$tmp/pipe.gguf"; do
        for format in gguf hf; do
            expect "to $out, $format $dry" 2 "$out: is neither a file nor a folder.*choose another --out" timeout 20 $Q --model "$M" \
                --format $format --out $out $dry
        done
        expect "importances to $out $dry" 2 "imatrix_out: $out is a pipe or a device, not a file" timeout 20 $Q --model "$M" \
            --calibration "$tmp/calib.txt" quantize.imatrix_out=$out $dry $I
    done
    expect "importances over a folder $dry" 2 "imatrix_out: $tmp/data is a folder, not a file" $Q --model "$M" \
        --calibration "$tmp/calib.txt" quantize.imatrix_out="$tmp/data" $dry $I
done
expect "standard output is a pipe" 2 "/dev/stdout: is neither a file nor a folder" sh -c 'timeout 20 "$@" | cat; exit $(cat '"$tmp/rc)" sh \
    sh -c '"$@"; echo $? >'"$tmp/rc" sh $Q --model "$M" --format gguf --out /dev/stdout
: >"$tmp/empty"
expect "a folder over an empty file" 2 "empty: exists and is not a model folder" $Q --model "$M" --format hf --out "$tmp/empty"
expect "no model" 2 "--model" $Q --out "$tmp/x.gguf"
expect "nowhere to write" 2 "--out" $Q --model "$M"
expect "missing model" 2 "none" $Q --model "$tmp/none" --out "$tmp/x.gguf"
expect "unknown type" 2 "q8_0" $Q --model "$M" --type q9 --out "$tmp/x.gguf"
expect "unknown format" 2 "checkpoint" $Q --model "$M" --format onnx --out "$tmp/x.gguf"
expect "conflicting options" 2 "checkpoints are f32" $Q --model "$M" --format checkpoint --type q8_0 --out "$tmp/x"
expect "the output is the input" 2 "would replace" $Q --model "$tmp/f32.gguf" --out "$tmp/f32.gguf"
for out in f32.gguf calib.txt; do
    expect "importances would go over $out" 2 "$out: quantize.imatrix_out would replace the" $Q --model "$tmp/f32.gguf" \
        --calibration "$tmp/calib.txt" quantize.imatrix_out="$tmp/$out" --out "$tmp/x.gguf" $I
done
expect "over a checkpoint's weights" 2 "imatrix_out would replace the model" $Q --model "$tmp/runs/tiny" \
    --calibration "$tmp/calib.txt" quantize.imatrix_out="$M/model.safetensors" $I
expect "the file over its importances" 2 "im.gguf: --out would replace the importance matrix" $Q --model "$M" \
    --imatrix "$tmp/im.gguf" --out "$tmp/im.gguf"
expect "two outputs, one file that is not there yet" 2 "imatrix_out would replace --out" $Q --model "$M" \
    --calibration "$tmp/calib.txt" --out "$tmp/x.gguf" quantize.imatrix_out="$tmp/./x.gguf" $I
cp "$tmp/calib.txt" "$tmp/x.gguf.card.md"
expect "the card over its text" 2 "the card would replace the card's text" $Q --model "$M" --card "$tmp/x.gguf.card.md" \
    --out "$tmp/x.gguf" $I
check "all of these are as they were" cmp "$tmp/calib.txt" "$tmp/x.gguf.card.md"
for dry in "" --dry-run; do
    expect "no text for the card $dry" 2 "nonexist" $Q --model "$M" --out "$tmp/x.gguf" --card "$tmp/nonexist" $dry
    expect "too little of it $dry" 2 "tokens are less than one chunk of 65536" $Q --model "$M" --out "$tmp/x.gguf" \
        --card "$tmp/calib.txt" quantize.context=65536 $dry
    expect "no folder to write to $dry" 1 "nonexist/o.gguf: cannot write" $Q --model "$M" --out "$tmp/nonexist/o.gguf" $dry
    expect "a folder cannot hold it $dry" 2 "cannot hold Q4_K_M.*--format gguf" $Q --model "$M" --type q4_k_m --out "$tmp/x" $dry
done
expect "--dry-run collects no file" 0 "" $Q --model "$M" --calibration "$tmp/calib.txt" quantize.imatrix_out="$tmp/x.gguf" \
    --dry-run $I
absent "nothing of these was written" "$tmp/x.gguf" "$tmp/x"
expect "below a file" 1 "j.json" $Q --model "$M" --out "$tmp/j.json/x.gguf"
expect "in /proc" 1 "/proc" $Q --model "$M" --out /proc/chimera.gguf
absent "nothing of these was written" "$tmp/x.gguf" "$tmp/x"
"$BIN/pretrain" --config "$tmp/tiny.yaml" --runs "$tmp/runs" --quiet name=wide model.ssm_expand=4 model.export=any sched.tokens=1024 ckpt.every=0
expect "what GGUF cannot say, by key" 2 "model.ssm_expand: GGUF cannot say" $Q --model "$tmp/runs/wide/ckpt/latest" --out "$tmp/x.gguf"
absent "is not written" "$tmp/x.gguf"

# ---- damage
bad() { # NAME CODE REGEX SOURCE
    expect "$1" "$2" "$3" $Q --model "$4" --out "$tmp/x.gguf"
    absent "$1: nothing written" "$tmp/x.gguf"
}
size=$(wc -c <"$tmp/f32.gguf")
for at in 10 100 3000 $((size / 2)) $((size - 1)); do
    head -c "$at" "$tmp/f32.gguf" >"$tmp/cut.gguf"
    bad "GGUF cut at $at" 4 "cut.gguf" "$tmp/cut.gguf"
done
cp "$tmp/f32.gguf" "$tmp/cut.gguf"; flip "$tmp/cut.gguf" 1
bad "GGUF with another magic" 4 "cut.gguf" "$tmp/cut.gguf"
cp "$tmp/f32.gguf" "$tmp/cut.gguf"; flip "$tmp/cut.gguf" 15
bad "GGUF with an absurd count" 4 "cut.gguf" "$tmp/cut.gguf"
for at in 4 100 5000; do
    rm -rf "$tmp/cut"; cp -r "$tmp/hf" "$tmp/cut"
    head -c $at "$tmp/hf/model.safetensors" >"$tmp/cut/model.safetensors"
    bad "safetensors cut at $at" 4 "model.safetensors" "$tmp/cut"
done
rm -rf "$tmp/cut"; cp -r "$tmp/hf" "$tmp/cut"
sed 's/"hidden_size": *[0-9]*/"hidden_size": 64/' "$tmp/hf/config.json" >"$tmp/cut/config.json"
bad "a config of another shape" 4 "cut" "$tmp/cut"
printf '{"hidden_size": ' >"$tmp/cut/config.json"
bad "a broken config.json" 4 "config.json" "$tmp/cut"

# ---- a model larger than memory: one parameter at a time
"$BIN/pretrain" --quiet --threads 1 --config "$tmp/tiny.yaml" --runs "$tmp/runs" name=big data.shards="$tmp/data" model.d_model=512 \
    model.ffn=D model.d_ff=1024 model.n_layers=4 model.n_heads=8 model.n_kv_heads=2 optim.kind=adamw sched.tokens=64 \
    data.batch_tokens=64 ckpt.every=0 val.every=0 2>/dev/null
big=$tmp/runs/big/ckpt/latest
size=$(($(wc -c <"$big/model.safetensors") / 1024))
printf 'MemAvailable: %d kB\n' $((size / 16)) >"$tmp/nothing"
printf 'MemAvailable: %d kB\n' $((size * 3 / 4)) >"$tmp/meminfo" # a machine with less than the weights take
if unshare -m mount --bind "$tmp/meminfo" /proc/meminfo 2>/dev/null; then
    unshare -m sh -c 'mount --bind "$0" /proc/meminfo; exec "$@"' "$tmp/meminfo" $Q --model "$big" --type q4_k_m \
        --out "$tmp/big.gguf" quantize.name=big >"$tmp/big.out" 2>&1 &
    pid=$! most=0
    while kill -0 $pid 2>/dev/null; do
        held=$(sed -n 's/^RssAnon:[^0-9]*\([0-9]*\).*/\1/p' /proc/$pid/status 2>/dev/null)
        [ "${held:-0}" -le $most ] || most=$held
        sleep 0.01
    done
    wait $pid
    same "a model larger than memory" "$?" 0
    if sanitized; then
        skip "what was held at once" "built with sanitizers"
    else
        report "$most of the weights' $size KiB were held at once" "$([ "$most" -gt 1000 ] && [ "$most" -lt $((size * 3 / 4)) ] && echo 1 || echo 0)" ""
    fi
    $Q --model "$big" --type q4_k_m --out "$tmp/roomy.gguf" quantize.name=big >"$tmp/roomy.out"
    check "the same bytes with memory" cmp "$tmp/big.gguf" "$tmp/roomy.gguf"
    same "and its logits compare alike" "$(grep parity "$tmp/big.out")" "$(grep "same top token" "$tmp/roomy.out")"
    expect "layers larger than memory: tensors are compared, logits are not, which is said" 0 "tensors were compared, logits were not" \
        unshare -m sh -c 'mount --bind "$0" /proc/meminfo; exec "$@"' "$tmp/nothing" $Q --model "$big" --type q4_k_m --out "$tmp/big.gguf" quantize.name=big
    check "with the same bytes" cmp "$tmp/big.gguf" "$tmp/roomy.gguf"
else
    skip "a model larger than memory" "no mount name space to make it so"
fi

# ---- what does not fit is refused in a sentence, before any work
for dry in "" --dry-run; do
    poor 100 "calibration without memory $dry" 7 "calibration .the model as floats. takes [0-9.]+ KiB of memory and 100 KiB can be had: .*--imatrix" \
        $Q --model "$M" --type q4_0 --out "$tmp/poor.gguf" --calibration "$tmp/calib.txt" $I $dry
    poor 300 "feedback without memory $dry" 7 "rounding by feedback .* 300 KiB can be had: quantize.rounding=search takes less" \
        $Q --model "$M" --type q4_0 --out "$tmp/poor.gguf" --calibration "$tmp/calib.txt" quantize.rounding=feedback $I $dry
    poor 210 "a card without memory $dry" 7 "the quality card .* 210 KiB can be had: leave --card out" \
        $Q --model "$M" --type q4_0 --out "$tmp/poor.gguf" --card "$tmp/calib.txt" $I $dry
done
poor 230 "not even a row of the text" 7 "reading a text takes [0-9.]+ KiB of memory and 230 KiB can be had" \
    $Q --model "$M" --type q4_0 --out "$tmp/poor.gguf" --calibration "$tmp/calib.txt" quantize.context=512 quantize.chunks=1
absent "nothing was written" "$tmp/poor.gguf"
poor 230 "less than the model with its gradients is enough to convert it" 0 "" $Q --model "$M" --type q4_0 --out "$tmp/poor.gguf" \
    quantize.max_kl=5
# What was free at first and is gone when it is wanted.
for k in 1 2 3 4 5 6 7 8 9 10; do
    poor 100 "memory goes after $k looks at it" '[07]' "" env MEMINFO_AFTER=$k $Q --model "$M" --type q4_0 --out "$tmp/gone.gguf" \
        --calibration "$tmp/calib.txt" quantize.rounding=feedback quantize.max_kl=5 $I
    cat "$tmp/.err" >>"$tmp/gone"
done
check "the model asks when it is read" grep -q "the model as floats takes .*: this wants all of it at once" "$tmp/gone"
check "and what is collected, then" grep -q "how columns move together takes .*: quantize.rounding=search needs none" "$tmp/gone"
swap=2000 poor 230 "swap counts" 0 "" $Q --model "$M" --type q4_0 --out "$tmp/poor.gguf" quantize.max_kl=5 --calibration "$tmp/calib.txt" $I

# ---- killed
"$BIN/quantize" --version >/dev/null & dead=$!
wait $dead
: >"$tmp/killed.gguf.$dead.tmp"
check "what a killed program left" $Q --model "$M" --out "$tmp/killed.gguf"
absent "goes with the next one" "$tmp/killed.gguf.$dead.tmp"
for _ in 1 2 3 4 5; do # until the signal comes while it writes
    $Q --model "$big" --type iq4_xs --out "$tmp/killed.gguf" 2>"$tmp/killed.err" >/dev/null &
    pid=$!
    for _ in $(seq 400); do ls "$tmp"/killed.gguf.*.tmp >/dev/null 2>&1 && break; sleep 0.01; done
    kill -TERM $pid; wait $pid; code=$?
    grep -q "removed unfinished" "$tmp/killed.err" && break
done
same "SIGTERM: exit 143" $code 143
check "it says what it removed" grep -q "^stopped; removed unfinished .*killed.gguf.$pid.tmp$" "$tmp/killed.err"
absent "and has" "$tmp/killed.gguf.$pid.tmp"

# ---- a folder is replaced as a whole or not at all
cp -r "$tmp/hf" "$tmp/over"; echo mine >"$tmp/over/notes.txt"
before=$(tree "$tmp/over")
halt() { # SIGNAL FOLDER: sent while it writes the weights there
    for _ in 1 2 3 4 5; do
        $Q --model "$big" --format hf --out "$2" 2>"$tmp/killed.err" >/dev/null &
        pid=$!
        for _ in $(seq 400); do ls "$2"/model.safetensors.*.tmp >/dev/null 2>&1 && break; sleep 0.005; done
        kill -"$1" $pid; wait $pid; code=$?
        [ $code = 0 ] || return
        rm -rf "$2"; cp -r "$tmp/hf" "$2"; echo mine >"$2/notes.txt"
    done
}
halt TERM "$tmp/over"
same "SIGTERM over a folder: exit 143" $code 143
same "its files are as they were, to the byte" "$(tree "$tmp/over")" "$before"
DISK_FULL_BYTES="0 5000 20000 60000" disk_full "over a folder" "$tmp/over" $Q --model "$big" --format hf --out "$tmp/over"
same "a full disk leaves it, to the byte" "$(tree "$tmp/over")" "$before"
halt KILL "$tmp/over" 2>/dev/null
same "SIGKILL: exit 137" $code 137
same "its files are, too, but for temporaries" "$(rm -rf "$tmp/bare"; cp -r "$tmp/over" "$tmp/bare"; rm -f "$tmp/bare"/*.tmp; tree "$tmp/bare")" "$before"
same "and it is the model it was" "$(greedy "$tmp/over")" "$text"
check "a finished one replaces it" $Q --model "$tmp/runs/deep/ckpt/latest" --format hf --out "$tmp/over"
check "by the other model" grep -q '"num_hidden_layers": 48' "$tmp/over/config.json"
same "beside what is not its own" "$(cat "$tmp/over/notes.txt")" mine
same "and nothing unfinished is left" "$(ls "$tmp/over" | grep tmp)" ""

# ---- of a model that was in the folder nothing is left beside the new one
files() { ls "$1" | tr '\n' ' '; }
ours="config.json model.safetensors tokenizer.model tokenizer_config.json "
litter() { # FOLDER: what other exports leave, and what is the user's
    for f in model-00001-of-00002.safetensors model-00002-of-00002.safetensors model.safetensors.index.json \
        pytorch_model.bin pytorch_model-00001-of-00002.bin tokenizer.json special_tokens_map.json added_tokens.json \
        chat_template.jinja generation_config.json adapter_config.json adapter_model.safetensors; do
        echo '{}' >"$1/$f"
    done
    echo mine >"$1/README.md"; echo mine >"$1/model-notes.safetensors"; mkdir "$1/tokenizer.json.d" "$1/merges.txt"
}
mine="README.md merges.txt model-notes.safetensors tokenizer.json.d "
all=$(for f in $ours $mine; do echo $f; done | sort | tr '\n' ' ')
cp -r "$tmp/hf" "$tmp/mixed"; litter "$tmp/mixed"; rm "$tmp/mixed/model.safetensors"
before=$(tree "$tmp/mixed")
check "over a sharded folder, --dry-run" $Q --model "$M" --format hf --out "$tmp/mixed" --dry-run
same "changes nothing" "$(tree "$tmp/mixed")" "$before"
DISK_FULL_BYTES="0 20000" disk_full "over a sharded folder" "$tmp/mixed" $Q --model "$M" --format hf --out "$tmp/mixed"
same "a full disk leaves it, to the byte" "$(tree "$tmp/mixed")" "$before"
check "over a sharded folder" $Q --model "$M" --format hf --out "$tmp/mixed"
same "one model is left, beside the user's files" "$(LC_ALL=C files "$tmp/mixed")" "$(echo $all | tr ' ' '\n' | LC_ALL=C sort | tr '\n' ' ')"
same "the new one" "$(greedy "$tmp/mixed")" "$text"
cp -r "$M/" "$tmp/bare-model"; rm "$tmp/bare-model/SHA256SUMS" "$tmp/bare-model"/tokenizer* "$tmp/bare-model/optimizer.safetensors"
check "a model without tokenizer over one with" $Q --model "$tmp/bare-model" --format hf --out "$tmp/mixed"
same "has none" "$(ls "$tmp/mixed" | grep '^tokenizer[._a-z]*\(model\|config.json\)$')" ""

# ---- full disks
printf GGUFold >"$tmp/x.gguf"
DISK_FULL_BYTES="0 20000" disk_full "GGUF" "$tmp" $Q --model "$M" --out "$tmp/x.gguf"
same "the file that was there stays" "$(cat "$tmp/x.gguf")" GGUFold
DISK_FULL_BYTES="0 20000" disk_full "folder" "$tmp/full-hf" $Q --model "$M" --format hf --out "$tmp/full-hf"
absent "no folder is left where there was none" "$tmp/full-hf"
rm -f "$tmp"/carded.gguf*
check "a card once more" $Q --quiet --model "$M" --type q8_0 --card "$tmp/calib.txt" --out "$tmp/carded.gguf" $I
sum=$(cat "$tmp/carded.gguf" "$tmp/carded.gguf.card.json" | wc -c)
for old in "" carded.gguf.card.md; do # between the card's files; over a file of the user's, too
    rm -f "$tmp"/carded.gguf*; [ -z "$old" ] || echo mine >"$tmp/$old"
    DISK_FULL_BYTES=$((sum + 100)) disk_full "the card${old:+ over $old}" "$tmp" $Q --quiet --model "$M" --type q8_0 \
        --card "$tmp/calib.txt" --out "$tmp/carded.gguf" $I
    same "both of its files or neither" "$(cards) $(cat "$tmp/carded.gguf.card.md" 2>/dev/null)" "$old${old:+ } ${old:+mine}"
done
finish
