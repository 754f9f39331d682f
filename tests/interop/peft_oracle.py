#!/usr/bin/env python3
"""peft_oracle.py -- adapters as Chimera writes them, loaded by transformers and PEFT.

usage: peft_oracle.py DIR ADAPTER:BASE...    after tests/interop/lora.sh, DIR build/interop/lora
Compares PEFT's logits, adapter apart and merged, with the .logits file that Chimera wrote of
both together; then lets PEFT save the adapter and compares the two files tensor by tensor.
Needs torch, transformers 5 and peft 0.19 or newer (last run: docs/LORA.md), so it is no
part of `make test`.
"""
import pathlib
import sys
import tempfile

import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

BOUND = 1e-4  # largest |difference| / RMS, at every position


def logits(model, tokens):
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].numpy()


def apart(ours, theirs):
    return float((np.abs(ours - theirs).max(1) / np.sqrt((ours ** 2).mean(1))).max())


def same_files(ours, theirs):
    a, b = load_file(ours / "adapter_model.safetensors"), load_file(theirs / "adapter_model.safetensors")
    assert a.keys() == b.keys(), sorted(a.keys() ^ b.keys())
    for name in a:
        assert torch.equal(a[name], b[name]), name
    return len(a)


def check(folder, name, base):
    tokens = [int(t) for t in (folder / f"{name}.tokens").read_text().split(",")]
    ours = np.fromfile(folder / f"{name}.logits", dtype=np.float32).reshape(len(tokens), -1)
    model = AutoModelForCausalLM.from_pretrained(folder / base, dtype=torch.float32)
    without = apart(ours, logits(model, tokens))
    model = PeftModel.from_pretrained(model, folder / name).eval()
    beside = apart(ours, logits(model, tokens))
    with tempfile.TemporaryDirectory() as out:
        model.save_pretrained(out)
        tensors = same_files(folder / name, pathlib.Path(out))
    merged = apart(ours, logits(model.merge_and_unload(), tokens))
    ok = beside <= BOUND and merged <= BOUND and without > 100 * BOUND
    print(f"{'ok  ' if ok else 'FAIL'} {name:16} on {base:14} {beside:.1e}, merged {merged:.1e} "
          f"(without the adapter {without:.1e}); {tensors} tensors as PEFT saves them")
    return ok


if __name__ == "__main__":
    good = [check(pathlib.Path(sys.argv[1]), *pair.split(":")) for pair in sys.argv[2:]]
    sys.exit(0 if all(good) else 1)
