#!/bin/sh
# regress.sh -- verdicts and exit codes, reports, refusals, baselines, tables, curves.
. tests/cli/lib.sh
R="$BIN/regress"
MK=build/release/test/cli/mkresult
[ -x "$MK" ] || make -s $MK
make_result() { "$MK" "$@" || echo "no result $1" >&2; }
said() { # NAME REGEX: of the last command's output
    report "$1" "$(tr '\n' ' ' <"$tmp/.out" | grep -qE -- "$2" && echo 1 || echo 0)" "stdout does not match: $2"
}

# ---- simulated evaluations: `base`, its equal, a worse one, ones that cannot be compared
make_result "$tmp/base" n=1200 groups=60
make_result "$tmp/equal" n=1200 groups=60 model=e seed=2
make_result "$tmp/worse" n=1200 groups=60 model=w seed=3 skill=0.6
make_result "$tmp/small" n=40 seed=4 noise=0.5
make_result "$tmp/small2" n=40 seed=5 noise=0.5 model=s
make_result "$tmp/version" n=1200 groups=60 version=2
make_result "$tmp/items" n=1200 groups=60 word=other
make_result "$tmp/fewer" n=1200 groups=60 drop=100

# ---- and measurements
printf '{"tok_per_s":[101,103,99,100,102,98,104,100,101,99]}' >"$tmp/fast.json"
printf '{"tok_per_s":[81,83,79,80,82,78,84,80,81,79]}' >"$tmp/slow.json"

# ---- verdicts
expect_out "equals pass" "^PASS: .*choice acc .*PASS" $R "$tmp/base" "$tmp/equal"
expect "a loss fails" 3 "" $R "$tmp/base" "$tmp/worse"
said "the line says so first" "^FAIL: .*choice/acc"
expect "few noisy items: inconclusive" 5 "" $R "$tmp/small" "$tmp/small2"
said "and how many it takes" "^INCONCLUSIVE: "
expect_out "the same result twice" "choice items: 0 worse, 0 better, 1200 the same" $R "$tmp/base" "$tmp/base"
expect "a margin can be widened" 0 "" $R "$tmp/base" "$tmp/worse" \
    'regress.margins=[choice/acc=0.5, text/bits_per_byte=50%]'
expect "the worst of several candidates decides" 3 "" $R "$tmp/base" "$tmp/equal" "$tmp/worse"
said "each has its part" "^FAIL: of 2 candidates 1 pass, 1 fail, 0 inconclusive"
expect "with a page" 3 "" $R "$tmp/base" "$tmp/equal" "$tmp/worse" --report "$tmp/many.html"
has() { # NAME FILE REGEX: the page, as one line, matches
    check "$1" sh -c 'tr "\n" " " <"$1" | grep -qE -- "$2"' - "$2" "$3"
}
cell='<td class="(n|key)"><span class="v'
has "an overview before the parts" "$tmp/many.html" '<th>candidate</th>.*<td class="key">[^<]*/equal</td>.*<td class="key">[^<]*/worse</td>.*</table>.*<section>'
has "each candidate's verdict and differences in it" "$tmp/many.html" \
    "/equal</td> $cell pass\">PASS</span></td>$cell pass\">[-+0-9.]+ pp</span></td>$cell pass\">[-+0-9.e]+</span></td></tr>"
has "the loser's are marked" "$tmp/many.html" "/worse</td> $cell fail\">FAIL</span></td>$cell fail\">-[0-9.]+ pp</span>"
same "one candidate needs none" "$($R "$tmp/base" "$tmp/worse" --report "$tmp/one.html" >/dev/null
    grep -c '<th>candidate</th>' "$tmp/one.html")" 0
expect "measurements too" 3 "" $R "$tmp/base" "$tmp/equal" "$tmp/worse" --perf "$tmp/fast.json" --perf "$tmp/slow.json" \
    --perf "$tmp/fast.json" --report "$tmp/many.html"
has "in the overview" "$tmp/many.html" "/equal</td> $cell fail\">FAIL</span></td>.*$cell fail\">-20\.00%</span></td></tr>.*<section>"
has "before the items" "$tmp/many.html" "<h3>Performance</h3>.*<h3>Items that changed</h3>.*<h3>Performance</h3>.*<h3>Items"
lower=' <span class="soft" title="lower is better">'
has "what is better lower is marked" "$tmp/one.html" "text bits_per_byte$lower"
same "what is better higher, or not judged, is not" \
    "$(tr '\n' ' ' <"$tmp/one.html" | grep -cE "(choice acc|choice margin|choice conf)$lower")" 0
has "grey rows' Holm p is explained" "$tmp/one.html" "over the 2 deciding comparisons; in grey rows, over all grey ones. MDE"
expect "one named twice counts once" 3 "named twice" $R "$tmp/base" "$tmp/worse" "$tmp/base"
said "and is left out" "^FAIL: 2 of 2 gating"
$R "$tmp/base" "$tmp/worse" --json >"$tmp/j.json" 2>/dev/null
json "--json" "$tmp/j.json"
same "two runs print the same" "$($R "$tmp/base" "$tmp/worse")" "$($R "$tmp/base" "$tmp/worse")"

# ---- what cannot be compared
expect "another task version" 4 "choice.*version" $R "$tmp/base" "$tmp/version"
expect "other items" 4 "choice" $R "$tmp/base" "$tmp/items"
expect "fewer items" 4 "choice" $R "$tmp/base" "$tmp/fewer"
expect "one result" 2 "baseline and at least one" $R "$tmp/base"
expect "nothing at all" 2 "baseline" $R
expect "no such result" 2 "none: no evaluation here" $R "$tmp/base" "$tmp/none"
mkdir "$tmp/void"
expect "an empty folder" 2 "void: no evaluation here" $R "$tmp/base" "$tmp/void"
damage() { # NAME FILE REGEX: what stdin makes of FILE
    rm -rf "$tmp/hurt" && cp -r "$tmp/base" "$tmp/hurt"
    cat >"$tmp/new" && mv "$tmp/new" "$tmp/hurt/$2"
    expect "$1" 4 "hurt/?($2)?.*$3" $R "$tmp/base" "$tmp/hurt"
}
size=$(wc -c <"$tmp/base/items.jsonl.zst")
for keep in 0 4 $((size / 2)) $((size - 1)); do
    head -c $keep "$tmp/base/items.jsonl.zst" | damage "items cut after $keep bytes" items.jsonl.zst "."
done
head -c 300 "$tmp/base/results.json" | damage "results.json cut" results.json "cut in the middle"
printf '' | damage "results.json empty" results.json "cut in the middle"
sed 's/"schema":1/"schema":9/' "$tmp/base/results.json" | damage "another schema" results.json "schema 9"
sed 's/"complete":true/"complete":false/' "$tmp/base/results.json" | damage "incomplete" results.json "incomplete"
sed 's/"tasks":\[.*\],"metrics"/"tasks":[],"metrics"/' "$tmp/base/results.json" |
    damage "no tasks" results.json "nothing to compare"
sed 's/"value":0\.[0-9]*/"value":0.9/' "$tmp/base/results.json" | damage "edited by hand" results.json "the items give"
if command -v zstd >/dev/null 2>&1; then
    zstd -qdc "$tmp/base/items.jsonl.zst" >"$tmp/items.jsonl"
    sed '3s/"acc":[01]/"acc":"nan"/' "$tmp/items.jsonl" | zstd -qc | damage "a NaN score" items.jsonl.zst ":3: item.*acc is nan"
    sed '2p' "$tmp/items.jsonl" | zstd -qc | damage "an item twice" items.jsonl.zst "more than its|twice"
    sed '2d' "$tmp/items.jsonl" | zstd -qc | damage "an item lost" items.jsonl.zst "1499 items, but"
else
    skip "changed items" "no zstd program"
fi

expect "regress.exact" 3 "" $R "$tmp/base" "$tmp/equal" regress.exact=true
said "they changed, for better or worse" "^FAIL: 2 of 2 gating comparisons changed"

# ---- reports
expect "all formats" 3 "" $R "$tmp/base" "$tmp/worse" --report "$tmp/r.html" --report "$tmp/r.md" \
    --report "$tmp/r.json" --report "$tmp/r.xml"
json "JSON report" "$tmp/r.json"
same "HTML fetches nothing" "$(grep -oE '(src|href|url)[=(][^ >]*|@import|<script[^>]*|<link[^>]*' "$tmp/r.html")" ""
same "no address in it but SVG's name" "$(grep -oE '[a-z]+://[^" <]*' "$tmp/r.html" | sort -u)" "http://www.w3.org/2000/svg"
check "HTML has both colour schemes" grep -q "prefers-color-scheme:dark" "$tmp/r.html"
check "HTML shows items" grep -q 'Is &lt;this&gt; &quot;right&quot; &amp; proper?' "$tmp/r.html"
same "HTML lets no markup through" "$(grep -c '<this>' "$tmp/r.html")" 0
same "Markdown neither" "$(grep -c '<this>' "$tmp/r.md")" 0
check "Markdown begins with the verdict" sh -c "head -1 '$tmp/r.md' | grep -q 'FAIL: 2 of 2'"
check "HTML names its commands" grep -q "regress $tmp/base $tmp/worse" "$tmp/r.html"
xml() { # NAME FILE: well-formed
    if command -v python3 >/dev/null 2>&1; then
        check "$1" python3 -c 'import sys, xml.dom.minidom as m; m.parse(sys.argv[1])' "$2"
    elif command -v xmllint >/dev/null 2>&1; then check "$1" xmllint --noout "$2"
    else skip "$1" "neither python3 nor xmllint"; fi
}
xml "JUnit is well-formed" "$tmp/r.xml"
same "JUnit: a case a metric" "$(grep -c '<testcase' "$tmp/r.xml")" 8
same "JUnit: gating losses are failures" "$(grep -c '<failure' "$tmp/r.xml")" 2
check "JUnit counts them" grep -q 'tests="8" failures="2" errors="0"' "$tmp/r.xml"
$R "$tmp/small" "$tmp/small2" --report "$tmp/u.xml" >/dev/null
check "JUnit: inconclusive is skipped, with its reason" grep -q '<skipped message="INCONCLUSIVE: ' "$tmp/u.xml"
same "JUnit: and no failure" "$(grep -c '<failure' "$tmp/u.xml")" 0
expect "refusals are reported" 4 "version" $R "$tmp/base" "$tmp/version" --report "$tmp/e.xml" \
    --report "$tmp/e.html" --report "$tmp/e.md" --report "$tmp/e.json"
check "JUnit: incomparable is an error" grep -q 'errors="1".*' "$tmp/e.xml"
xml "and well-formed" "$tmp/e.xml"
check "HTML says it" grep -q "NOT COMPARABLE" "$tmp/e.html"
json "JSON too" "$tmp/e.json"
expect "a format we do not write" 2 "r.pdf.*html" $R "$tmp/base" "$tmp/worse" --report "$tmp/r.pdf"
expect "a report where we cannot write" "[12]" "base/x" $R "$tmp/base" "$tmp/equal" --report "$tmp/base/x/r.md"
expect "--github without GitHub" 2 "GITHUB_STEP_SUMMARY" env -u GITHUB_STEP_SUMMARY $R "$tmp/base" "$tmp/equal" --github
echo before >"$tmp/summary"
expect "--github appends" 0 "" env GITHUB_STEP_SUMMARY="$tmp/summary" $R "$tmp/base" "$tmp/equal" --github
check "what was there stays" sh -c "head -1 '$tmp/summary' | grep -q before && grep -q 'PASS' '$tmp/summary'"
printf old >"$tmp/old.json"
DISK_FULL_BYTES=10 disk_full "report" "$tmp" $R "$tmp/base" "$tmp/equal" --report "$tmp/old.json"
same "a report that was there stays" "$(cat "$tmp/old.json")" old

# ---- seeds
for s in 1 2 3; do
    make_result "$tmp/old-s$s" n=1200 model=o$s seed=1$s
    make_result "$tmp/new-s$s" n=1200 model=n$s seed=2$s
done
expect_out "replicates" "^PASS" $R --replicates "$tmp/old-s*" "$tmp/new-s*"
expect "replicates: one seed a side" 0 "one seed a side" $R --replicates "$tmp/old-s1" "$tmp/new-s1"
for s in 1 2; do cp -r "$tmp/old-s1" "$tmp/cp-s$s"; done
expect_out "copies are no seeds" "note: .*copies are no seeds" $R --replicates "$tmp/old-s*" "$tmp/cp-s*" \
    "regress.margins=[choice/acc=0.9, text/bits_per_byte=90%]"
expect_out "the same model is said" "note: .*is the same model" $R "$tmp/base" "$tmp/base"
expect_out "noise in points" "choice acc[^%]*%[^%]* pp[^%]*%[^%]*%[[:space:]]*[0-9.]+ pp" $R --replicates "$tmp/old-s*"
expect_out "one recipe: its noise" "noise floor.*choice acc" $R --replicates "$tmp/old-s*"
$R --replicates "$tmp/old-s*" --json >"$tmp/noise.json"
json "noise as JSON" "$tmp/noise.json"
expect "a pattern without match" 2 "nothing matches" $R --replicates "$tmp/nope-*" "$tmp/new-s*"
expect "noise makes no report" 2 "need a candidate" $R --replicates "$tmp/old-s*" --report "$tmp/n.md"
expect "noise of one" 2 "at least two" $R --replicates "$tmp/old-s1"

# ---- baselines
B="--baselines $tmp/baselines"
expect_out "bless" "is now the baseline" $R bless "$tmp/base" --as main $B
same "both files" "$(ls "$tmp/baselines/main" | tr '\n' ' ')" "items.jsonl.zst results.json "
expect "a blessed name stands for it" 3 "" $R main "$tmp/worse" $B
before=$(tree "$tmp/baselines")
expect "no second time by accident" 2 "replace" $R bless "$tmp/worse" --as main $B
expect "nor something broken" 4 "hurt" $R bless "$tmp/hurt" --as main --replace $B
expect "nor elsewhere" 2 "name" $R bless "$tmp/base" --as ../x $B
DISK_FULL_BYTES=100 disk_full "bless" "$tmp/baselines" $R bless "$tmp/worse" --as main --replace $B
same "the baseline is as it was" "$(tree "$tmp/baselines")" "$before"
before=$(tree "$tmp/baselines")
expect "bless: a dry run" 0 "main: would be written" $R bless "$tmp/worse" --as main --replace $B --dry-run
expect "a dry run of reports" 3 "dry.md: would be written" $R "$tmp/base" "$tmp/worse" --dry-run --report "$tmp/dry.md"
expect "a dry run of --github" 0 "would be written" env GITHUB_STEP_SUMMARY="$tmp/dry.summary" $R "$tmp/base" "$tmp/equal" --github --dry-run
absent "nothing was" "$tmp/dry.md" "$tmp/dry.summary"
same "nor a baseline" "$(tree "$tmp/baselines")" "$before"
expect "--replace" 0 "" $R bless "$tmp/worse" --as main --replace $B
expect "and now worse is the measure" 0 "" $R main "$tmp/worse" $B
same "nothing left over" "$(ls "$tmp/baselines")" main

# ---- runs: their newest evaluation, tables, curves
for s in 1 2 3; do
    mkdir -p "$tmp/runs/s$s"
    printf 'seed: %s\nname: s%s\noptim:\n  lr: 0.00%s\n  kind: adamw\n' $s $s $s >"$tmp/runs/s$s/config.yaml"
    printf '{"val/loss":%s,"val/bpb":%s.5}\n' $((4 - s)) $((4 - s)) >"$tmp/runs/s$s/summary.json"
    for k in 1 2 3 4; do
        printf '{"t":"metrics","seg":1,"step":%s,"train/loss":%s,"moe/expert_load_layer":[[0.5,1.5],[1,1]]}\n' \
            $k $((9 - k))
    done >"$tmp/runs/s$s/metrics.jsonl"
done
printf '{"t":"met' >>"$tmp/runs/s1/metrics.jsonl"
expect "a run without evaluation" 2 "s1: a run without a finished evaluation" $R "$tmp/runs/s1" "$tmp/runs/s2"
make_result "$tmp/runs/s1/eval/suite@1" n=400
make_result "$tmp/runs/s2/eval/suite@2" n=400 model=r2 seed=7
sleep 0.02
make_result "$tmp/runs/s2/eval/suite@3" n=400 model=r3 seed=8 skill=0.5
expect "runs: their newest evaluation" 3 "" $R "$tmp/runs/s1" "$tmp/runs/s2" --report "$tmp/runs.html"
check "with curves" grep -q '<title>train/loss</title>' "$tmp/runs.html"
check "and experts" grep -q 'layer 0, expert 1, step 4: 1.50 of its share' "$tmp/runs.html"
check "and what was set differently" grep -qE 'optim.lr: 0.001 -&gt; 0.002' "$tmp/runs.html"
tab=$(printf '\t')
same "table" "$($R table "$tmp/runs/s*" --cols optim.lr,val/bpb --sort val/bpb)" \
    "run${tab}optim.lr${tab}val/bpb
s3${tab}0.003${tab}1.5
s2${tab}0.002${tab}2.5
s1${tab}0.001${tab}3.5"
same "table: what differs, downwards" "$($R table "$tmp/runs/s*" --sort -seed | head -2 | tr '\t' ' ')" \
    "run seed optim.lr val/loss val/bpb
s3 3 0.003 1 1.5"
expect_out "table: evaluations" "s3 \| +\|" $R table "$tmp/runs/s*" --cols eval/choice/acc --md
$R table "$tmp/runs/s*" --json >"$tmp/t.json"
json "table as JSON" "$tmp/t.json"
echo plot >"$tmp/runs/s-all.svg"
same "table: a plain file among the matches" "$($R table "$tmp/runs/s*" --cols seed | tail -n +2 | wc -l)" 3
expect "table: nothing but files" 2 "s-all\*: matches files, but no folder" $R table "$tmp/runs/s-all*"
expect "table: a folder that is no run" 2 "not a run" $R table "$tmp/bas*"
expect "table: no such column" 2 "optim.zeal.*no run" $R table "$tmp/runs/s*" --cols optim.zeal
expect "table: no such sort" 2 "zeal" $R table "$tmp/runs/s*" --sort zeal
expect "table: not a run" 2 "base: not a run" $R table "$tmp/base"
expect "plot" 0 "" $R plot "$tmp/runs/s*" --metric train/loss --metric moe/expert_load --out "$tmp/p.svg"
xml "a picture" "$tmp/p.svg"
expect "plot: a dry run" 0 "dry.svg: would be written" $R plot "$tmp/runs/s*" --out "$tmp/dry.svg" --dry-run
absent "no picture" "$tmp/dry.svg"
expect "plot as a page" 0 "" $R plot "$tmp/runs/s1" --out "$tmp/p.html"
expect "plot: nobody logged it" 2 "val/zeal: no run" $R plot "$tmp/runs/s*" --metric val/zeal --out "$tmp/p.svg"
expect "plot: nobody logged x" 2 "--x optim.lr: no run logged it beside train/loss" \
    $R plot "$tmp/runs/s*" --metric train/loss --x optim.lr --out "$tmp/p.svg"
expect "plot: nobody logged y, x or not" 2 "--metric val/zeal: no run" \
    $R plot "$tmp/runs/s*" --metric val/zeal --x optim.lr --out "$tmp/p.svg"
expect "plot: one metric against another" 0 "" \
    $R plot "$tmp/runs/s*" --metric train/loss --x train/loss --out "$tmp/p.svg"
mkdir "$tmp/nine"
for s in 1 2 3 4 5 6 7 8 9; do
    mkdir "$tmp/nine/s$s"
    for k in 1 2 3; do printf '{"t":"metrics","step":%s,"train/loss":%s,"val/loss":%s}\n' $k $((k * s)) $((100 + s)); done \
        >"$tmp/nine/s$s/metrics.jsonl"
done
expect "plot: nine runs" 0 "" $R plot "$tmp/nine/s*" --metric train/loss --metric val/loss --out "$tmp/nine.svg"
same "the ninth line is the first's colour, dashed" "$(grep -cE '<path class="line s0( dash)?"' "$tmp/nine.svg")
$(grep -c '<path class="line s0 dash"' "$tmp/nine.svg") $(grep -c '<line [^>]*class="ci s0 dash"' "$tmp/nine.svg")" "4
2 2"
check "a log scale is said" grep -q '>train/loss, log scale</text>' "$tmp/nine.svg"
same "and only that" "$(grep -c '>val/loss</text>' "$tmp/nine.svg")" 1
expect "plot: where to" 2 "svg" $R plot "$tmp/runs/s*"
printf 'x\n' >>"$tmp/runs/s2/metrics.jsonl"
expect "a broken row" 4 "s2/metrics.jsonl:5" $R table "$tmp/runs/s*"

# ---- measurements
printf '{"tok_per_s":[81,83]}' >"$tmp/two.json"
expect "slower" 3 "" $R perf "$tmp/fast.json" "$tmp/slow.json" --report "$tmp/perf.html" --report "$tmp/perf.xml"
check "in JUnit" grep -q '<failure' "$tmp/perf.xml"
same "alone: one table" "$(grep -c '<table' "$tmp/perf.html")" 1
same "and nothing that was not compared" "$(grep -cE 'Items that changed|No difference' "$tmp/perf.html")" 0
has "with its margin" "$tmp/perf.html" '>margin</th>.*<td class="n">5%</td>.*<span class="v fail">FAIL'
has "and its reason" "$tmp/perf.html" "<li><span class=\"v fail\">FAIL</span> tok_per_s: -20"
same "an evaluation alone has no measurements" "$(grep -c '<h3>Performance' "$tmp/one.html")" 0
expect "as fast" 0 "" $R perf "$tmp/fast.json" "$tmp/fast.json"
expect "too few repetitions" 5 "" $R perf "$tmp/fast.json" "$tmp/two.json"
expect "beside an evaluation" 3 "" $R "$tmp/base" "$tmp/equal" --perf "$tmp/fast.json" --perf "$tmp/slow.json"
expect "perf: one file" 2 "two files" $R perf "$tmp/fast.json"
expect "one file for two results" 2 "1 files for 2 results" $R "$tmp/base" "$tmp/equal" --perf "$tmp/fast.json"
expect "perf: no such file" 2 "nope.json: no such file" $R perf "$tmp/fast.json" "$tmp/nope.json"
expect "--perf: no such file" 2 "nope.json: no such file" $R "$tmp/base" "$tmp/equal" --perf "$tmp/nope.json"
printf '{"tok_per_s":{"better":"lower","values":[1,2]}}' >"$tmp/other.json"
expect "perf: the other direction" 4 "better higher in the first" $R perf "$tmp/fast.json" "$tmp/other.json"
printf '{"peak_bytes":[1,2]}' >"$tmp/other.json"
expect "perf: not measured" 4 "lacks 'tok_per_s'" $R perf "$tmp/fast.json" "$tmp/other.json"
# ---- reports replace nothing that is read, nor one another
before=$(tree "$tmp/base")
expect "a report over a result" 2 "results.json: --report would replace the run or result" $R "$tmp/base" "$tmp/worse" --report "$tmp/base/results.json"
expect "two reports in one file" 2 "another --report would replace --report" $R "$tmp/base" "$tmp/worse" --report "$tmp/new.md" \
    --report "$tmp/./new.md"
same "the result stays" "$(tree "$tmp/base")" "$before"
mkdir -p "$tmp/runs/s1/ckpt/latest"
echo weights >"$tmp/runs/s1/ckpt/latest/model.safetensors"
before=$(tree "$tmp/runs")
for f in ckpt/latest/model.safetensors config.yaml metrics.jsonl summary.json eval/suite@1/results.json; do
    expect "a table over $f" 2 "$f: --out would replace the run or result or a file of it" \
        $R table "$tmp/runs/s[13]" --cols seed --out "$tmp/runs/s1/$f"
done
expect "a table over a run" 2 "s1: --out would replace" $R table "$tmp/runs/s1" --cols seed --out "$tmp/runs/s1"
expect "a report over a run's summary" 2 "summary.json: --report would replace the run or result" \
    $R "$tmp/runs/s1" "$tmp/runs/s2" --report "$tmp/runs/s1/summary.json"
same "the runs stay" "$(tree "$tmp/runs")" "$before"
ln -s "$tmp/runs/s1/config.yaml" "$tmp/loss.svg"
expect "a plot over a run's file by a link" 2 "loss.svg: --out would replace" $R plot "$tmp/runs/s1" --out "$tmp/loss.svg"
same "and so does the linked file" "$(tree "$tmp/runs")" "$before"
for i in 1 2; do
    check "a plot in the run's folder, time $i" $R plot "$tmp/runs/s1" --out "$tmp/runs/s1/loss.svg"
done
expect "a report over a measurement" 2 "slow.json: --report would replace" $R perf "$tmp/fast.json" "$tmp/slow.json" \
    --report "$tmp/slow.json"
before=$(tree "$tmp/runs/s1")
expect "a baseline over a run" 2 "runs/s1: holds something that is no baseline" \
    $R bless "$tmp/base" --baselines "$tmp/runs" --as s1 --replace
same "the run stays" "$(tree "$tmp/runs/s1")" "$before"
absent "nothing was written" "$tmp/new.md"
finish
