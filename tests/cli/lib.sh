# lib.sh -- command-line cases: sourced by tests/cli/*.sh, run from the repository root.
#
#   expect NAME CODE 'REGEX' COMMAND...   run; compare the exit code, and match the extended
#                                         regex against stderr (empty: anything)
#   expect_out NAME 'REGEX' COMMAND...    exit 0 and stdout matches
#   check NAME COMMAND...                 exit 0
#   finish                                prints `N passed, N failed, N skipped`
# $tmp is a fresh folder, removed at the end.  $BIN holds the tools.
set -u
BIN=${BIN:-build/bin}
tmp=$(mktemp -d /tmp/chimera-cli-XXXXXX)
trap 'rm -rf "$tmp"' EXIT
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
    [ "$code" = "$want" ] || { ok=0; why="exit code $code, wanted $want: $*"; }
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
skip() { skipped=$((skipped + 1)); echo "skip $1: $2"; }
finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ] && [ $((passed + skipped)) -gt 0 ]
}
