#!/bin/sh
# chat.sh -- conversations and preferences to shards: masks as a person sees them, what is
# refused and listed, what survives.  The samples in tests/cli/chat were written for this test;
# head_*.txt is what `tokenize head` must show of them.
. tests/cli/lib.sh
T="$BIN/tokenize --quiet"
here=tests/cli/chat
K=tokenize.tokenizer=tests/golden/chat
N=tokenize.val_frac=0

# ---- ten samples, as golden text
run $T tokenize.inputs=$here/chat.jsonl tokenize.out="$tmp/chat" $K $N
same "--quiet is quiet" "$(cat "$tmp/.err")" ""
run $T "tokenize.inputs=[$here/preference.jsonl, $here/preference.json]" tokenize.out="$tmp/pref" $K $N
for k in chat pref; do
    $T head "$tmp/$k" --docs 100 >"$tmp/head.txt"
    same "the mask viewer on $k" "$(cat "$tmp/head.txt")" "$(cat $here/head_$k.txt)"
    $T head "$tmp/$k" --docs 100 --json >"$tmp/head.jsonl"
    json "head --json on $k" "$tmp/head.jsonl"
    expect_out "verify $k" "ok: 1 shard.*[0-9]+ answer and [0-9]+ reasoning tokens" $T verify "$tmp/$k"
    $T verify "$tmp/$k" --json >"$tmp/v.json"
    json "verify --json on $k" "$tmp/v.json"
    $T stats "$tmp/$k" --json >"$tmp/s.json"
    json "stats --json on $k" "$tmp/s.json"
    json "manifest of $k" "$tmp/$k/manifest.json"
done
check "ids and masks stand side by side" grep -q '"ids":\[1,4,.*"mask":\[0,0,.*,1\],"side":"rejected","text":' "$tmp/head.jsonl"
check "of a pair, each says its side" grep -q '"side":"chosen"' "$tmp/head.jsonl"
expect_out "stats: trained share" "trained +[0-9.]+% of the tokens: [0-9]+ answer, [0-9]+ reasoning" $T stats "$tmp/chat"
expect_out "stats: pairs" "pairs +4; the chosen answer is longer in 0.0%, as long in 50.0%.* 0 identical" $T stats "$tmp/pref"
$T tokenize.inputs=$here/chat.jsonl tokenize.out="$tmp/j" $K $N --json >"$tmp/r.json"
json "the result is JSON" "$tmp/r.json"
check "with the kind and the trained tokens" grep -q '"kind":"sft".*"answer_tokens":[1-9]' "$tmp/r.json"
$T head "$tmp/chat" --tokens 12 --docs 1 >"$tmp/short.txt"
check "a document cut short says so" grep -q 'more$' "$tmp/short.txt"
if terminal; then
    env -u NO_COLOR TERM=xterm script -qec "$T head $tmp/chat" /dev/null </dev/null >"$tmp/tty.txt"
    check "colours on a terminal" grep -q "$(printf '\033')\[33m" "$tmp/tty.txt"
    NO_COLOR=1 TERM=xterm script -qec "$T head $tmp/chat" /dev/null </dev/null >"$tmp/tty.txt"
    check "not with NO_COLOR" sh -c "! grep -q '$(printf '\033')' '$tmp/tty.txt' && grep -q '((' '$tmp/tty.txt'"
else
    skip "colours on a terminal" "no pseudo-terminal"
fi

# ---- the kind, told and found
for set in "kind=chat chat" "kind=preference preference"; do
    what=${set#* }
    $T tokenize.inputs=$here/$what.jsonl tokenize.out="$tmp/k" $K $N "tokenize.${set% *}" >/dev/null
    check "tokenize.${set% *} is what auto finds" sh -c "$T tokenize.inputs=$here/$what.jsonl \
        tokenize.out=$tmp/k2 $K $N >/dev/null && diff -r $tmp/k $tmp/k2"
    rm -rf "$tmp/k" "$tmp/k2"
done
expect "lm, when told so" 2 "corpus is empty" $T tokenize.inputs=$here/chat.jsonl tokenize.out="$tmp/k" $K $N tokenize.kind=lm
expect "preferences as chat" 2 "corpus is empty.*4 rejected" $T tokenize.kind=chat $K $N tokenize.out="$tmp/k" \
    "tokenize.inputs=[$here/preference.jsonl, $here/preference.json]"
cat $here/chat.jsonl | "$BIN/tokenize" --quiet tokenize.inputs=- tokenize.out="$tmp/in" $K $N tokenize.format=jsonl \
    >/dev/null 2>"$tmp/.err"
same "from stdin" "$($T head "$tmp/in" --docs 9)" "$($T head "$tmp/chat" --docs 9)"
piped() { rm -rf "$tmp/in"; "$BIN/tokenize" --quiet tokenize.inputs=- tokenize.out="$tmp/in" "$@" >"$tmp/.out" 2>"$tmp/.err"; }
piped $K $N <$here/chat.jsonl
same "from stdin, without a word about it" "$($T head "$tmp/in" --docs 9)" "$($T head "$tmp/chat" --docs 9)"
$T tokenize.inputs=$here/preference.json tokenize.out="$tmp/array" $K $N >/dev/null
piped $K $N <$here/preference.json
same "an array of pairs from stdin" "$($T head "$tmp/in" --docs 9)" "$($T head "$tmp/array" --docs 9)"
printf '\n[Music] and text\n' | piped $K $N
check "text from stdin is text" grep -q '"kind": "lm"' "$tmp/in/manifest.json"
printf '{"messages": [\n' | piped $K $N
same "a broken first line is no text" "$?" 2
tr -d '\r' <$here/chat.jsonl | sed 's/$/\r/' >"$tmp/crlf.jsonl"
$T tokenize.inputs="$tmp/crlf.jsonl" tokenize.out="$tmp/crlf" $K $N >/dev/null
same "CRLF lines" "$($T head "$tmp/crlf" --docs 9)" "$($T head "$tmp/chat" --docs 9)"
gzip -c $here/chat.jsonl >"$tmp/c.jsonl.gz"
$T tokenize.inputs="$tmp/c.jsonl.gz" tokenize.out="$tmp/gz" $K $N >/dev/null
check "from .gz" cmp "$tmp/gz/train-00000.tok.zst" "$tmp/chat/train-00000.tok.zst"
if command -v zstd >/dev/null 2>&1; then
    check "zstd accepts a shard with masks" zstd -qt "$tmp/chat/train-00000.tok.zst"
else
    skip "zstd accepts a shard with masks" "no zstd program"
fi
for n in 1 3; do
    $T tokenize.inputs=$here/chat.jsonl tokenize.out="$tmp/t$n" $K $N --threads $n >/dev/null
    same "the same files with $n threads" "$(tree "$tmp/t$n")" "$(tree "$tmp/chat")"
done

# ---- what is not used is listed
expect "bad lines are rejected, counted by reason" 0 "9 document.s. rejected.*bad-json: 1, bad-text: 1, missing-field: 1, unknown-role: 1, turn-order: 1, no-assistant: 1, empty-answer: 1, open-think: 1, unsupported: 1" \
    "$BIN/tokenize" tokenize.inputs=$here/bad.jsonl tokenize.out="$tmp/bad" $K $N
json "the report is JSON" "$tmp/bad/rejected.jsonl"
same "each named with its line" "$(sed 's/.*"line": \([0-9]*\).*"code": "\(.*\)"}/\1 \2/' "$tmp/bad/rejected.jsonl" | tr '\n' ',')" \
    "2 bad-json,3 unknown-role,4 no-assistant,5 empty-answer,6 turn-order,7 missing-field,8 open-think,11 bad-text,12 unsupported,"
check "and in the manifest" grep -q '"rejected": {"bad-json": 1, ' "$tmp/bad/manifest.json"
check "the good line is there once" grep -q '"docs": 1, .*$' "$tmp/bad/manifest.json"
expect "on_reject: fail" 4 "bad.jsonl:2: column 1.*on_reject" $T tokenize.inputs=$here/bad.jsonl tokenize.out="$tmp/fail" $K $N tokenize.on_reject=fail
absent "which finishes nothing" "$tmp/fail/manifest.json"
printf '{"prompt":"a","chosen":"b","rejected":"b"}\n{"prompt":"a","chosen":"b","rejected":"c"}\n{"chosen":"x","rejected":"y"}\n' >"$tmp/eq.jsonl"
expect "chosen equal to rejected" 0 "missing-field: 1, equal-answers: 1" "$BIN/tokenize" tokenize.inputs="$tmp/eq.jsonl" tokenize.out="$tmp/eq" $K $N
expect "on plain text, too" 4 "on_reject" $T tokenize.inputs=$here/bad.jsonl tokenize.out="$tmp/lmfail" $K $N tokenize.kind=lm tokenize.on_reject=fail
expect "too long: dropped" 0 "1 document.s. rejected.*too-long: 1" "$BIN/tokenize" tokenize.inputs=$here/chat.jsonl tokenize.out="$tmp/drop" $K $N tokenize.max_tokens=70
check "and not counted as used" grep -q '"docs": 5, "bytes": 328, ' "$tmp/drop/manifest.json"
expect "too long: whole exchanges go" 0 "1 conversation.s. above tokenize.max_tokens lost exchanges" "$BIN/tokenize" \
    tokenize.inputs=$here/chat.jsonl tokenize.out="$tmp/trunc" $K $N tokenize.max_tokens=80 tokenize.overlong=truncate
check "and are listed" grep -q '"line": 2, "reason": ".*2 turn(s) left out.*"code": "truncated"' "$tmp/trunc/rejected.jsonl"
expect_out "the answer before is whole" "7<.end.>\]\] *----" $T head "$tmp/trunc" --docs 9
printf '{"question":"a","answer":"\377"}\n{"question":"a","answer":"b"}\n' >"$tmp/utf8.jsonl"
expect "invalid UTF-8" 0 "bad-text: 1" "$BIN/tokenize" tokenize.inputs="$tmp/utf8.jsonl" tokenize.out="$tmp/utf8" $K $N tokenize.kind=chat
{ printf '{"question":"a","answer":"'; head -c 100000000 /dev/zero | tr '\0' 'a'; printf '"}\n'; cat $here/chat.jsonl; } >"$tmp/long.jsonl"
expect "a line of 100 MB above max_doc" 0 "too-long: 1" "$BIN/tokenize" tokenize.inputs="$tmp/long.jsonl" tokenize.out="$tmp/long" $K $N tokenize.max_doc=50MB tokenize.kind=chat
expect "a word of 100 MB" 0 "bad-text: 1" "$BIN/tokenize" tokenize.inputs="$tmp/long.jsonl" tokenize.out="$tmp/long2" $K $N
{ printf '{"question":"a","answer":"'; yes 'one day ' | tr -d '\n' | head -c 100000000; printf '"}\n'; } >"$tmp/long.jsonl"
expect_out "an answer of 100 MB goes in" "." $T tokenize.inputs="$tmp/long.jsonl" tokenize.out="$tmp/long3" $K $N
expect_out "and is all there" "max [0-9]{8,}" $T stats "$tmp/long3"
rm -rf "$tmp"/long*

# ---- refusals
: >"$tmp/empty.jsonl"
E="$T tokenize.out=$tmp/none $N"
expect "an empty file" 2 "corpus is empty" $E tokenize.inputs="$tmp/empty.jsonl" $K tokenize.kind=chat
printf '{"question":"a"}\n' >"$tmp/one.jsonl"
expect "nothing usable" 2 "one.jsonl:1: .*no conversation.*corpus is empty.*1 rejected" $E tokenize.inputs="$tmp/one.jsonl" $K tokenize.kind=chat
expect "no tokenizer for chat" 2 "tokenize.tokenizer: chat data wants the base model" $E tokenize.inputs=$here/chat.jsonl
expect "nor for preferences" 2 "tokenize.tokenizer: preference data wants" $E tokenize.inputs=$here/preference.jsonl
expect "said by --dry-run, too" 2 "wants the base model" $E tokenize.inputs=$here/chat.jsonl --dry-run
mkdir "$tmp/plain"
sed 's/<|end|>/<|enD|>/' tests/golden/chat/tokenizer.model >"$tmp/plain/tokenizer.model"
expect "a tokenizer without control pieces" 2 "plain/tokenizer.model: the tokenizer lacks control pieces.*: <.end.>;" \
    $E tokenize.inputs=$here/chat.jsonl tokenize.tokenizer="$tmp/plain"
expect "a folder without a tokenizer" 2 "tokenizer.model" $E tokenize.inputs=$here/chat.jsonl tokenize.tokenizer="$tmp"
expect "chat as plain text" 2 "format=txt" $E tokenize.inputs=$here/chat.jsonl $K tokenize.kind=chat tokenize.format=txt
expect "an unknown kind" 2 "tokenize.kind.*lm" $E tokenize.inputs=$here/chat.jsonl $K tokenize.kind=chats
absent "none of them leaves anything" "$tmp/none"
printf '[{"question":"a","answer":"b"}] more\n' >"$tmp/behind.json"
expect "text behind an array" 4 "behind.json:1: text behind" $E tokenize.inputs="$tmp/behind.json" $K
rm -rf "$tmp/none"
tiny "$tmp/tiny.yaml"
expect "these shards are not for pretraining" 4 "not for language modelling" "$BIN/pretrain" --config "$tmp/tiny.yaml" --quiet \
    --runs "$tmp/runs" data.shards="$tmp/chat"

# ---- another request, a stop, damage
again="$T tokenize.inputs=$here/chat.jsonl tokenize.out=$tmp/chat $K $N"
whole=$(tree "$tmp/chat")
expect "--if-done=skip names what changed" 0 "other settings .tokenize.max_tokens" $again tokenize.max_tokens=99 --if-done=skip
expect "--if-done=skip with these settings" 0 "" $again --if-done=skip
same "has nothing to say" "$(cat "$tmp/.err")" ""
check "--if-done=redo" $again --if-done=redo
same "redo makes the same again" "$(tree "$tmp/chat")" "$whole"
cp -r "$tmp/chat" "$tmp/begun"; rm "$tmp/begun/manifest.json"
check "a begun folder is completed" $T tokenize.inputs=$here/chat.jsonl tokenize.out="$tmp/begun" $K $N
same "to the same files" "$(tree "$tmp/begun")" "$whole"
cp -r "$tmp/chat" "$tmp/hurt"
flip "$tmp/hurt/train-00000.tok.zst" "$(($(wc -c <"$tmp/hurt/train-00000.tok.zst") * 3 / 4))"
expect "one flipped bit" 4 "train-00000.tok.zst" $T verify "$tmp/hurt"
DISK_FULL_BYTES="0 100 2000 5000"
disk_full "chat" "$tmp/full" $T tokenize.inputs=$here/chat.jsonl tokenize.out="$tmp/full" $K $N

# ---- the default corpus's conversations
for k in instructions preferences; do
    "$BIN/world" --seed 5 --kind $k --count 200 >"$tmp/$k.jsonl"
    expect "world --kind $k" 0 "" $T tokenize.inputs="$tmp/$k.jsonl" tokenize.out="$tmp/w$k" $K tokenize.val_frac=0.1
    same "without a rejected line: $k" "$(cat "$tmp/w$k/rejected.jsonl")" ""
    expect_out "verify $k" "ok" $T verify "$tmp/w$k"
done
finish
