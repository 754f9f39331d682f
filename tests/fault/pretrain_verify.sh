#!/bin/sh
# pretrain_verify.sh -- `pretrain --verify-resume` finds a difference when there is one: a bit of the
# checkpoint it resumes from is turned while it is saved, before the sums are taken over it.
. tests/fault/lib.sh
tiny_data
tiny_config
verify() { # FILE N: turn a bit in the N-th write of that file, in the resumed half only
    env LD_PRELOAD="$shim" CM_SHIM_UNDER="resumed/.tmp-step-00000003/$1" CM_SHIM_FLIP="$2" CM_SHIM_LOG="$tmp/log" \
        "$BIN/pretrain" --config "$tmp/tiny.yaml" --runs "$tmp/runs" --quiet name=v --verify-resume=3
}
expect "nothing turned: verified" 0 "" verify model.safetensors 0
same "the checkpoint was seen being written" "$(grep -c '^write .*model.safetensors' "$tmp/log")" 1
for f in model.safetensors optimizer.safetensors; do
    rm -f "$tmp/log"
    expect "a bit turned in $f: found" 3 \
        "resuming at step 3 changed the bits of step 6: (model|optimizer).safetensors differs" verify $f 1
    check "$f: the bit was turned" test -s "$tmp/log"
done
absent "no scratch folder stays" "$tmp/runs/.verify-resume-v"
finish
