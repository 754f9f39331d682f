#!/bin/sh
# deps.sh -- install the packages Chimera builds and runs with (Debian and relatives).
# usage: deps.sh [test]     `test` adds what only the tests need.  Does nothing, quickly, when all
# are there.  Uses apt-get as root, or through sudo when that asks no password.
set -u
pkgs="gcc g++ libc6-dev libopenblas-dev libzstd-dev libsentencepiece-dev libyaml-dev
      libcjson-dev libpcre2-dev zlib1g-dev libssl-dev"
[ "${1:-}" = test ] && pkgs="$pkgs git zstd libsimde-dev nodejs npm ca-certificates"
missing=
for p in $pkgs; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' && continue
    # Node may come from elsewhere than Debian.
    case $p in nodejs | npm) command -v "${p%js}" >/dev/null 2>&1 && continue ;; esac
    missing="$missing $p"
done
[ -z "$missing" ] && exit 0
command -v apt-get >/dev/null 2>&1 || {
    echo "deps: error: this system has no apt-get; install the equivalents of:$missing" >&2
    exit 1
}
if [ "$(id -u)" = 0 ]; then as=
elif sudo -n true 2>/dev/null; then as="sudo -n"
else
    echo "deps: error: packages are missing and need root; run:" >&2
    echo "  sudo apt-get install$missing" >&2
    exit 1
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
# shellcheck disable=SC2086
{ $as apt-get update -qq && $as apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    echo "deps: error: apt-get could not install:$missing" >&2
    rm -f "$log"
    exit 1
}
rm -f "$log"
