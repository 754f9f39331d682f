#!/usr/bin/env python3
"""speedrun_torch.py -- the model of configs/speedrun.yaml in PyTorch, trained for so many seconds.

usage: speedrun_torch.py FOLDER seconds=6 lr=16e-3 [seed=1] [beta1=0.8] [decay=0.5]

FOLDER has train.jsonl and val.jsonl, written by `tokenize head --json`: the shards' own token ids.
The layers are bench/torch_peer.py's; shapes, initial weights, batch, clipping and weight decay are
those of configs/speedrun.yaml, but documents of a row are not isolated.  AdamW, fused where the
version has it; warm-up over ten steps, then the rate holds and falls to zero over the last `decay`
of the time.  One thread; the clock is CPU seconds inside training steps.  Prints one line: rate,
tokens, seconds, bits per byte of the validation documents that fit into 30,000 tokens, version.
"""
import json
import math
import pathlib
import sys
import time

import torch
import torch.nn as nn

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))
import torch_peer as peer  # noqa: E402

T, ROWS, BOS = 256, 4, 1
D, FF, PATTERN = 64, 160, "MMAM"
peer.T, peer.VOCAB, peer.STATE, peer.HEAD, peer.SSM_HEAD = T, 1024, 16, 64, 32


def documents(path):
    with open(path) as lines:
        return [json.loads(line) for line in lines]


def rows(docs):
    """The documents as one stream cut into rows: inputs and targets, [n,T] each.  What follows a
    document's end is no target."""
    ids = torch.tensor([i for doc in docs for i in doc["ids"]])
    n = (len(ids) - 1) // T
    token, target = ids[:n * T].view(n, T), ids[1:n * T + 1].view(n, T)
    return token, target.masked_fill(target == BOS, -100)


def build():
    model = peer.Model(D, 1, FF, layers=len(PATTERN))
    model.mixer = nn.ModuleList(peer.Attention(D, 1) if kind == "A" else peer.Mamba(D)
                                for kind in PATTERN)
    for name, p in model.named_parameters():
        if p.dim() == 2 and "embed" not in name:
            out = ".out." in name
            nn.init.normal_(p, std=(p.shape[1] * (2 * len(PATTERN) if out else 1)) ** -0.5)
        elif name.endswith(".bias") and "conv" not in name:
            step = torch.empty_like(p).uniform_(math.log(1e-3), math.log(1e-1)).exp()
            p.data = step + (-torch.expm1(-step)).log()
    return model


def optimizer(model, lr, beta1):
    every = list(model.parameters())
    optim = peer.adamw([{"params": [p for p in every if p.dim() == 2], "weight_decay": 0.1},
                        {"params": [p for p in every if p.dim() != 2], "weight_decay": 0}])
    for group in optim.param_groups:
        group["betas"], group["lr"] = (beta1, 0.95), lr
    return optim


def train(model, optim, token, target, seconds, lr, decay):
    """Steps until the time is over; returns their number and the seconds they took."""
    used, step, order = 0.0, 0, torch.randperm(len(token))
    while used < seconds:
        start = time.process_time()
        at = order[torch.arange(step * ROWS, (step + 1) * ROWS) % len(order)]
        rate = lr * min(1, (step + 1) / 10, (1 - used / seconds) / decay)
        for group in optim.param_groups:
            group["lr"] = rate
        model(token[at], target[at]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1)
        optim.step()
        optim.zero_grad(set_to_none=True)
        step += 1
        used += time.process_time() - start
    return step, used


def validate(model, docs):
    chosen, total = [], 0
    for doc in docs:
        total += len(doc["ids"])
        if total > 30000:
            break
        chosen.append(doc)
    chosen.append({"ids": [BOS] * T, "bytes": 0})  # fills the last row, is no target
    token, target = rows(chosen)
    nats = 0.0
    with torch.no_grad():
        for i in range(len(token)):
            n = (target[i] != -100).sum()
            if n:
                nats += float(model(token[i:i + 1], target[i:i + 1]) * n)
    return nats / math.log(2) / sum(doc["bytes"] for doc in chosen)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    words = peer.words
    seconds, lr = float(words["seconds"]), float(words["lr"])
    folder = pathlib.Path(sys.argv[1])
    torch.set_num_threads(1)
    torch.manual_seed(int(words.get("seed", 1)))
    token, target = rows(documents(folder / "train.jsonl"))
    model = build()
    optim = optimizer(model, lr, float(words.get("beta1", 0.8)))
    step, used = train(model, optim, token, target, seconds, lr, float(words.get("decay", 0.5)))
    bpb = validate(model, documents(folder / "val.jsonl"))
    version = torch.__version__.split("+")[0]
    print(f"{words['lr']} {step * ROWS * T} {used:.2f} {bpb:.4f} {version}")


main()
