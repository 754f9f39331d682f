#!/bin/sh
# config.sh -- configuration and command line: what every tool shares.
. tests/cli/lib.sh
tools="tokenize pretrain sft dpo quantize eval regress generate"
P="$BIN/pretrain --dry-run model.vocab_size=400"

# ---- mistakes in a file: place, sentence, suggestion, all of them in one pass
yaml() { cat >"$tmp/c.yaml"; }
yaml <<'END'
optim:
  learning_rate: 1
  lr: 5e-4
END
expect "unknown key" 2 "c.yaml:2:3: error: unknown key 'optim.learning_rate'" \
    $P --config "$tmp/c.yaml"
yaml <<'END'
optim:
  weigth_decay: 0.1
modle:
  d_model: 3
END
expect "near miss of a key" 2 "c.yaml:2:3: error: unknown key .*did you mean 'optim.weight_decay'" \
    $P --config "$tmp/c.yaml"
expect "near miss of a section, in the same pass" 2 "c.yaml:3:1: error: .*did you mean 'model'" \
    $P --config "$tmp/c.yaml"
yaml <<'END'
optim:
  lr: 1
  lr: 2
END
expect "duplicate key" 2 "c.yaml:3:3: error: .*(twice|duplicate|again)" $P --config "$tmp/c.yaml"
yaml <<'END'
optim: {lr: 1}
optim: {beta1: 0.5}
END
expect "duplicate section" 2 "c.yaml:2:1: error: .*(twice|duplicate|again)" $P --config "$tmp/c.yaml"
yaml <<'END'
model:
  n_layers: 0
  d_model: wide
  tied: maybe
  rope: plane
optim:
  lr: -1
END
expect "below the range" 2 "c.yaml:2:13: error: model.n_layers.*1\.\.1024" $P --config "$tmp/c.yaml"
expect "not a number" 2 "c.yaml:3:12: error: model.d_model = wide is not an integer" $P --config "$tmp/c.yaml"
expect "not a bool" 2 "c.yaml:4:9: error: model.tied" $P --config "$tmp/c.yaml"
expect "not a choice" 2 "c.yaml:5:9: error: model.rope.*plain" $P --config "$tmp/c.yaml"
expect "negative rate" 2 "c.yaml:7:7: error: optim.lr.*0\.\.10" $P --config "$tmp/c.yaml"
printf 'a: [1, 2\nb: }\n' >"$tmp/c.yaml"
expect "broken YAML" 2 "c.yaml:[0-9]+:[0-9]+: error:" $P --config "$tmp/c.yaml"
printf 'name: \377\376\n' >"$tmp/c.yaml"
expect "YAML that is no text" 2 "c.yaml.*error:" $P --config "$tmp/c.yaml"
: >"$tmp/c.yaml"
check "empty YAML" $P --config "$tmp/c.yaml"
expect "missing config" 2 "none.yaml.*No such file" $P --config "$tmp/none.yaml"
expect "config is a folder" 2 "$tmp.*([Dd]irectory|folder)" $P --config "$tmp"
expect "word: unknown key" 2 "unknown key 'optim.lrr'; did you mean 'optim.lr'" $P optim.lrr=1
expect "word: out of range" 2 "optim.lr.*11" $P optim.lr=11
expect "word: twice" 2 "optim.lr" $P optim.lr=1 optim.lr=2
expect "word: a section this tool does not use" 2 "tokenize.out" $P tokenize.out=x
expect "keys that do not fit, with their place" 2 \
    "c.yaml:2:[0-9]+: error: model.n_heads: .*does not divide" \
    sh -c "printf 'model:\n  n_heads: 7\n  n_kv_heads: 7\n' >$tmp/c.yaml; $P --config $tmp/c.yaml"
expect "a model that GGUF cannot say" 2 "model.ssm_expand: GGUF cannot say" $P model.ssm_expand=4
check "the same with export: any" $P model.ssm_expand=4 model.export=any
expect "batch no multiple of a row" 2 "data.batch_tokens" $P data.batch_tokens=1000
expect "CHIMERA_KERNELS with no such level" 2 "unknown level 'mmx', wanted one of: ref, avx2, avx512" env CHIMERA_KERNELS=mmx $P
check "CHIMERA_KERNELS=ref" env CHIMERA_KERNELS=ref $P

# ---- the command line, tool by tool
for t in $tools; do
    expect_out "$t --help" "usage: $t.*examples:.*--version.*exit codes:" "$BIN/$t" --help
    expect_out "$t -h" "usage: $t" "$BIN/$t" -h
    same "$t --help says nothing on stderr" "$(cat "$tmp/.err")" ""
    expect_out "$t --version" "^chimera-$t [0-9]+\.[0-9]+" "$BIN/$t" --version
    expect_out "$t --help=config" "type, default" "$BIN/$t" --help=config
    expect "$t: unknown option" 2 "unknown option '--modle'|unknown option '--cofnig'" "$BIN/$t" --cofnig=x
    expect "$t: did you mean" 2 "did you mean '--dry-run'" "$BIN/$t" --dryrun
    expect "$t: switch with a value" 2 "takes no value" "$BIN/$t" --json=1
    expect "$t: option without its value" 2 "wants a value" "$BIN/$t" --config
    expect "$t: threads out of range" 2 "threads" "$BIN/$t" --threads=-1
    expect "$t: no help on that" 2 "no help on 'x'" "$BIN/$t" --help=x
    expect "$t: full disk behind stdout" 7 "standard output.*No space" \
        sh -c "\"$BIN/$t\" --help >/dev/full"
    # What --print-config prints is the configuration, and parses back to itself.
    "$BIN/$t" --print-config >"$tmp/a.yaml" 2>"$tmp/err"
    "$BIN/$t" --config "$tmp/a.yaml" --print-config 2>>"$tmp/err" | sed 's/ *#.*//' >"$tmp/b"
    sed 's/ *#.*//' "$tmp/a.yaml" >"$tmp/a"
    check "$t --print-config reads back" cmp "$tmp/a" "$tmp/b"
    same "$t --print-config is quiet" "$(cat "$tmp/err")" ""
    "$BIN/$t" --help=man >"$tmp/$t.1"
    if command -v groff >/dev/null 2>&1; then
        same "$t --help=man has no roff warnings" "$(groff -man -Tascii -ww -z "$tmp/$t.1" 2>&1)" ""
        expect_out "$t --help=man has its parts" "NAME.*SYNOPSIS.*OPTIONS.*EXIT STATUS" \
            sh -c "groff -man -Tascii -P-cbou '$tmp/$t.1'"
    else
        expect_out "$t --help=man" "^.TH CHIMERA.*SH NAME.*SH OPTIONS.*SH EXIT" cat "$tmp/$t.1"
    fi
done
# The same code for a missing input whichever tool reads it; and nothing written.
mkdir "$tmp/out"
missing() { expect "$1: missing input" 2 "none.*No such file" "$BIN/$@"; }
missing tokenize "tokenize.inputs=$tmp/none" tokenize.out="$tmp/out/d"
missing tokenize verify "$tmp/none"
missing pretrain --config "$tmp/none.yaml"
missing pretrain data.shards="$tmp/none" --runs "$tmp/out/runs"
missing quantize --model "$tmp/none" --out "$tmp/out/q.gguf"
missing generate --model "$tmp/none" --prompt x
missing eval --model "$tmp/none" --text configs/demo.yaml
same "a missing input: nothing written" "$(ls "$tmp/out")" ""

# Examples of --help run as they stand, in a clone; training only as far as its plan.
mkdir "$tmp/clone"
ln -s "$PWD/docs" "$PWD/configs" "$tmp/clone/"
"$BIN/world" --kind instructions --count 20 --out "$tmp/clone/chat.jsonl"
bin=$(cd "$BIN" && pwd)
examples() { "$BIN/$1" --help | sed -n '/^examples:/,/^$/p' | grep '^  '; }
for t in tokenize pretrain; do
    examples $t >"$tmp/examples"
    while read -r line; do
        case $t:$line in pretrain:*--dry-run*) ;; pretrain:*) line="$line --dry-run" ;; esac
        expect "example: $line" 0 "" sh -c "cd '$tmp/clone' && PATH='$bin:$PATH' && $line"
    done <"$tmp/examples"
done
# The others need models and results: small ones, under the examples' names; and the tools by
# their installed names, for `eval` alone is a word of the shell.
mkdir -p "$tmp/clone/runs" "$tmp/clone/data" "$tmp/bin"
for t in $tools; do ln -s "$bin/$t" "$tmp/bin/chimera-$t"; done
in_clone() { sh -c "cd '$tmp/clone' && PATH='$tmp/bin:$PATH' && $1"; }
model >/dev/null 2>&1
for r in demo main new base-s1 base-s2 new-s1 new-s2 lr1 lr2; do
    cp -r "$tmp/runs/tiny" "$tmp/clone/runs/$r"
done
cp -r "$tmp/data" "$tmp/clone/runs/demo-data"
"$BIN/world" --seed 4 --count 40 --format txt >"$tmp/clone/book.txt"
"$BIN/world" --kind eval --seed 1 --split test --count 80 --out "$tmp/clone/data/world_eval.jsonl"
for r in main new base-s1 base-s2 new-s1 new-s2; do
    in_clone "chimera-eval --quiet --model runs/$r --tasks world_pairs eval.data=data" >/dev/null
done
in_clone "chimera-tokenize --quiet tokenize.inputs=chat.jsonl tokenize.out=talks tokenize.val_frac=0 \
    tokenize.tokenizer=runs/demo/ckpt/latest/tokenizer.model" >/dev/null 2>&1
in_clone "chimera-sft --quiet post.model=runs/demo data.shards=talks name=lora lora.rank=2 data.seq_len=512 \
    data.batch_tokens=512 sched.tokens=512 post.overlong=drop" >/dev/null 2>&1
for t in quantize generate eval regress; do
    "$tmp/bin/chimera-$t" --help | sed -n '/^examples:/,/^$/p' | grep '^  ' >"$tmp/examples"
    while read -r line; do
        expect "example: $line" 0 "" in_clone "$line"
    done <"$tmp/examples"
done
expect_out "--print-config says where a value is from" "lr: 0.5 +# .*" \
    "$BIN/pretrain" --print-config optim.lr=0.5
expect "words where none are wanted" 2 "'shards' is neither an option" "$BIN/eval" shards
expect_out "presets of configs/ parse" "." sh -c \
    "for f in configs/*.yaml; do '$BIN/pretrain' --config \$f --print-config >/dev/null || exit 1; done; echo yes"

if [ "$BIN" = build/bin ]; then
    check "make install DESTDIR" make -s install "DESTDIR=$tmp/root" PREFIX=/usr
    expect_out "installed tool goes by its name" "usage: chimera-pretrain.*  chimera-pretrain --config" "$tmp/root/usr/bin/chimera-pretrain" --help
    expect "also when it refuses" 2 "see chimera-pretrain --help" "$tmp/root/usr/bin/chimera-pretrain" --what
    check "installed man page" test -s "$tmp/root/usr/share/man/man1/chimera-eval.1"
else
    skip "make install" "only for build/bin"
fi
finish
