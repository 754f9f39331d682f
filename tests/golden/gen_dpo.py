#!/usr/bin/env python3
"""gen_dpo.py -- golden preference losses of whole models, from PyTorch in float64.

The models are those of gen_model.py, run by its independent forward pass on each answer
alone, never packed.  Log-probabilities of the completions under policy and reference go
into the formulas of TRL's trainers; gradients of all parameters come from autograd.  Writes
one packed row of the pairs beside them, as pack.c would make it: packed must equal unpacked.
usage: gen_dpo.py FOLDER      (that has model_*.safetensors; needs torch and safetensors)
"""
import sys

import gen_model as g
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

torch.set_default_dtype(torch.float64)
SIZES = ((3, 7, 4), (1, 2, 9), (6, 5, 5), (2, 12, 1))  # prompt, chosen, rejected
ORDER = (2, 0, 3, 1)
T = 80
VARIANTS = {  # the words of the configuration, and the same for Python
    "sigmoid": ("dpo.beta=0.1", dict(beta=0.1)),
    "ipo": ("dpo.loss=ipo dpo.beta=0.2", dict(beta=0.2, ipo=True, mean=True)),
    "mixed": ("dpo.beta=0.7 dpo.label_smoothing=0.1 dpo.length_norm=true dpo.nll=0.4 "
              "dpo.dpop=2", dict(beta=0.7, eps=0.1, mean=True, nll=0.4, dpop=2.0)),
    "simpo": ("dpo.beta=2.5 dpo.reference_free=true dpo.length_norm=true dpo.margin=1.375",
              dict(beta=2.5, mean=True, free=True, margin=1.375)),
}
WITH_GRADIENTS = {"dense": ("sigmoid",), "moe": ("mixed",)}


def answer_logp(p, moe, prompt, answer):
    """Sum over the answer's tokens of log p(token | everything before)."""
    tok = torch.cat([prompt, answer])[None]
    g.B, g.T = 1, tok.shape[1]
    doc = torch.zeros(1, g.T, dtype=torch.int64)
    logits, _ = g.forward(p, moe, tok, doc, torch.arange(g.T, dtype=torch.float64)[None])
    rows = torch.log_softmax(logits[0, :-1], -1)
    return rows.gather(1, tok[0, 1:, None])[len(prompt) - 1:, 0].sum()


def loss_of(logps, ref, counts, beta, eps=0.0, ipo=False, mean=False, nll=0.0, dpop=0.0,
            free=False, margin=0.0):
    ratios = logps if free else logps - ref
    chosen, rejected = (ratios / counts if mean else ratios).unbind(1)
    delta = chosen - rejected - dpop * torch.clamp(-chosen, min=0)
    if ipo:
        losses = (delta - 1 / (2 * beta)) ** 2
    else:
        logits = beta * delta - margin
        losses = -F.logsigmoid(logits) * (1 - eps) - F.logsigmoid(-logits) * eps
    losses = losses - nll * logps[:, 0] / counts[:, 0]
    return losses, beta * torch.stack([chosen, rejected], 1)


def packed_row(pairs):
    row = {k: torch.full((1, T), f, dtype=torch.int32)
           for k, f in (("tokens", 0), ("targets", -1), ("doc", 0), ("pos", 0))}
    at, number = 0, 0
    for u in ORDER:
        prompt, *answers = pairs[u]
        for answer in answers:
            text = torch.cat([prompt, answer])
            n = len(text) - 1
            row["tokens"][0, at:at + n] = text[:-1]
            row["targets"][0, at + len(prompt) - 1:at + n] = answer
            row["doc"][0, at:at + n] = number
            row["pos"][0, at:at + n] = torch.arange(n)
            at, number = at + n, number + 1
    row["doc"][0, at:] = number
    row["pos"][0, at:] = torch.arange(T - at)
    return row


def main(folder):
    for name in ("dense", "moe"):
        gen = torch.Generator().manual_seed(23)
        stored = load_file(f"{folder}/model_{name}.safetensors")
        p = {k: v.clone().requires_grad_() for k, v in stored.items() if "grad." + k in stored}
        other = {k: v.detach() + 0.02 * torch.randn(v.shape, generator=gen)
                 for k, v in p.items()}
        pairs = [[torch.randint(0, g.V, (n,), generator=gen) for n in s] for s in SIZES]
        logps = torch.stack([torch.stack([answer_logp(p, name == "moe", q, a) for a in (w, l)])
                             for q, w, l in pairs])
        with torch.no_grad():
            ref = torch.stack([torch.stack([answer_logp(other, name == "moe", q, a)
                                            for a in (w, l)]) for q, w, l in pairs])
        counts = torch.tensor([s[1:] for s in SIZES], dtype=torch.float64)
        data, meta = packed_row(pairs), {}
        data["order"] = torch.tensor(ORDER, dtype=torch.int32)
        data["ref"], data["logps"] = ref, logps.detach()
        for v, (words, how) in VARIANTS.items():
            losses, rewards = loss_of(logps, ref, counts, **how)
            meta[v] = words
            data[v + ".losses"], data[v + ".rewards"] = losses.detach(), rewards.detach()
            if v in WITH_GRADIENTS[name]:
                grads = torch.autograd.grad(losses.mean(), list(p.values()), retain_graph=True)
                data.update({f"{v}.grad.{k}": d for k, d in zip(p, grads)})
            print(name, v, losses.mean().item())
        save_file({k: v.contiguous() for k, v in data.items()},
                  f"{folder}/dpo_{name}.safetensors", meta)


if __name__ == "__main__":
    main(sys.argv[1])
