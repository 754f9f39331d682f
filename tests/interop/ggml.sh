#!/bin/sh
# ggml.sh -- ggml_test with the libggml of node-llama-cpp: decoders to the bit, encoders' errors.
# usage: tests/interop/ggml.sh, from the repository root (make interop).  Skipped without npm.
set -u
here=$(cd "$(dirname "$0")" && pwd)
work=build/interop
. "$here/setup.sh"
mkdir -p "$work"
[ -f "$work/package.json" ] || echo '{"private": true}' >"$work/package.json"
find_llama "$work" || {
    echo "skip ggml: no library to compare with"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
}
GGML=$(find "$(realpath "$work")/node_modules/@node-llama-cpp/linux-x64/" -name libggml-base.so | head -1)
export GGML
weights=runs/demo/ckpt/latest/model.safetensors
[ ! -f "$weights" ] || export WEIGHTS="${WEIGHTS:-$weights}"
exec "${GGML_TEST:-build/release/test/interop/ggml_test}" "$@"
