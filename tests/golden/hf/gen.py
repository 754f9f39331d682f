#!/usr/bin/env python3
"""gen.py -- transformers' GraniteMoeHybrid against Chimera, in both directions.

  gen.py make DIR           random models made and saved by transformers, their logits
                            (what is committed here; see MANIFEST)
  gen.py check DIR NAME...  folders exported by Chimera (DIR/NAME, DIR/NAME.tokens,
                            DIR/NAME.logits, as tests/interop/mkmodel writes them):
                            load, run, demand equal logits within 1e-4 of their RMS
"""
import hashlib
import pathlib
import sys

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, GraniteMoeHybridConfig
from transformers import GraniteMoeHybridForCausalLM

T = 40
COMMON = dict(vocab_size=96, hidden_size=32, num_attention_heads=4, num_key_value_heads=2,
              mamba_n_heads=4, mamba_d_head=16, mamba_d_state=8, mamba_n_groups=1,
              mamba_d_conv=4, mamba_expand=2, mamba_chunk_size=16, mamba_conv_bias=True,
              mamba_proj_bias=False, attention_bias=False, rms_norm_eps=1e-5,
              max_position_embeddings=128, initializer_range=0.15)
MODELS = {
    "dense": dict(num_hidden_layers=3, layer_types=["mamba", "attention", "mamba"],
                  num_local_experts=0, num_experts_per_tok=0, intermediate_size=48,
                  shared_intermediate_size=48, position_embedding_type=None,
                  attention_multiplier=0.3, tie_word_embeddings=True),
    "moe": dict(num_hidden_layers=3, layer_types=["attention", "mamba", "attention"],
                num_local_experts=4, num_experts_per_tok=2, intermediate_size=24,
                shared_intermediate_size=40, position_embedding_type="rope",
                rope_theta=5000.0, attention_multiplier=0.2, embedding_multiplier=3.0,
                residual_multiplier=0.4, logits_scaling=2.0, tie_word_embeddings=False),
}


def run(model, tokens):
    model.eval()
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].float().numpy()


def make(out):
    tokens = [(7 * i * i + 3 * i + 1) % 96 for i in range(T)]
    for seed, (name, keys) in enumerate(MODELS.items()):
        torch.manual_seed(seed)
        conf = GraniteMoeHybridConfig(**COMMON, **keys)
        model = GraniteMoeHybridForCausalLM(conf).float()
        with torch.no_grad():  # norms, biases, A_log, D: away from their regular starts
            for p in model.parameters():
                if p.dim() == 1:
                    p.add_(0.2 * torch.randn_like(p))
        folder = out / name
        model.save_pretrained(folder, max_shard_size="120KB" if name == "moe" else "5GB")
        (folder / "generation_config.json").unlink(missing_ok=True)
        run(model, tokens).astype("<f4").tofile(folder / "logits.f32")
    (out / "tokens.txt").write_text(",".join(map(str, tokens)) + "\n")
    lines = [f"made by gen.py make; transformers {transformers.__version__}, "
             f"torch {torch.__version__}\n"]
    for f in sorted(p for p in out.rglob("*") if p.is_file()):
        if f.suffix != ".py" and f.name != "MANIFEST":
            lines.append(f"{hashlib.sha256(f.read_bytes()).hexdigest()}  "
                         f"{f.relative_to(out)}\n")
    (out / "MANIFEST").write_text("".join(lines))


def check(folder, name):
    model, info = AutoModelForCausalLM.from_pretrained(
        folder / name, torch_dtype=torch.float32, output_loading_info=True,
        attn_implementation="eager")
    assert not any(info.values()), (name, info)
    tokens = [int(x) for x in (folder / f"{name}.tokens").read_text().split(",")]
    theirs = run(model, tokens)
    ours = np.fromfile(folder / f"{name}.logits", "<f4").reshape(theirs.shape)
    rel = np.abs(ours - theirs).max(1) / np.sqrt((ours ** 2).mean(1))
    print(f"{name:18} {type(model).__name__}: {rel.max():.1e} of the RMS at worst")
    assert rel.max() <= 1e-4, name


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(pathlib.Path(sys.argv[2]))
    else:
        print(f"transformers {transformers.__version__}, torch {torch.__version__}")
        for n in sys.argv[3:]:
            check(pathlib.Path(sys.argv[2]), n)
