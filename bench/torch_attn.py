"""Causal attention, forward and backward, beside PyTorch's scaled_dot_product_attention.

usage: python bench/torch_attn.py [rounds=5] [threads=1] [heads=4] [kv=4] [T=1024,4096]
                                  [compute=fp32] [theirs=fp32]
Same shapes, head width 64, one row; ours (build/bench/attn_bench ask, products of `compute`)
and PyTorch (q, k, v and gradients of `theirs`: the same, unless said) take turns.  Ours reads
and writes fp32 in both and includes RoPE of q and k, PyTorch's does not.  With one thread the
clock is the processor's, so that it stands up under load.  One JSON line a length: median of
the rounds' ratios (PyTorch's time / ours), and the milliseconds of both.
"""
import json
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

ARGS = dict(a.split("=", 1) for a in sys.argv[1:])
ROUNDS, THREADS = int(ARGS.get("rounds", 5)), int(ARGS.get("threads", 1))
HEADS, KV = int(ARGS.get("heads", 4)), int(ARGS.get("kv", 4))
LENGTHS = [int(t) for t in ARGS.get("T", "1024,4096").split(",")]
P = 64
GQA = {"enable_gqa": True} if HEADS != KV else {}  # from 2.5 on
COMPUTE = ARGS.get("compute", "fp32")
THEIRS = ARGS.get("theirs", COMPUTE)
TYPE = {"fp32": torch.float32, "bf16": torch.bfloat16}[THEIRS]
clock = time.thread_time if THREADS == 1 else time.perf_counter


def theirs(T):
    def shape(h):
        return torch.rand(1, h, T, P).mul_(2).sub_(1).to(TYPE).requires_grad_()
    q, k, v = shape(HEADS), shape(KV), shape(KV)
    start = clock()
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True, **GQA)
    middle = clock()
    g = y.detach() / 4
    t = clock()
    # One thread: the backward on the caller's own, whose clock we read.
    with torch.autograd.set_multithreading_enabled(THREADS > 1):
        y.backward(g)
    return middle - start, clock() - t


def ours(server, T):
    server.stdin.write(f"{T} {HEADS} {KV}\n")
    server.stdin.flush()
    return [float(x) for x in server.stdout.readline().split()[:2]]


torch.set_num_threads(THREADS)
busy = ["busy=1"] if THREADS == 1 else [f"threads={THREADS}"]
server = subprocess.Popen(["build/bench/attn_bench", "ask", f"compute={COMPUTE}", *busy],
                          text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
for T in LENGTHS:
    ratio = {"forward": [], "backward": [], "both": []}
    ms = {"ours": [], "theirs": []}
    for i in range(ROUNDS + 1):
        a, b = ours(server, T), theirs(T)
        if i == 0:
            continue  # memory touched for the first time
        ratio["forward"].append(b[0] / a[0])
        ratio["backward"].append(b[1] / a[1])
        ratio["both"].append(sum(b) / sum(a))
        ms["ours"].append(1e3 * sum(a))
        ms["theirs"].append(1e3 * sum(b))
    pair = COMPUTE if THEIRS == COMPUTE else f"{COMPUTE}-{THEIRS}"
    key = f"peer/torch-{torch.__version__}/attention/{pair}/T{T}/threads{THREADS}"
    line = {f"{key}/{k}_ratio": round(statistics.median(v), 2) for k, v in ratio.items()}
    line |= {f"{key}/{k}_ms": round(statistics.median(v), 2) for k, v in ms.items()}
    print(json.dumps(line), flush=True)
server.stdin.close()
