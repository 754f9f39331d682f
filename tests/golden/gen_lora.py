#!/usr/bin/env python3
"""gen_lora.py -- golden adapters on a whole model, from PyTorch in float64.

The mixture-of-experts model of gen_model.py (its weights, tokens, targets), where every
hidden matrix W stands for W + alpha/r B A; the gradients are autograd's through that sum.
Writes model_lora.safetensors: A and B of every matrix, logits, the gradient of every A and
B, and the losses of ten AdamW steps on them.
usage: gen_lora.py OUTDIR      (reads model_moe.safetensors there; needs torch, safetensors)
"""
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import gen_model as gm

RANK, ALPHA = 3, 5.0
MATRICES = ("_proj.weight", "input_linear.weight", "output_linear.weight")


def adapters(p, gen):
    lora = {}
    for name, w in p.items():
        if not name.endswith(MATRICES):
            continue
        module, experts = name[:-len(".weight")], w.shape[:-2]
        a = torch.randn(*experts, RANK, w.shape[-1], generator=gen) * w.shape[-1] ** -0.5
        b = torch.randn(*experts, w.shape[-2], RANK, generator=gen) * 0.3
        lora[module + ".lora_A.weight"] = a.requires_grad_()
        lora[module + ".lora_B.weight"] = b.requires_grad_()
    return lora


def together(p, lora):
    out = dict(p)
    for name in lora:
        if name.endswith(".lora_A.weight"):
            module = name[:-len(".lora_A.weight")]
            delta = lora[module + ".lora_B.weight"] @ lora[name]
            out[module + ".weight"] = p[module + ".weight"] + ALPHA / RANK * delta
    return out


def main(out):
    data = load_file(f"{out}/model_moe.safetensors")
    tok, target, doc, pos = (data[k].long() for k in ("tokens", "targets", "doc", "pos"))
    p = {k: v for k, v in data.items() if k.startswith("model.")}
    lora = adapters(p, torch.Generator().manual_seed(19))
    gold = {k: v.detach().clone() for k, v in lora.items()}
    opt = torch.optim.AdamW(lora.values(), weight_decay=0.1, lr=3e-3, betas=(0.9, 0.95), eps=1e-8)
    losses = []
    for step in range(10):
        logits, aux = gm.forward(together(p, lora), True, tok, doc, pos.to(torch.float64))
        loss = F.cross_entropy(logits.reshape(-1, gm.V), target.reshape(-1), ignore_index=-1) + aux
        opt.zero_grad()
        loss.backward()
        if step == 0:
            gold["logits"] = logits.detach().clone()
            gold.update({"grad." + k: v.grad.clone() for k, v in lora.items()})
        opt.step()
        losses.append(loss.item())
    gold["losses"] = torch.tensor(losses)
    path = f"{out}/model_lora.safetensors"
    save_file({k: v.contiguous() for k, v in gold.items()}, path)
    print(path, " ".join(f"{x:.6f}" for x in losses))


if __name__ == "__main__":
    main(sys.argv[1])
