#!/bin/sh
# types.sh -- every type of one model: a GGUF file and its quality card each, one table of all.
#
# usage: bench/types.sh MODEL TEXT OUT [CALIBRATION]
# OUT gets TYPE.gguf with its card, types.md and types.json (the cards as one array).  TYPES: which
# ones (default all).  KEEP=no removes each file once its card is there.  Words after -- go to quantize.
set -eu
BIN=${BIN:-build/bin}
[ $# -ge 3 ] || { echo "usage: bench/types.sh MODEL TEXT OUT [CALIBRATION] [-- WORDS]" >&2; exit 2; }
model=$1 text=$2 out=$3 calib=
shift 3
if [ $# -gt 0 ] && [ "$1" != -- ]; then calib=$1; shift; fi
[ $# = 0 ] || shift
: "${TYPES:=f16 bf16 q8_0 q6_k q5_k_m q5_1 q5_0 q4_k_m q4_k_s q4_1 q4_0 iq4_nl iq4_xs q3_k_m q2_k}"
mkdir -p "$out"
im=
if [ -n "$calib" ]; then
    im=$out/imatrix.gguf
    "$BIN/quantize" --quiet --model "$model" --calibration "$calib" quantize.imatrix_out="$im" "$@"
fi
value() { sed -n "s/.*\"$1\":{*\(\"value\":\)*\"*\([^,\"}]*\).*/\2/p" "$2"; } # KEY CARD
{
    echo "| type | file, MB | bits per weight | perplexity ratio | KL mean, nats | KL 99% | same top token, % |"
    echo "|---|---|---|---|---|---|---|"
} >"$out/types.md"
printf '[' >"$out/types.json"
comma=
for t in $TYPES; do
    f=$out/$t.gguf
    "$BIN/quantize" --quiet --model "$model" --type "$t" --out "$f" --card "$text" ${im:+--imatrix "$im"} quantize.max_kl=100 "$@" >/dev/null
    c=$f.card.json
    printf '| %s | %.2f | %.3f | %.5f | %.6f | %.5f | %.2f |\n' "$(value type "$c")" \
        "$(awk "BEGIN { print $(value file_bytes "$c") / 1e6 }")" "$(value bits_per_weight "$c")" "$(value ppl_ratio "$c")" \
        "$(value kl "$c")" "$(value kl_99 "$c")" "$(awk "BEGIN { print 100 * $(value same_top1 "$c") }")" >>"$out/types.md"
    printf '%s\n%s' "$comma" "$(cat "$c")" >>"$out/types.json"
    comma=,
    [ "${KEEP:-yes}" = yes ] || rm -f "$f"
done
echo ']' >>"$out/types.json"
printf '\nAgainst %s on %s, %s positions; importances: %s. One row a file, beside it its card.\n' "$model" "$text" \
    "$(value positions "$c")" "$(value importances "$c" | sed 's/^$/none/')" >>"$out/types.md"
cat "$out/types.md"
