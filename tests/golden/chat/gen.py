"""gen.py -- transformers' rendering and ids of cases.jsonl: writes expected.jsonl.

Run in this folder, with transformers and sentencepiece installed (made with transformers
5.23.0, tokenizers 0.23.3).  tokenizer.model is a vocabulary of 420 pieces that `tokenize`
trained on sentences made up for it; tokenizer_config.json is what Chimera writes for it."""
import json
from transformers import AutoTokenizer

tok = AutoTokenizer.from_pretrained(".")
with open("expected.jsonl", "w", encoding="utf-8") as out:
    for line in open("cases.jsonl", encoding="utf-8"):
        case = json.loads(line)
        text = tok.apply_chat_template(case["messages"], tokenize=False)
        ids = tok.apply_chat_template(case["messages"], tokenize=True, return_dict=False)
        ask = tok.apply_chat_template(case["messages"][:-1], tokenize=True, return_dict=False,
                                      add_generation_prompt=True)
        out.write(json.dumps({"name": case["name"], "text": text, "ids": ids, "prompt": ask},
                             ensure_ascii=False) + "\n")
