#!/usr/bin/env python3
"""torch_peer.py -- the training step of bench/step_bench in PyTorch, for comparison.

usage: torch_peer.py bench8m|bench8m-moe|bench30m [steps=6] [T=512] [rows=8] [compute=bf16]
       torch_peer.py gemm [seconds=1] [compute=bf16]      its matrix product at 2048 cubed
       both: [json=1] [busy=1] [threads=N], as bench/bench.h says

The same hybrid (Mamba-2, attention, SwiGLU or top-2 of 8 experts; tied head), the same
8 x 512 random tokens, AdamW.  PyTorch gets its best tools where the version has them:
scaled_dot_product_attention, rms_norm, fused (else foreach) AdamW, one product per
expert over sorted rows, the scan as batched products over chunks of 64.  bf16 is its own
mixed precision: autocast.  The first step warms up, the median of the others counts.
"""
import contextlib
import inspect
import json
import os
import statistics
import sys
import time

for name in [name for name in os.environ if name.startswith("OPENBLAS_")]:
    del os.environ[name]

import torch
import torch.nn as nn
import torch.nn.functional as F

words = dict(word.split("=") for word in sys.argv[2:])
ROWS, T = int(words.get("rows", 8)), int(words.get("T", 512))
COMPUTE, BUSY = words.get("compute", "fp32"), words.get("busy") == "1"
VOCAB, STATE, HEAD, SSM_HEAD, CHUNK, CONV = 8192, 64, 64, 64, 64, 4
MODELS = {  # d_model, kv heads, d_ff (experts when negative)
    "bench8m": (256, 4, 512),
    "bench8m-moe": (256, 4, -256),
    "bench30m": (512, 4, 1024),
}


class Norm(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x):
        if hasattr(F, "rms_norm"):
            return F.rms_norm(x, self.weight.shape, self.weight, 1e-5)
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * self.weight


def scan(x, dt, a, b, c):
    """Chunked selective scan: x[R,T,H,P], dt[R,T,H], a[H], b and c[R,T,N] -> y like x."""
    r, t, h, p = x.shape
    n = t // CHUNK
    u = (x * dt[..., None]).view(r, n, CHUNK, h, p).permute(0, 3, 1, 2, 4)
    cum = (dt * a).view(r, n, CHUNK, h).permute(0, 3, 1, 2).cumsum(-1)
    b, c = b.view(r, 1, n, CHUNK, -1), c.view(r, 1, n, CHUNK, -1)
    upper = torch.ones(CHUNK, CHUNK, dtype=torch.bool).triu(1)
    decay = (cum[..., :, None] - cum[..., None, :]).masked_fill(upper, float("-inf")).exp()
    y = ((c @ b.transpose(-1, -2)) * decay) @ u
    to_end = (cum[..., -1:] - cum).exp()
    add = (b.expand(r, h, n, CHUNK, -1) * to_end[..., None]).transpose(-1, -2) @ u
    keep, state, before = cum[..., -1].exp(), torch.zeros_like(add[:, :, 0]), []
    for i in range(n):
        before.append(state)
        state = state * keep[:, :, i, None, None] + add[:, :, i]
    y = y + (c @ torch.stack(before, 2)) * cum.exp()[..., None]
    return y.permute(0, 2, 3, 1, 4).reshape(r, t, h, p)


class Mamba(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.inner, self.heads = 2 * d, 2 * d // SSM_HEAD
        wide = self.inner + 2 * STATE
        self.into = nn.Linear(d, self.inner + wide + self.heads, bias=False)
        self.conv = nn.Conv1d(wide, wide, CONV, groups=wide, padding=CONV - 1)
        self.a_log = nn.Parameter(torch.rand(self.heads).mul(15).add(1).log())
        self.bias = nn.Parameter(torch.full((self.heads,), -4.0))
        self.skip = nn.Parameter(torch.ones(self.heads))
        self.norm, self.out = Norm(self.inner), nn.Linear(self.inner, d, bias=False)

    def forward(self, x):
        sizes = [self.inner, self.inner + 2 * STATE, self.heads]
        z, xbc, dt = self.into(x).split(sizes, -1)
        xbc = F.silu(self.conv(xbc.transpose(1, 2))[..., :T].transpose(1, 2))
        v, b, c = xbc.split([self.inner, STATE, STATE], -1)
        v = v.reshape(*v.shape[:2], self.heads, SSM_HEAD)
        y = scan(v, F.softplus(dt + self.bias), -self.a_log.exp(), b, c)
        y = (y + v * self.skip[:, None]).flatten(2)
        return self.out(self.norm(y * F.silu(z)))


class Attention(nn.Module):
    def __init__(self, d, groups):
        super().__init__()
        self.heads, self.groups = d // HEAD, groups
        self.qkv = nn.Linear(d, d + 2 * groups * HEAD, bias=False)
        self.out = nn.Linear(d, d, bias=False)
        angle = torch.arange(T)[:, None] * 1e4 ** (-torch.arange(0, HEAD, 2) / HEAD)
        self.cos, self.sin = angle.cos(), angle.sin()

    def turn(self, x):
        u, v = x.chunk(2, -1)
        return torch.cat([u * self.cos - v * self.sin, v * self.cos + u * self.sin], -1)

    def forward(self, x):
        kv = self.groups * HEAD
        q, k, v = (y.unflatten(-1, (-1, HEAD)).transpose(1, 2)
                   for y in self.qkv(x).split([self.heads * HEAD, kv, kv], -1))
        k, v = (y.repeat_interleave(self.heads // self.groups, 1) for y in (self.turn(k), v))
        q = self.turn(q)
        if hasattr(F, "scaled_dot_product_attention"):
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            mask = torch.full((T, T), float("-inf")).triu(1)
            y = (q @ k.transpose(-1, -2) / HEAD ** 0.5 + mask).softmax(-1) @ v
        return self.out(y.transpose(1, 2).flatten(2))


class Dense(nn.Module):
    def __init__(self, d, f):
        super().__init__()
        self.into, self.out = nn.Linear(d, 2 * f, bias=False), nn.Linear(f, d, bias=False)

    def forward(self, x):
        gate, up = self.into(x).chunk(2, -1)
        return self.out(F.silu(gate) * up)


class Experts(nn.Module):
    def __init__(self, d, f, n=8, k=2):
        super().__init__()
        self.router, self.k = nn.Linear(d, n, bias=False), k
        self.expert = nn.ModuleList(Dense(d, f) for _ in range(n))

    def forward(self, x):
        rows = x.reshape(-1, x.shape[-1])
        gate, which = self.router(rows).softmax(-1).topk(self.k, -1)
        gate = (gate / gate.sum(-1, keepdim=True)).flatten()
        which, order = which.flatten().sort()
        load = torch.bincount(which, minlength=len(self.expert)).tolist()
        parts = rows[order // self.k].split(load)
        y = torch.cat([e(p) for e, p in zip(self.expert, parts)]) * gate[order, None]
        y = y.to(rows.dtype)
        return torch.zeros_like(rows).index_add(0, order // self.k, y).view_as(x)


class Model(nn.Module):
    def __init__(self, d, groups, ff, layers=8):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, d)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.mixer = nn.ModuleList(Attention(d, groups) if i % 4 == 3 else Mamba(d)
                                   for i in range(layers))
        self.ffn = nn.ModuleList(Experts(d, -ff) if ff < 0 else Dense(d, ff)
                                 for _ in range(layers))
        self.norm = nn.ModuleList(Norm(d) for _ in range(2 * layers + 1))

    def forward(self, token, target):
        x = self.embed(token)
        for i, (mixer, ffn) in enumerate(zip(self.mixer, self.ffn)):
            x = x + mixer(self.norm[2 * i](x))
            x = x + ffn(self.norm[2 * i + 1](x))
        logits = F.linear(self.norm[-1](x), self.embed.weight)
        return F.cross_entropy(logits.flatten(0, 1), target.flatten())


def adamw(params):
    known = inspect.signature(torch.optim.AdamW).parameters
    for how in ("fused", "foreach"):
        try:
            if how in known:
                return torch.optim.AdamW(params, 1e-3, **{how: True})
        except RuntimeError:  # fused AdamW on a CPU came with 2.4
            pass
    return torch.optim.AdamW(params, 1e-3)


def now():
    return time.process_time() if BUSY else time.perf_counter()


def autocast():
    if COMPUTE == "fp32":
        return contextlib.nullcontext()
    return torch.autocast("cpu", dtype=torch.bfloat16)


def put(key, value):
    version = torch.__version__.split("+")[0]
    if words.get("json") == "1":
        print(json.dumps({f"peer/torch-{version}/{key}": value}), flush=True)
    else:
        print(f"torch-{version}/{key} {value:.1f}", flush=True)


def gemm(n=2048):
    kind = torch.float32 if COMPUTE == "fp32" else torch.bfloat16
    a, b = (torch.rand(n, n).sub(0.5).to(kind) for _ in range(2))
    out, best, start = torch.empty(n, n, dtype=kind), float("inf"), time.perf_counter()
    while best == float("inf") or time.perf_counter() - start < float(words.get("seconds", 1)):
        t = now()
        torch.mm(a, b, out=out)
        best = min(best, now() - t)
    put(f"gemm/{COMPUTE}/square-NN-{n}x{n}x{n}/gflops", 2e-9 * n ** 3 / best)


def train(name):
    model = Model(*MODELS[name])
    optim = adamw(list(model.parameters()))
    token, target = torch.randint(VOCAB, (2, ROWS, T))
    seconds = []
    for _ in range(int(words.get("steps", 6))):
        start = now()
        with autocast():
            loss = model(token, target)
        loss.backward()
        optim.step()
        optim.zero_grad(set_to_none=True)
        seconds.append(now() - start)
    length = "" if T == 512 else f"-T{T}"
    middle = statistics.median(seconds[1:] or seconds)
    put(f"train/{name}{length}/{COMPUTE}/tok_per_s", ROWS * T / middle)


def main():
    torch.manual_seed(0)
    threads = 1 if BUSY else int(words.get("threads", 0))
    if threads:
        torch.set_num_threads(threads)
    if len(sys.argv) < 2 or sys.argv[1] not in [*MODELS, "gemm"]:
        sys.exit(__doc__)
    if sys.argv[1] == "gemm":
        gemm()
    else:
        train(sys.argv[1])


if __name__ == "__main__":
    main()
