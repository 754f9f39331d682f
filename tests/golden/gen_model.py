#!/usr/bin/env python3
"""gen_model.py -- golden whole-model steps, from PyTorch in float64.

An independent forward pass of two small hybrids (dense, MoE with a shared expert): the
state-space layer is the plain recurrence, attention is the full matrix, experts are a
loop over tokens.  Writes per model: initial weights, token ids, logits, the gradient of
every parameter, and the losses of ten AdamW steps.
usage: gen_model.py OUTDIR      (needs torch and safetensors; see MANIFEST)
"""
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

torch.set_default_dtype(torch.float64)
D, L, V, B, T = 16, 4, 40, 2, 21
H, P, N, G, K = 4, 8, 6, 2, 4          # SSM heads, width, state, groups, taps
AH, KV, AP = 4, 2, 4                   # attention heads, KV heads, width
FF, E, TOPK, FE, FS = 20, 4, 2, 10, 6
EPS, THETA = 1e-5, 10000.0
DI, C = H * P, H * P + 2 * G * N
LB, Z = 0.01, 1e-3
DOC_START = (0, 9, 10)                 # packed documents in the second row


def rms(x, w):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * w


def make_params(moe, gen):
    def mat(*s):
        return torch.randn(*s, generator=gen) * s[-1] ** -0.5
    p = {"model.embed_tokens.weight": torch.randn(V, D, generator=gen) * 0.3}
    for i in range(L):
        q = f"model.layers.{i}."
        p[q + "input_layernorm.weight"] = 1 + 0.1 * torch.randn(D, generator=gen)
        p[q + "post_attention_layernorm.weight"] = 1 + 0.1 * torch.randn(D, generator=gen)
        if i % 4 == 3:
            p[q + "self_attn.q_proj.weight"] = mat(AH * AP, D)
            p[q + "self_attn.k_proj.weight"] = mat(KV * AP, D)
            p[q + "self_attn.v_proj.weight"] = mat(KV * AP, D)
            p[q + "self_attn.o_proj.weight"] = mat(D, AH * AP)
        else:
            p[q + "mamba.in_proj.weight"] = mat(DI + C + H, D)
            p[q + "mamba.conv1d.weight"] = torch.randn(C, 1, K, generator=gen) * 0.5
            p[q + "mamba.conv1d.bias"] = torch.randn(C, generator=gen) * 0.1
            p[q + "mamba.dt_bias"] = torch.randn(H, generator=gen) - 2
            p[q + "mamba.A_log"] = torch.log(1 + 7 * torch.rand(H, generator=gen))
            p[q + "mamba.D"] = 1 + 0.1 * torch.randn(H, generator=gen)
            p[q + "mamba.norm.weight"] = 1 + 0.1 * torch.randn(DI, generator=gen)
            p[q + "mamba.out_proj.weight"] = mat(D, DI)
        if moe:
            p[q + "block_sparse_moe.router.layer.weight"] = mat(E, D)
            p[q + "block_sparse_moe.input_linear.weight"] = mat(E, 2 * FE, D)
            p[q + "block_sparse_moe.output_linear.weight"] = mat(E, D, FE)
        f = FS if moe else FF
        p[q + "shared_mlp.input_linear.weight"] = mat(2 * f, D)
        p[q + "shared_mlp.output_linear.weight"] = mat(D, f)
    p["model.norm.weight"] = 1 + 0.1 * torch.randn(D, generator=gen)
    return {k: v.requires_grad_() for k, v in p.items()}


def mamba(p, q, x, doc):
    z, xbc, dt = torch.split(x @ p[q + "in_proj.weight"].T, [DI, C, H], -1)
    out = []
    for t in range(T):
        acc = p[q + "conv1d.bias"]
        for m in range(K):
            s = t - (K - 1) + m
            if s >= 0:
                keep = (doc[:, s] == doc[:, t])[:, None].to(x.dtype)
                acc = acc + p[q + "conv1d.weight"][:, 0, m] * xbc[:, s] * keep
        out.append(F.silu(acc + torch.zeros_like(xbc[:, t])))
    u = torch.stack(out, 1)
    xs = u[..., :DI].reshape(B, T, H, P)
    bs = u[..., DI:DI + G * N].reshape(B, T, G, N).repeat_interleave(H // G, 2)
    cs = u[..., DI + G * N:].reshape(B, T, G, N).repeat_interleave(H // G, 2)
    dt = F.softplus(dt + p[q + "dt_bias"])
    a = -torch.exp(p[q + "A_log"])
    state, ys = torch.zeros(B, H, P, N), []
    for t in range(T):
        if t:
            state = state * (doc[:, t] == doc[:, t - 1])[:, None, None, None]
        state = state * torch.exp(dt[:, t] * a)[..., None, None] + \
            (dt[:, t, :, None] * xs[:, t])[..., None] * bs[:, t, :, None, :]
        ys.append((state * cs[:, t, :, None, :]).sum(-1) + p[q + "D"][:, None] * xs[:, t])
    y = torch.stack(ys, 1).reshape(B, T, DI) * F.silu(z)
    g = y.reshape(B, T, G, DI // G)
    g = g * torch.rsqrt(g.pow(2).mean(-1, keepdim=True) + EPS)
    return (g.reshape(B, T, DI) * p[q + "norm.weight"]) @ p[q + "out_proj.weight"].T


def rope(x, pos):
    half = AP // 2
    ang = pos[..., None] * THETA ** (-torch.arange(half) * 2.0 / AP)
    c, s = torch.cos(ang)[:, :, None], torch.sin(ang)[:, :, None]
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * c - b * s, b * c + a * s], -1)


def attention(p, q, x, doc, pos):
    def heads(w, n):
        return (x @ p[q + w].T).reshape(B, T, n, AP)
    qq = rope(heads("q_proj.weight", AH), pos)
    kk = rope(heads("k_proj.weight", KV), pos).repeat_interleave(AH // KV, 2)
    vv = heads("v_proj.weight", KV).repeat_interleave(AH // KV, 2)
    s = torch.einsum("bihd,bjhd->bhij", qq, kk) / AP ** 0.5
    ok = (doc[:, :, None] == doc[:, None, :]) & torch.tril(torch.ones(T, T, dtype=bool))
    w = s.masked_fill(~ok[:, None], -float("inf")).softmax(-1)
    y = torch.einsum("bhij,bjhd->bihd", w, vv).reshape(B, T, AH * AP)
    return y @ p[q + "o_proj.weight"].T


def swiglu(x, w_in, w_out):
    a, b = (x @ w_in.T).chunk(2, -1)
    return (F.silu(a) * b) @ w_out.T


def experts(p, q, x):
    flat = x.reshape(-1, D)
    z = flat @ p[q + "router.layer.weight"].T
    prob = z.softmax(-1)
    top, idx = prob.topk(TOPK, -1)
    w = top / top.sum(-1, keepdim=True)
    rows = []
    for r in range(flat.shape[0]):
        rows.append(sum(w[r, k] * swiglu(flat[r], p[q + "input_linear.weight"][idx[r, k]],
                                         p[q + "output_linear.weight"][idx[r, k]])
                        for k in range(TOPK)))
    share = F.one_hot(idx, E).sum((0, 1)).to(x.dtype) / idx.numel()
    aux = LB * E * (share * prob.mean(0)).sum() + Z * z.logsumexp(-1).pow(2).mean()
    return torch.stack(rows).reshape(x.shape), aux


def forward(p, moe, tok, doc, pos):
    x, aux = p["model.embed_tokens.weight"][tok], 0
    for i in range(L):
        q = f"model.layers.{i}."
        h = rms(x, p[q + "input_layernorm.weight"])
        x = x + (attention(p, q + "self_attn.", h, doc, pos) if i % 4 == 3
                 else mamba(p, q + "mamba.", h, doc))
        h = rms(x, p[q + "post_attention_layernorm.weight"])
        y = swiglu(h, p[q + "shared_mlp.input_linear.weight"],
                   p[q + "shared_mlp.output_linear.weight"])
        if moe:
            e, a = experts(p, q + "block_sparse_moe.", h)
            y, aux = y + e, aux + a
        x = x + y
    return rms(x, p["model.norm.weight"]) @ p["model.embed_tokens.weight"].T, aux


def decays(name):
    vectors = ("norm", "bias", "A_log", "mamba.D", "conv1d")
    return not any(v in name for v in vectors)


def main(out):
    for moe in (False, True):
        gen = torch.Generator().manual_seed(7 + moe)
        p = make_params(moe, gen)
        tok = torch.randint(0, V, (B, T), generator=gen)
        target = torch.randint(0, V, (B, T), generator=gen)
        target[0, 5] = target[1, 0] = -1
        doc = torch.zeros(B, T, dtype=torch.int64)
        doc[1] = 1
        for t in DOC_START[1:]:
            doc[1, t:] += 1
        pos = torch.arange(T).repeat(B, 1)
        for t in DOC_START[1:]:
            pos[1, t:] = torch.arange(T - t)
        data = {k: v.detach().clone() for k, v in p.items()}
        data["embed_once"] = data.pop("model.embed_tokens.weight")
        opt = torch.optim.AdamW(
            [{"params": [v for k, v in p.items() if decays(k)], "weight_decay": 0.1},
             {"params": [v for k, v in p.items() if not decays(k)], "weight_decay": 0.0}],
            lr=3e-3, betas=(0.9, 0.95), eps=1e-8)
        losses = []
        for step in range(10):
            logits, aux = forward(p, moe, tok, doc, pos.to(torch.float64))
            ce = F.cross_entropy(logits.reshape(-1, V), target.reshape(-1), ignore_index=-1)
            loss = ce + aux
            opt.zero_grad()
            loss.backward()
            if step == 0:
                data["logits"] = logits.detach().clone()
                for k, v in p.items():
                    data["grad." + k] = v.grad.clone()
            opt.step()
            losses.append(loss.item())
        data["model.embed_tokens.weight"] = data.pop("embed_once")
        data["losses"] = torch.tensor(losses)
        for name, t in (("tokens", tok), ("targets", target), ("doc", doc), ("pos", pos)):
            data[name] = t.to(torch.int32)
        path = f"{out}/model_{'moe' if moe else 'dense'}.safetensors"
        save_file({k: v.contiguous() for k, v in data.items()}, path)
        print(path, " ".join(f"{x:.6f}" for x in losses))


if __name__ == "__main__":
    main(sys.argv[1])
