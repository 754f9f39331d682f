#!/usr/bin/env python3
"""gen_ops.py -- golden vectors of every op, from PyTorch in float64.

Formulas are the textbook ones, written here without looking at tiles, chunks or sorting:
attention is a full masked matrix with rotations as complex numbers, the scan is the plain
recurrence, experts are a loop over tokens; gradients come from autograd.

Writes OUTDIR/<op>.safetensors.  Case i: metadata key "i" holds the scalars ("B=2 T=7 ...");
tensors "i.<name>" are inputs and outputs, "i.g<out>" the upstream gradient of an output,
"i.d<in>" the gradient of an input.  Everything is F64 or I32.
usage: gen_ops.py OUTDIR     (needs torch, safetensors, transformers; see MANIFEST.ops)
"""
import math
import os
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

torch.set_default_dtype(torch.float64)
GEN = torch.Generator().manual_seed(20240607)


def rand(*shape, lo=-1.0, hi=1.0):
    return lo + (hi - lo) * torch.rand(*shape, generator=GEN)


def ints(hi, *shape):
    return torch.randint(0, hi, shape, generator=GEN, dtype=torch.int32)


class File:
    """Cases of one op."""

    def __init__(self, op):
        self.op, self.t, self.meta = op, {}, {}

    def add(self, scalars, inputs, outputs, fixed=None):
        """inputs: differentiated leaves; fixed: other tensors; outputs by name."""
        i = len(self.meta)
        self.meta[str(i)] = " ".join(f"{k}={v!r}" for k, v in scalars.items())
        loss = 0.0
        for name, y in outputs.items():
            g = torch.ones_like(y) if scalars.get("loss") else rand(*y.shape)
            loss = loss + (g * y).sum()
            self.t[f"{i}.g{name}"] = g
            self.t[f"{i}.{name}"] = y.detach()
        grads = torch.autograd.grad(loss, list(inputs.values()), allow_unused=True)
        for (name, x), g in zip(inputs.items(), grads):
            self.t[f"{i}.{name}"] = x.detach()
            self.t[f"{i}.d{name}"] = torch.zeros_like(x) if g is None else g
        for name, x in (fixed or {}).items():
            self.t[f"{i}.{name}"] = x

    def save(self, folder):
        path = os.path.join(folder, self.op + ".safetensors")
        save_file({k: v.contiguous().clone() for k, v in self.t.items()}, path, self.meta)


def leaf(x):
    return x.clone().requires_grad_(True)


def layout(B, T, starts):
    """doc and pos of B rows whose documents start at the given columns."""
    doc, pos, d = [], [], -1
    for b in range(B):
        for t in range(T):
            if t == 0 or t in starts[b]:
                d, p = d + 1, 0
            doc.append(d)
            pos.append(p)
            p += 1
    return torch.tensor(doc, dtype=torch.int32), torch.tensor(pos, dtype=torch.int32)


# ---- rows -------------------------------------------------------------------------------

def embed():
    f = File("embed")
    for V, D, R, s in ((5, 3, 8, 1.0), (9, 70, 6, 12.0)):
        w, tok = leaf(rand(V, D)), ints(V, R)
        onehot = F.one_hot(tok.long(), V).to(w.dtype)
        f.add({"scale": s}, {"w": w}, {"y": s * onehot @ w}, {"token": tok})
    return f


def linear():
    f = File("linear")
    for R, I, O in ((4, 3, 5), (1, 7, 2), (19, 20, 17)):
        x, w = leaf(rand(R, I)), leaf(rand(O, I))
        f.add({}, {"x": x, "w": w}, {"y": torch.einsum("ri,oi->ro", x, w)})
    return f


def rmsnorm():
    f = File("rmsnorm")
    for R, D, eps in ((3, 5, 1e-5), (37, 18, 1e-2)):
        x, w = leaf(rand(R, D)), leaf(rand(D, lo=0.5, hi=1.5))
        f.add({"eps": eps}, {"x": x, "w": w}, {"y": F.rms_norm(x, (D,), w, eps)})
    return f


def residual():
    f = File("residual")
    x, b = leaf(rand(4, 9)), leaf(rand(4, 9))
    f.add({"scale": 0.22}, {"x": x, "b": b}, {"y": torch.add(x, b, alpha=0.22)})
    return f


def swiglu():
    f = File("swiglu")
    ab = leaf(rand(5, 22, lo=-6, hi=6))
    a, b = ab.chunk(2, dim=1)
    f.add({}, {"ab": ab}, {"y": F.silu(a) * b})
    return f


def total():
    f = File("sum")
    x = [leaf(rand(1)) for _ in range(4)]
    f.add({}, {f"x{i}": v for i, v in enumerate(x)}, {"y": torch.stack(x).sum(0)})
    return f


def gated_norm():
    f = File("gated_norm")
    for R, DI, W, zcol, G, eps in ((3, 8, 12, 2, 2, 1e-5), (5, 9, 9, 0, 1, 1e-3)):
        y, zx, w = leaf(rand(R, DI)), leaf(rand(R, W, lo=-3, hi=3)), leaf(rand(DI))
        u = y * F.silu(zx[:, zcol:zcol + DI])
        n = F.rms_norm(u.view(R, G, DI // G), (DI // G,), eps=eps).reshape(R, DI)
        f.add({"zcol": zcol, "G": G, "eps": eps}, {"y": y, "zx": zx, "w": w},
              {"out": n * w})
    return f


# ---- sequences --------------------------------------------------------------------------

def yarn(P, base, factor, orig, fast=32, slow=1):
    """YaRN (arXiv 2309.00071, section 3.2 and appendix), checked against transformers."""
    i = torch.arange(P // 2)
    f = base ** (-2.0 * i / P)

    def dim(turns):
        return P * math.log(orig / (2 * math.pi * turns)) / (2 * math.log(base))
    low, high = max(math.floor(dim(fast)), 0), min(math.ceil(dim(slow)), P - 1)
    ramp = ((i - low) / max(high - low, 1e-3)).clamp(0, 1)
    inv, m = f * (1 - ramp) + f / factor * ramp, 0.1 * math.log(factor) + 1
    check_yarn(P, base, factor, orig, inv, m)
    return inv, m


def check_yarn(P, base, factor, orig, inv, m):
    import transformers.modeling_rope_utils as u
    u.torch = torch

    class Conf:
        head_dim, hidden_size, num_attention_heads = P, P, 1
        max_position_embeddings = int(orig * factor)
        rope_parameters = {"rope_type": "yarn", "rope_theta": base, "factor": factor,
                           "original_max_position_embeddings": orig}

        def standardize_rope_params(self):
            pass
    theirs, scale = u._compute_yarn_parameters(Conf())
    assert torch.allclose(theirs.double(), inv, rtol=1e-6), (theirs, inv)
    assert abs(scale - m) < 1e-12


def rotate(x, pos, inv, m):
    """Half-split pairs (i, i+P/2) as complex numbers; x [R,heads,P]."""
    half = x.shape[-1] // 2
    z = torch.complex(x[..., :half], x[..., half:])
    z = z * torch.polar(torch.full_like(inv, m).expand(len(pos), half),
                        pos.double()[:, None] * inv)[:, None, :]
    return torch.cat([z.real, z.imag], -1)


def attention():
    f = File("attention")
    cases = ((1, 5, 1, 1, 3, 0.7, None, [()]), (2, 9, 4, 2, 4, 0.5, "plain", [(4,), (1, 2)]),
             (1, 66, 2, 1, 6, 0.4, "linear", [()]), (2, 11, 3, 3, 8, 0.35, "yarn", [(), ()]))
    for B, T, H, G, P, scale, rope, starts in cases:
        q, k, v = (leaf(rand(B * T, n * P)) for n in (H, G, G))
        doc, pos = layout(B, T, starts)
        sc = {"B": B, "T": T, "H": H, "G": G, "P": P, "scale": scale, "base": 100.0,
              "factor": 4.0, "orig": 64.0, "mscale": 1.0}
        sc["rope"] = {None: 0, "plain": 1, "linear": 2, "yarn": 3}[rope]
        inv = 100.0 ** (-torch.arange(0, P - 1, 2) / P)
        if rope == "linear":
            inv = inv / 4
        if rope == "yarn":
            inv, sc["mscale"] = yarn(P, 100.0, 4.0, 64.0)
        qh, kh, vh = q.view(-1, H, P), k.view(-1, G, P), v.view(-1, G, P)
        if rope:
            qh, kh = (rotate(x, pos, inv, sc["mscale"]) for x in (qh, kh))
        kh, vh = (x.repeat_interleave(H // G, dim=1) for x in (kh, vh))
        s = torch.einsum("ihp,jhp->hij", qh, kh) * scale
        i = torch.arange(B * T)
        seen = (doc[:, None] == doc[None, :]) & (i[:, None] >= i[None, :])
        a = s.masked_fill(~seen, -math.inf).softmax(-1)
        y = torch.einsum("hij,jhp->ihp", a, vh).reshape(B * T, H * P)
        f.add(sc, {"q": q, "k": k, "v": v}, {"y": y}, {"doc": doc, "pos": pos, "inv": inv})
    return f


def conv_silu():
    f = File("conv_silu")
    for B, T, W, C, col, K, starts in ((1, 6, 5, 3, 1, 4, [()]),
                                       (2, 9, 7, 7, 0, 3, [(2, 3), (7,)])):
        x, w, b = leaf(rand(B * T, W)), leaf(rand(C, K)), leaf(rand(C))
        doc, _ = layout(B, T, starts)
        parts = []
        for d in range(int(doc[-1]) + 1):
            part = x[doc == d, col:col + C].T[None]
            part = F.conv1d(F.pad(part, (K - 1, 0)), w[:, None, :], b, groups=C)
            parts.append(F.silu(part[0].T))
        f.add({"B": B, "T": T, "col": col}, {"x": x, "w": w, "b": b},
              {"y": torch.cat(parts)}, {"doc": doc})
    return f


def ssd():
    f = File("ssd")
    cases = ((1, 11, 2, 3, 4, 1, 4, 1, 4, False, [()]),
             (2, 14, 4, 2, 3, 2, 4, 0, 5, True, [(3, 8, 9), (5,)]))
    for B, T, H, P, N, G, Q, dcol, W, carry, starts in cases:
        R = B * T
        xbc, dtx = leaf(rand(R, H * P + 2 * G * N)), leaf(rand(R, W))
        a_log, d, bias = leaf(rand(H)), leaf(rand(H)), leaf(rand(H))
        s0 = leaf(rand(B, H, N, P)) if carry else None
        doc, _ = layout(B, T, starts)
        y, last = [], []
        for b in range(B):
            s = s0[b] if carry else torch.zeros(H, N, P)
            for t in range(T):
                r = b * T + t
                if t and doc[r] != doc[r - 1]:
                    s = torch.zeros(H, N, P)
                x = xbc[r, :H * P].view(H, P)
                Bm = xbc[r, H * P:H * P + G * N].view(G, N).repeat_interleave(H // G, 0)
                Cm = xbc[r, H * P + G * N:].view(G, N).repeat_interleave(H // G, 0)
                dt = F.softplus(dtx[r, dcol:dcol + H] + bias)
                decay = torch.exp(-torch.exp(a_log) * dt)
                s = decay[:, None, None] * s + dt[:, None, None] * torch.einsum(
                    "hn,hp->hnp", Bm, x)
                y.append((torch.einsum("hn,hnp->hp", Cm, s) + d[:, None] * x).reshape(-1))
            last.append(s)
        ins = {"xbc": xbc, "dtx": dtx, "A_log": a_log, "D": d, "dt_bias": bias}
        outs = {"y": torch.stack(y)}
        if carry:
            ins["s0"], outs["s1"] = s0, torch.stack(last)
        f.add({"B": B, "T": T, "H": H, "P": P, "N": N, "G": G, "Q": Q, "dcol": dcol}, ins,
              outs, {"doc": doc})
    return f


# ---- mixture, loss ----------------------------------------------------------------------

def moe():
    f = File("moe")
    for R, D, E, Fw, K, lb, z in ((5, 4, 4, 3, 2, 0.0, 0.0), (17, 5, 6, 3, 3, 0.5, 0.25),
                                  (6, 3, 5, 2, 1, 0.3, 0.1)):
        x, r = leaf(rand(R, D)), leaf(rand(E, D))
        wi, wo = leaf(rand(E, 2 * Fw, D)), leaf(rand(E, D, Fw))
        logits = x @ r.T
        p = logits.softmax(-1)
        top, who = torch.topk(p, K, dim=-1)
        gate = top / top.sum(-1, keepdim=True)
        rows = []
        for t in range(R):
            out = 0.0
            for k in range(K):
                e = int(who[t, k])
                a, b = (wi[e] @ x[t]).chunk(2)
                out = out + gate[t, k] * (wo[e] @ (F.silu(a) * b))
            rows.append(out)
        share = F.one_hot(who, E).double().sum((0, 1)) / (R * K)
        aux = lb * E * (share * p.mean(0)).sum() + z * logits.logsumexp(-1).pow(2).mean()
        f.add({"K": K, "lb": lb, "z": z}, {"x": x, "router": r, "w_in": wi, "w_out": wo},
              {"y": torch.stack(rows), "aux": aux.reshape(1)},
              {"load": (share * R * K).round().int()})
    return f


def xent():
    f = File("xent")
    for R, D, V, ls, norm, z, mask in ((6, 3, 5, 1.0, 0.3, 0.0, 0), (9, 4, 7, 0.5, 0.11, 0.1, 3),
                                       (13, 2, 300, 2.0, 1.0, 1e-2, 2)):
        x, w, t = leaf(rand(R, D)), leaf(rand(V, D)), ints(V, R)
        if mask:
            t[::mask] = -1
        logits = x @ w.T * ls
        nll = F.cross_entropy(logits, t.long(), ignore_index=-1, reduction="none")
        zl = torch.where(t >= 0, logits.logsumexp(-1) ** 2, 0.0)
        f.add({"logit_scale": ls, "norm": norm, "z": z, "loss": 1}, {"x": x, "w": w},
              {"y": (norm * (nll + z * zl)).sum().reshape(1)},
              {"target": t, "nll": nll.detach()})
    return f


# ---- preferences --------------------------------------------------------------------------

def logp():
    f = File("logp")
    for R, D, V, ls, mask in ((6, 3, 5, 1.0, 0), (14, 4, 7, 0.5, 3), (600, 2, 30, 2.0, 2),
                              (9, 3, 300, 4.0, 4)):
        x, w, t = leaf(rand(R, D)), leaf(rand(V, D)), ints(V, R)
        if mask:
            t[::mask] = -1
        rows = torch.log_softmax(x @ w.T * ls, dim=1)
        picked = rows.gather(1, t.long().clamp(min=0)[:, None])[:, 0]
        f.add({"logit_scale": ls}, {"x": x, "w": w},
              {"y": torch.where(t >= 0, picked, 0.0)}, {"target": t})
    return f


def prefer():
    """Formulas and names of TRL's trainers (DPOTrainer: sigmoid, ipo, sigmoid_norm and
    label_smoothing; CPOTrainer: simpo), of RPO (arXiv 2404.19733) and DPOP (2402.13228), on
    one padded batch of answers with a completion mask, as there."""
    f = File("prefer")
    variants = [dict(), dict(label_smoothing=0.1), dict(ipo=1), dict(length_norm=1, beta=2.0),
                dict(length_norm=1, reference_free=1, margin=1.375, beta=2.5),
                dict(nll=0.8), dict(dpop=50.0, beta=0.3),
                dict(length_norm=1, label_smoothing=0.3, nll=0.5, dpop=3.0, beta=0.7)]
    for v in variants:
        ipo, norm_len, free = v.get("ipo", 0), v.get("length_norm", 0), v.get("reference_free", 0)
        beta, eps = v.get("beta", 0.1), v.get("label_smoothing", 0.0)
        margin, nll, dpop = v.get("margin", 0.0), v.get("nll", 0.0), v.get("dpop", 0.0)
        R, norm = 60, 0.25
        lp = leaf(rand(R, lo=-6, hi=-0.01))
        spans = [(1, 8, 8, 17), (18, 19, 20, 41), (41, 50, 50, 51), (53, 56, 57, 60)]
        keep = (torch.rand(R, generator=GEN) < 0.8)
        for a, b, c, d in spans:
            keep[a] = keep[c] = True
        longest = max(max(b - a, d - c) for a, b, c, d in spans)
        token_logps = torch.zeros(2, len(spans), longest)
        mask = torch.zeros(2, len(spans), longest)
        for i, (a, b, c, d) in enumerate(spans):
            token_logps[0, i, :b - a], mask[0, i, :b - a] = lp[a:b], keep[a:b].double()
            token_logps[1, i, :d - c], mask[1, i, :d - c] = lp[c:d], keep[c:d].double()
        logps, counts = (token_logps * mask).sum(-1), mask.sum(-1)
        ref = logps.detach() + rand(2, len(spans), lo=-4, hi=4)
        chosen_logps, rejected_logps = logps
        ref_chosen, ref_rejected = torch.zeros_like(ref) if free else ref
        chosen, rejected = chosen_logps - ref_chosen, rejected_logps - ref_rejected
        if ipo or norm_len:
            chosen, rejected = chosen / counts[0], rejected / counts[1]
        logits = chosen - rejected - dpop * torch.clamp(-chosen, min=0)
        if ipo:
            losses = (logits - 1 / (2 * beta)) ** 2
        else:
            logits = logits - margin / beta
            losses = (-F.logsigmoid(beta * logits) * (1 - eps)
                      - F.logsigmoid(-beta * logits) * eps)
        losses = losses + nll * -chosen_logps / counts[0]
        f.add({"loss": 1, "norm": norm, "beta": beta, "eps": eps, "margin": margin, "nll": nll,
               "dpop": dpop, "ipo": ipo, "length_norm": norm_len, "free": free},
              {"logp": lp}, {"y": (norm * losses.sum()).reshape(1)},
              {"pairs": torch.tensor(spans, dtype=torch.int32), "ref": ref.T,
               "keep": keep.int(), "losses": losses.detach(), "logps": logps.detach().T,
               "rewards": beta * torch.stack([chosen, rejected], 1).detach()})
    return f


# ---- noise: its random numbers are Philox4x32-10 with a SplitMix64 key -------------------

M64 = (1 << 64) - 1


def mix64(z):
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & M64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & M64
    return z ^ (z >> 31)


def philox(seed, purpose, step, i):
    """64 random bits: element i of the stream."""
    key = mix64((mix64((seed + 0x9E3779B97F4A7C15) & M64) + purpose) & M64)
    c = [i & 0xFFFFFFFF, i >> 32, step & 0xFFFFFFFF, step >> 32]
    k = [key & 0xFFFFFFFF, key >> 32]
    for _ in range(10):
        p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(q >> 32) ^ c[1] ^ k[0], q & 0xFFFFFFFF, (p >> 32) ^ c[3] ^ k[1],
             p & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c[1] << 32 | c[0]


def uniform(*at):
    """In [0,1)."""
    return (philox(*at) >> 11) * 2.0 ** -53


NEFTUNE, DROPOUT = 11, 12  # purposes of streams


def noise():
    GEN.manual_seed(11)  # whatever ran before
    f = File("noise")
    for seed, row, alpha, docs, D in ((7, 3, 5.0, [[0, 0, 1, 1, 1], [0, 0, 0, 0, 1]], 4),
                                      (42, 1 << 33, 0.5, [[0] * 7], 3)):
        B, T = len(docs), len(docs[0])
        x, u = leaf(rand(B * T, D)), torch.zeros(B * T, D)
        for b in range(B):
            for t in range(T):
                size = alpha / math.sqrt(docs[b].count(docs[b][t]) * D)
                for d in range(D):
                    p = uniform(seed, NEFTUNE, row + b, t * D + d)
                    u[b * T + t, d] = size * (2 * p - 1)
        f.add({"B": B, "T": T, "seed": seed, "row": row, "alpha": alpha}, {"x": x},
              {"y": x + u},
              {"doc": torch.tensor(docs, dtype=torch.int32)})
    return f


def dropout():
    """A word decides two neighbours, its lower half the first."""
    GEN.manual_seed(12)
    f = File("dropout")
    for B, T, I, share, seed, row, module in ((2, 5, 7, 0.25, 3, 40, 9), (1, 3, 8, 0.6, 1, 0, 2)):
        x = leaf(rand(B * T, I))
        keep = torch.ones(B * T, I)
        for r in range(B * T):
            for i in range(I):
                word = philox(seed + module, DROPOUT, row + r // T, r % T * ((I + 1) // 2) + i // 2)
                keep[r, i] = (word >> 32 * (i % 2)) % 2**32 >= share * 2**32
        f.add({"T": T, "share": share, "seed": seed, "row": row, "module": module}, {"x": x},
              {"y": x * keep / (1 - share)})
    return f


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    for make in (embed, linear, rmsnorm, attention, conv_silu, ssd, gated_norm, residual,
                 swiglu, moe, xent, total, logp, prefer, noise, dropout):
        make().save(folder)


if __name__ == "__main__":
    main()
