#!/bin/sh
# pretrain_kill.sh -- kill -9 at any moment: the run resumes and ends in the same bits.
# KILLS=10 by default; half of them at a chosen file call inside a save, half by the clock.
. tests/fault/lib.sh
: "${KILLS:=10}"
tiny_data
tiny_config
check "a run without interruption" pretrain name=ref
ref=$(final ref)
export CM_SHIM_UNDER=/ckpt
seed=12345
rnd() { # 1..$1, the same every time
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    r=$((seed / 65536 % $1 + 1))
}
# 12 steps take: the clock kills within that.
start=$(date +%s%N); pretrain name=timing --quiet >/dev/null 2>&1
span=$((($(date +%s%N) - start) / 1000000))
done_runs=0 inside=0 by_clock=0 bad=
i=0
while [ $i -lt "$KILLS" ] && [ -z "$bad" ]; do
    if [ $((i % 2)) = 0 ]; then
        rnd 90; n=$r
        LD_PRELOAD=$shim CM_SHIM_KILL=$n "$BIN/pretrain" --config "$tmp/tiny.yaml" \
            --runs "$tmp/runs" name=victim >"$tmp/.out" 2>"$tmp/.err"
        code=$?
        [ $code = 137 ] && inside=$((inside + 1))
    else
        rnd $((span - 20)); ms=$r
        spawn name=victim
        sleep "$(printf '%d.%03d' $((ms / 1000)) $((ms % 1000)))"
        kill -9 $pid 2>/dev/null; wait $pid 2>/dev/null; code=$?
        [ $code = 137 ] && by_clock=$((by_clock + 1))
    fi
    grep -q "damaged\|cannot be trusted" "$tmp/.err" && bad="a kill left a damaged checkpoint"
    case $code in
    137) i=$((i + 1)) ;;
    0)
        [ "$(final victim)" = "$ref" ] || bad="weights differ after kill $i"
        done_runs=$((done_runs + 1))
        rm -rf "$tmp/runs/victim" ;;
    *) bad="exit code $code after kill $i" ;;
    esac
done
report "$KILLS kills ($inside inside a save, $by_clock by the clock): always resumes" \
    "$([ -z "$bad" ] && echo 1 || echo 0)" "$bad"
report "at least a fifth of the kills are inside a save" "$([ $((inside * 5)) -ge "$KILLS" ] && echo 1 || echo 0)" "$inside"
check "the last one finishes" pretrain name=victim
report "with the weights of an uninterrupted run" "$([ -n "$ref" ] && [ "$(final victim)" = "$ref" ] && echo 1 || echo 0)" "$(final victim)"
report "nothing left over" "$([ "$(leftovers victim)" = 0 ] && echo 1 || echo 0)" ""
finish
