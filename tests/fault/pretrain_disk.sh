#!/bin/sh
# pretrain_disk.sh -- order of system calls in a save; full disk at every write of one;
# folders that cannot be written; signals; a second process.
. tests/fault/lib.sh
tiny_data
tiny_config
export CM_SHIM_UNDER=/ckpt
yes_no() { "$@" >/dev/null 2>&1 && echo 1 || echo 0; }

# ---- order: each file written, synced, renamed; the folder synced, renamed; its parent synced
run env LD_PRELOAD="$shim" CM_SHIM_LOG="$tmp/log" CM_SHIM_KILL=100000 "$BIN/pretrain" \
    --config "$tmp/tiny.yaml" --runs "$tmp/runs" name=traced
awk '
    { base = $2; sub(/.*\//, "", base) }
    /^write /  { dirty[$2] = 1; n_write++ }
    /^fsync /  { dirty[$2] = 0; synced[$2] = NR }
    /^rename / && $3 ~ /\/step-[0-9]+$/ {
        for (f in dirty) if (dirty[f]) { print "renamed with " f " not synced"; exit }
        if (synced[$2] < inner) { print $2 " not synced after its last file"; exit }
        parent = $3; sub(/\/[^\/]*$/, "", parent); placed = NR; n_ckpt++; next
    }
    /^rename / && $3 ~ /\/latest$/ {
        if (synced[parent] < placed) { print "latest moved before " parent " was synced"; exit }
        moved = NR; next
    }
    /^rename / && $2 ~ /\.tmp-step-/ {
        if (dirty[$2]) { print $2 " renamed before fsync"; exit }
        inner = NR; n_file++
    }
    END { if (n_ckpt != 12 || n_file < 12 * 6 || synced[parent] < moved)
              print "trace incomplete: " n_ckpt " checkpoints, " n_file " files" }
' "$tmp/log" >"$tmp/verdict"
report "trace: write, fsync, rename, fsync of the folder, latest last" \
    "$([ ! -s "$tmp/verdict" ] && echo 1 || echo 0)" "$(cat "$tmp/verdict")"
writes=$(awk '/^write / { n++ } /\/latest$/ { print n; exit }' "$tmp/log")

# ---- full disk at each write of one save, after good checkpoints
run env LD_PRELOAD="$shim" CM_SHIM_KILL=130 "$BIN/pretrain" --config "$tmp/tiny.yaml" \
    --runs "$tmp/runs" name=full
rm -rf "$tmp/runs/full/ckpt"/.[a-z]*
cp -r "$tmp/runs/full" "$tmp/base"
before=$(ls "$tmp/base/ckpt")
bad= n=1
while [ $n -le "$writes" ] && [ -z "$bad" ]; do
    rm -rf "$tmp/runs/full"; cp -r "$tmp/base" "$tmp/runs/full"
    run env LD_PRELOAD="$shim" CM_SHIM_ENOSPC=$n "$BIN/pretrain" --config "$tmp/tiny.yaml" \
        --runs "$tmp/runs" name=full
    [ $code = 7 ] || bad="write $n: exit code $code"
    grep -q "No space left" "$tmp/.err" || bad="$bad write $n: no sentence"
    [ "$(ls "$tmp/runs/full/ckpt")" = "$before" ] || bad="$bad write $n: other checkpoints"
    [ "$(leftovers full)" = 0 ] || bad="$bad write $n: leftovers"
    whole full || bad="$bad write $n: damaged"
    n=$((n + 1))
done
report "disk full at each of the $writes writes of a save: exit 7, nothing lost" \
    "$([ -z "$bad" ] && [ "$writes" -ge 6 ] && echo 1 || echo 0)" "$bad"
check "and with space again the run finishes" pretrain name=full
report "in the bits of an undisturbed run" "$([ "$(final full)" = "$(final traced)" ] && echo 1 || echo 0)" ""
expect "disk full for the metrics" 7 "No space left" env LD_PRELOAD="$shim" \
    CM_SHIM_UNDER=metrics.jsonl CM_SHIM_ENOSPC=3 "$BIN/pretrain" --config "$tmp/tiny.yaml" \
    --runs "$tmp/runs" name=rows

# ---- folders that cannot be written, root or not
: >"$tmp/file"
expect "runs folder below a file" 1 "Not a directory" "$BIN/pretrain" \
    --config "$tmp/tiny.yaml" --runs "$tmp/file/runs" name=x
expect "runs folder where nobody may write" 1 "/proc/" "$BIN/pretrain" \
    --config "$tmp/tiny.yaml" --runs /proc/chimera name=x

# ---- a folder in use, signals, STOP and SAVE
spawn name=busy sched.tokens=64M log.every=100 ckpt.every=100000 val.every=0
wait_for() { k=0; until "$@" >/dev/null 2>&1; do k=$((k + 1)); [ $k -lt 100 ] || return 1; sleep 0.1; done; }
wait_for test -s "$tmp/runs/busy/metrics.jsonl"
expect "a second process in the folder" 2 "$pid" "$BIN/pretrain" --config "$tmp/tiny.yaml" \
    --runs "$tmp/runs" name=busy
touch "$tmp/runs/busy/SAVE"
report "SAVE saves and goes on" "$(yes_no wait_for test -e "$tmp/runs/busy/ckpt/latest")" ""
report "and is used up" "$(yes_no test ! -e "$tmp/runs/busy/SAVE")" ""
kill -TERM $pid; wait $pid; code=$?
report "SIGTERM saves and dies of it" "$([ $code = 143 ] && echo 1 || echo 0)" "code $code"
report "status is interrupted" "$(yes_no grep -q '"state":"interrupted"' "$tmp/runs/busy/status.json")" "$(cat "$tmp/runs/busy/status.json")"
report "its checkpoints are whole" "$(yes_no whole busy)" ""

# Stopped in the middle and resumed: the same bits.
spawn name=term
wait_for test -e "$tmp/runs/term/ckpt/latest"; kill -TERM $pid 2>/dev/null; wait $pid
check "resumes after SIGTERM" pretrain name=term --if-done skip
report "and ends in the same bits" "$([ "$(final term)" = "$(final traced)" ] && echo 1 || echo 0)" ""
spawn name=stop sched.tokens=64M val.every=0
wait_for test -e "$tmp/runs/stop/ckpt/latest"; touch "$tmp/runs/stop/STOP"; wait $pid; code=$?
report "STOP saves and ends" "$([ $code = 0 ] && echo 1 || echo 0)" "code $code"
report "its checkpoints are whole too" "$(yes_no whole stop)" ""
report "and the run counts as unfinished" \
    "$(yes_no grep -q '"interrupted"' "$tmp/runs/stop/status.json")" "$(cat "$tmp/runs/stop/status.json")"
finish
