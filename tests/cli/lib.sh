# lib.sh -- command-line cases: sourced by tests/cli/*.sh, run from the repository root.
#
#   expect NAME CODE 'REGEX' COMMAND...   run; compare the exit code (or pattern: [12]), and
#                                         match the extended regex against stderr
#   expect_out NAME 'REGEX' COMMAND...    exit 0 and stdout matches
#   check NAME COMMAND...                 exit 0
#   same NAME A B                         the two texts are equal
#   absent NAME PATH...                   none of the paths exists
#   disk_full NAME DIR COMMAND...         after any number of bytes written: exit 7, a sentence,
#                                         and no half-written file in DIR
#   poor KB NAME CODE 'REGEX' COMMAND...  as expect, on a machine with KB KiB of memory (and $swap of swap)
#   json NAME FILE                        FILE is JSON, or every line of it is
#   finish                                prints `N passed, N failed, N skipped`
# Fixtures, each well under a second:
#   corpus FILE [N [SEED]]                N stories, one a line of JSON
#   shards DIR [PIECES]                   a data set of 300 stories, 400 pieces
#   tiny FILE                             a run file: 50k parameters on $tmp/data
#   model                                 the shards $tmp/data and a model trained on them: $M
#   denied NAME CODE 'REGEX' TOOL ARG...  as expect, run by an ordinary user ($tmp/ro is a folder
#                                         it may not write, $tmp/secret a file it may not read)
#   terminal                              whether script can make one
#   study_home                            $tmp is the repository root ($root the true one) of studies
#                                         at a size of seconds
#   study NAME                            configs/studies/NAME.sh, twice: its page, its pictures
#   tree DIR                              one hash over all names and bytes below (not locks)
#   flip FILE OFFSET                      turn one bit of a byte
# $tmp is a fresh folder, removed at the end.  $BIN holds the tools.
set -u
BIN=${BIN:-build/bin}
tmp=$(mktemp -d /tmp/chimera-cli-XXXXXX)
trap 'umount "$tmp/full" 2>/dev/null; rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM
passed=0 failed=0 skipped=0
export LC_ALL=C NO_COLOR=1

report() { # NAME OK EXPLANATION
    if [ "$2" = 1 ]; then
        passed=$((passed + 1)); echo "ok   $1"
    else
        failed=$((failed + 1)); echo "FAIL $1"; printf '  %s\n' "$3"
        sed 's/^/  out: /' "$tmp/.out" | head -5
        sed 's/^/  err: /' "$tmp/.err" | head -8
    fi
}
run() { "$@" >"$tmp/.out" 2>"$tmp/.err" </dev/null; code=$?; }
expect() {
    name=$1 want=$2 regex=$3; shift 3
    run "$@"
    ok=1 why=
    # shellcheck disable=SC2254
    case $code in $want) ;; *) ok=0; why="exit code $code, wanted $want: $*" ;; esac
    if [ -n "$regex" ] && ! tr '\n' ' ' <"$tmp/.err" | grep -qE -- "$regex"; then
        ok=0; why="$why stderr does not match: $regex"
    fi
    report "$name" "$ok" "$why"
}
expect_out() {
    name=$1 regex=$2; shift 2
    run "$@"
    ok=1 why=
    [ "$code" = 0 ] || { ok=0; why="exit code $code, wanted 0: $*"; }
    tr '\n' ' ' <"$tmp/.out" | grep -qE -- "$regex" || { ok=0; why="$why stdout does not match: $regex"; }
    report "$name" "$ok" "$why"
}
check() { name=$1; shift; run "$@"; report "$name" "$([ "$code" = 0 ] && echo 1 || echo 0)" "exit code $code: $*"; }
same() {
    : >"$tmp/.out"; : >"$tmp/.err"
    report "$1" "$([ "$2" = "$3" ] && echo 1 || echo 0)" "'$2' is not '$3'"
}
absent() {
    name=$1 found=; shift
    for path in "$@"; do [ -e "$path" ] && found="$found $path"; done
    same "$name" "$found" ""
}
json() {
    if command -v python3 >/dev/null 2>&1; then
        check "$1" python3 -c 'import json, sys
def ok(s):
    try: json.loads(s, parse_constant=lambda c: 1 / 0); return True
    except Exception: return False
text = open(sys.argv[1]).read()
sys.exit(not (ok(text) or all(map(ok, text.splitlines()))))' "$2"
    elif command -v node >/dev/null 2>&1; then
        check "$1" node -e '
const ok = s => { try { JSON.parse(s); return true } catch { return false } };
const text = require("fs").readFileSync(process.argv[1], "utf8");
process.exit(ok(text) || text.trim().split("\n").every(ok) ? 0 : 1)' "$2"
    else
        skip "$1" "neither python3 nor node to read JSON with"
    fi
}
# Whether a terminal can be had: a program, and a place for pseudo-terminals.
terminal() { script -qec true /dev/null >/dev/null 2>&1 </dev/null; }
# A sanitizer wants terabytes of addresses and memory of its own beside the program's.
sanitized() { case $BIN in *asan*) ;; *) return 1 ;; esac; }
skip() { skipped=$((skipped + 1)); echo "skip $1: $2"; }
finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ] && [ $((passed + skipped)) -gt 0 ]
}

# The disk fills up after some bytes, from a few to most of what the command writes.
disk_full() {
    what=$1 dir=$2; shift 2
    if ! "${CC:-cc}" -shared -fPIC -o "$tmp/enospc.so" tests/cli/enospc.c -ldl 2>"$tmp/.err"; then
        skip "$what: disk full" "no compiler for the shim"
        return
    fi
    for bytes in ${DISK_FULL_BYTES:-0 100 5000 20000}; do
        expect "$what: disk full after $bytes bytes" 7 "No space left on device" \
            env LD_PRELOAD="$tmp/enospc.so" NOSPC_BYTES="$bytes" \
            ASAN_OPTIONS="${ASAN_OPTIONS:-}:verify_asan_link_order=0" "$@"
        same "$what: nothing half-written after $bytes bytes" \
            "$(find "$dir" -name '*.tmp' -o -name '.tmp-*' 2>/dev/null)" ""
    done
}

# What the machine has stands in a file that the shim puts in place of /proc/meminfo.
poor() {
    kb=$1 what=$2 want=$3 regex=$4; shift 4
    if ! "${CC:-cc}" -shared -fPIC -o "$tmp/meminfo.so" tests/cli/meminfo.c -ldl 2>"$tmp/.err"; then
        skip "$what" "no compiler for the shim"
        return
    fi
    printf 'MemAvailable: %d kB\nSwapFree: %d kB\n' "$kb" "${swap:-0}" >"$tmp/.meminfo"
    expect "$what" "$want" "$regex" env LD_PRELOAD="$tmp/meminfo.so" MEMINFO="$tmp/.meminfo" \
        ASAN_OPTIONS="${ASAN_OPTIONS:-}:verify_asan_link_order=0" "$@"
}

corpus() { "$BIN/world" --seed "${3:-3}" --count "${2:-300}" >"$1"; }
shards() {
    [ -e "$tmp/corpus.jsonl" ] || corpus "$tmp/corpus.jsonl"
    "$BIN/tokenize" --quiet tokenize.out="$1" "tokenize.inputs=$tmp/corpus.jsonl" \
        "tokenize.vocab_size=${2:-400}" tokenize.val_frac=0.1 >/dev/null
}
tiny() {
    cat >"$1" <<END
name: tiny
threads: 1
# A section of another tool, as in a shared run file.
tokenize:
  vocab_size: 400
model:
  d_model: 32
  n_layers: 2
  pattern: MA
  ffn: E
  n_heads: 2
  n_kv_heads: 2
  n_experts: 4
  d_expert: 32
  ssm_state: 16
  ssm_head_dim: 32
  ssm_chunk: 32
  context: 128
data:
  shards: $tmp/data
  seq_len: 64
  batch_tokens: 512
sched:
  tokens: 5120
val:
  every: 5
  tokens: 1000
  samples: 1
  sample_tokens: 8
log:
  every: 1
ckpt:
  every: 5
END
}
model() {
    shards "$tmp/data"
    tiny "$tmp/tiny.yaml"
    "$BIN/pretrain" --config "$tmp/tiny.yaml" --runs "$tmp/runs" --quiet "$@" || echo "no model" >&2
    M=$tmp/runs/tiny/ckpt/latest
}
# Tokens in the requests (all, or a RANGE A,B) of `eval.tokens=true` items on stdin, and nodes of their prefix tree,
# of token[0,n-1) each: sorted, what two neighbours share is what any two before them share.
prefix_tree() {
    grep -o '"token":\[[0-9,]*,' | sed -n "${1:-1,\$}{s/.*\[//;p}" | LC_ALL=C sort | awk -F, '
        { for (k = 1; k < NF && k < m && $k == last[k]; k++);
          nodes += NF - k; all += NF - 1
          for (; k < NF; k++) last[k] = $k
          m = NF }
        END { print all, nodes }'
}
# An ordinary user: $as runs a command as one when we are root; false where that cannot be.
ordinary() {
    as=
    [ "$(id -u)" != 0 ] && return 0
    for as in "setpriv --reuid=65534 --regid=65534 --clear-groups" "runuser -u nobody --"; do
        $as true 2>/dev/null && return 0
    done
    return 1
}
denied() {
    what=$1 want=$2 regex=$3 tool=$4; shift 4
    ordinary || { skip "$what" "root, and cannot become another user"; return; }
    mkdir -p "$tmp/ro"; : >"$tmp/secret"
    cp "$BIN/$tool" "$tmp/$tool"
    chmod -R a+rX "$tmp"; chmod 555 "$tmp/ro"; chmod 000 "$tmp/secret"
    # shellcheck disable=SC2086
    expect "$what" "$want" "$regex.*Permission denied" $as "$tmp/$tool" "$@"
    same "$what: nothing written" "$(ls -A "$tmp/ro")" ""
}
study_home() {
    root=$PWD
    mkdir -p "$tmp/build"
    ln -s "$(realpath "$BIN")" "$tmp/build/bin"
    for f in bench configs data eval; do ln -s "$root/$f" "$tmp/$f"; done
    export SMALL=1 OMP_NUM_THREADS=1
    cd "$tmp" || exit 1
}
study() {
    page=runs/study-small-docs/$1.md
    expect "study $1" 0 "$1.md" sh "configs/studies/$1.sh"
    check "$1: a table" grep -q '^| ' "$page"
    same "$1: without holes" "$(grep -cE '\| *-?(nan|inf)' "$page")" 0
    check "$1: a picture" test -s "runs/study-small-docs/$1.svg"
    cp "$page" first.md
    expect "study $1: again" 0 "" sh "configs/studies/$1.sh"
    check "$1: the same page" cmp first.md "$page"
    same "$1: no run is newer than its page" \
        "$(find runs -name metrics.jsonl -newer first.md | grep -vc -- '-mean/')" 0
    # The page in docs is written around such a block.
    check "$1: docs have its numbers" grep -q '^<!-- end numbers' "$root/docs/studies/$1.md"
    for picture in runs/study-small-docs/"$1"*.svg; do
        check "docs have ${picture##*/}" test -s "$root/docs/studies/${picture##*/}"
    done
}
tree() { (cd "$1" && find . ! -name lock \( -type f -o -type l \) | LC_ALL=C sort |
    while read -r f; do
        echo "$f"; if [ -L "$f" ]; then readlink "$f"; else cat "$f"; fi
    done | sha256sum | cut -c 1-16); }
flip() {
    byte=$(od -An -tu1 -j "$2" -N 1 "$1" | tr -d ' ')
    # shellcheck disable=SC2059
    printf "$(printf '\\%03o' $((byte ^ 16)))" |
        dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}
