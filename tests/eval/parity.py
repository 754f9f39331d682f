#!/usr/bin/env python3
"""lm-evaluation-harness's formulas in NumPy, written from their definitions.

  parity.py > tests/eval/parity.json   golden numbers: made-up log-likelihoods for the items of
                                       choice, pairs, several, cloze and stories in this folder,
                                       and the metrics they give (read by tests/unit/task_test.c)
  parity.py check DIR...               recompute acc, acc_norm, acc_bytes, brier, mc2 and the
                                       perplexities of results from their items' log-likelihoods
                                       and texts; compares exactly
"""
import json, math, os, re, subprocess, sys
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))


def mc(lls, choices, gold):
    """acc, acc_norm (code points), acc_bytes, brier of one item, as lm-eval's ConfigurableTask."""
    lls = np.array(lls)
    chars = np.array([float(len(c)) for c in choices])
    size = np.array([float(len(c.encode("utf-8"))) for c in choices])
    p = np.exp(lls - lls.max())
    p = p / p.sum()
    truth = np.zeros(len(lls))
    truth[gold] = 1
    return {
        "acc_first": float(np.argmax(lls) == gold),
        "acc_char": float(np.argmax(lls / chars) == gold),
        "acc_byte": float(np.argmax(lls / size) == gold),
        "brier": float(np.sum((p - truth) ** 2)),
    }


def mc2(lls, right):
    lls = np.array(lls)
    p = np.exp(lls - lls.max())
    r = np.array(right, dtype=bool)
    return float(p[r].sum() / (p[r].sum() + p[~r].sum()))


def words(doc):
    return len(re.split(r"\s+", doc))


def mean(x):
    return sum(x) / len(x)


def sample_stderr(x):
    mu = mean(x)
    return math.sqrt(sum([(v - mu) ** 2 for v in x]) / (len(x) - 1)) / math.sqrt(len(x))


def rolling(lls, docs):
    w, b = sum(words(d) for d in docs), sum(len(d.encode("utf-8")) for d in docs)
    s = sum(lls)
    return {"ppl_word": math.exp(-(s / w)), "ppl_byte": math.exp(-(s / b)),
            "bits_per_byte": -(s / b) / math.log(2)}


def rows(name):
    with open(os.path.join(HERE, name), encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def golden():
    rng = np.random.default_rng(20260)
    draw = lambda n: [float(-x) for x in rng.gamma(4.0, 3.0, n)]
    out = {}
    items = rows("choice.jsonl")
    # Near the same value per character, so that the three normalisations disagree.
    lls = [[float(-len(c) * rng.uniform(1, 1.6)) if i % 2 else float(-len(c.encode()) * rng.uniform(1, 1.4))
            for c in r["choices"]] for i, r in enumerate(items)]
    each = [mc(l, r["choices"], r["gold"]) for l, r in zip(lls, items)]
    assert len({sum(e[k] for e in each) for k in ("acc_first", "acc_char", "acc_byte")}) == 3
    m = {k: mean([e[k] for e in each]) for k in each[0]}
    m["acc_first_stderr"] = sample_stderr([e["acc_first"] for e in each])
    out["choice"] = {"loglik": lls, "metrics": m}

    lls = [draw(2) for _ in range(4)] + [[-20.25, -20.25]]
    first = [mc(l, ["x", "y"], 0)["acc_first"] for l in lls]
    ties = [0.5 if l[0] == l[1] else f for l, f in zip(lls, first)]
    out["pairs"] = {"loglik": lls, "metrics": {"acc_first": mean(first), "acc": mean(ties)}}

    with open(os.path.join(HERE, "several.json"), encoding="utf-8") as f:
        several = json.load(f)
    lls = [draw(len(r["targets"])) for r in several]
    out["several"] = {"loglik": lls, "metrics": {"true_mass": mean(
        [mc2(l, list(r["targets"].values())) for l, r in zip(lls, several)])}}

    lls = draw(len(rows("cloze.jsonl")))
    out["cloze"] = {"loglik": [[l] for l in lls], "metrics": {"ppl_item": math.exp(-mean(lls))}}

    with open(os.path.join(HERE, "stories.txt"), encoding="utf-8") as f:
        docs = [d.strip("\n") for d in f.read().split("<|endoftext|>\n")]
    lls = [50 * l for l in draw(len(docs))]
    out["stories"] = {"loglik": [[l] for l in lls], "metrics": rolling(lls, docs)}
    print(json.dumps(out, indent=1))


def check_task(task, items):
    """Metrics that the items' details allow to recompute."""
    d = [i["detail"] for i in items]
    out = {}
    if "choices" in d[0]:
        if all(len(x["right"]) == 1 for x in d):
            each = [mc(x["loglik"], x["choices"], x["right"][0]) for x in d]
            out = {k: mean([e[k] for e in each]) for k in each[0]}
            if any(x.get("ties") for x in d):
                out.pop("acc_char"), out.pop("acc_byte")
            else:
                out["acc"] = out["acc_first"]
        out["true_mass"] = mean([mc2(x["loglik"], [i in x["right"] for i in range(len(x["choices"]))])
                                 for x in d])
    elif "target" in d[0] and "contexts" not in d[0]:
        lls = [x["loglik"][0] for x in d]
        out["ppl_item"] = math.exp(-mean(lls))
        out["ppl_token"] = math.exp(-(sum(lls) / sum(x["tokens"] for x in d)))
    elif "windows" in d[0]:
        out["ppl_token"] = math.exp(-(sum(x["loglik"][0] for x in d) / sum(x["tokens"] for x in d)))
    return out


def check(folder):
    with open(os.path.join(folder, "results.json")) as f:
        res = json.load(f)
    lines = subprocess.run(["zstdcat", os.path.join(folder, "items.jsonl.zst")], check=True,
                           capture_output=True).stdout.decode().splitlines()
    items = [json.loads(x) for x in lines]
    n = bad = 0
    for t in res["tasks"]:
        want = check_task(t, [i for i in items if i["task"] == t["name"]])
        for k, v in want.items():
            if k not in t["metrics"]:
                continue
            got = t["metrics"][k]["value"]
            # Sums of exponentials depend on their order: brier and mc2 to the last digit but one.
            ok = got == v or (k in ("brier", "true_mass") and abs(got - v) <= 4e-16 * max(1, abs(v)))
            n += 1
            bad += not ok
            if not ok:
                print(f"{folder}: {t['name']} {k}: {got!r}, NumPy says {v!r}")
    print(f"{folder}: {n} metrics recomputed, {bad} differ")
    return bad == 0 and n > 0


if len(sys.argv) > 2 and sys.argv[1] == "check":
    sys.exit(not all([check(d) for d in sys.argv[2:]]))
golden()
