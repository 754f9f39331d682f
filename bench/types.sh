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
for f in "$text" ${calib:+"$calib"}; do
    [ -f "$f" ] || { echo "bench/types.sh: $f: no such file" >&2; exit 2; }
done
mkdir -p "$out"
table=$out/types.md.tmp list=$out/types.json.tmp # the tables appear when they are whole
trap 'rm -f "$table" "$list"' EXIT
im=
if [ -n "$calib" ]; then
    im=$out/imatrix.gguf
    "$BIN/quantize" --quiet --model "$model" --calibration "$calib" quantize.imatrix_out="$im" "$@"
fi
value() { sed -n "s/.*\"$1\":{*\(\"value\":\)*\"*\([^,\"}]*\).*/\2/p" "$2"; } # KEY CARD
{
    echo "| type | file, MB | bits per weight | perplexity ratio | KL mean, nats | KL 99% | same top token, % |"
    echo "|---|---|---|---|---|---|---|"
} >"$table"
printf '[' >"$list"
comma=
for t in $TYPES; do
    f=$out/$t.gguf
    "$BIN/quantize" --quiet --model "$model" --type "$t" --out "$f" --card "$text" ${im:+--imatrix "$im"} quantize.max_kl=100 "$@" >/dev/null
    c=$f.card.json
    printf '| %s | %.2f | %.3f | %.5f | %.6f | %.5f | %.2f |\n' "$(value type "$c")" \
        "$(awk "BEGIN { print $(value file_bytes "$c") / 1e6 }")" "$(value bits_per_weight "$c")" "$(value ppl_ratio "$c")" \
        "$(value kl "$c")" "$(value kl_99 "$c")" "$(awk "BEGIN { print 100 * $(value same_top1 "$c") }")" >>"$table"
    printf '%s\n%s' "$comma" "$(cat "$c")" >>"$list"
    comma=,
    [ "${KEEP:-yes}" = yes ] || rm -f "$f"
done
echo ']' >>"$list"
printf '\nAgainst %s on %s, %s positions; importances: %s. One row a file, beside it its card.\n' "$model" "$text" \
    "$(value positions "$c")" "$(value importances "$c" | sed 's/^$/none/')" >>"$table"
mv "$table" "$out/types.md"
mv "$list" "$out/types.json"
cat "$out/types.md"
