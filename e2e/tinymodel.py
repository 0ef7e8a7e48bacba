"""Writes a Qwen3 checkpoint of random weights that vLLM serves on a laptop's CPU: `tinymodel.py FOLDER`.

Runs with vLLM's Python, for its numpy, safetensors and tokenizers; nothing is downloaded. What it says is
noise, but everything around the words is real: tokens, thinking, budgets, metrics, errors.

The chat template opens `<think>` in the prompt unless `enable_thinking` is false. A model of random weights
would hardly ever emit the mark itself, and vLLM counts a thinking budget from that mark on.
"""

import argparse
import importlib
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
VOCABULARY = 2048
LAYERS, HIDDEN, FEED_FORWARD = 2, 64, 128
HEADS, KV_HEADS, HEAD_SIZE = 4, 2, 32
POSITIONS = 32768
SEED = 0
# Docstrings are English that every Python carries.
CORPUS = ("argparse", "asyncio", "collections", "datetime", "email", "functools", "itertools", "json", "pathlib")

CHAT_TEMPLATE = """\
{%- if tools %}<|im_start|>system
Tools:
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif -%}
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content if message.content is string else '' }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
<think>
{% if enable_thinking is defined and not enable_thinking %}
</think>

{% endif %}{%- endif -%}
"""


def corpus() -> Iterator[str]:
    """Text to learn word pieces from."""
    yield "The quick brown fox jumps over the lazy dog. 0 1 2 3 4 5 6 7 8 9\n"
    for name in CORPUS:
        module = importlib.import_module(name)
        members = sorted(inspect.getmembers(module), key=lambda member: member[0])
        docs = (inspect.getdoc(thing) for thing in (module, *(value for _, value in members)))
        yield from (doc for doc in docs if doc)


def tokenizer() -> Tokenizer:
    """A byte-level BPE of `VOCABULARY` tokens, the marks of Qwen3 among them."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(MARKS),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(corpus(), trainer)
    made.add_tokens([AddedToken(mark, normalized=False, special=False) for mark in MARKS])
    return made


def config(end: int, pad: int, vocabulary: int) -> dict[str, Any]:
    """The config.json of a Qwen3 of this size."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": HIDDEN,
        "intermediate_size": FEED_FORWARD,
        "num_hidden_layers": LAYERS,
        "max_window_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_SIZE,
        "vocab_size": vocabulary,
        "max_position_embeddings": POSITIONS,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "eos_token_id": end,
        "pad_token_id": pad,
    }


def weights(vocabulary: int) -> dict[str, Any]:
    """Random tensors by the names of Qwen3's checkpoint; norms are ones."""
    random = np.random.default_rng(SEED)

    def noise(*shape: int) -> Any:
        return (random.standard_normal(shape) * 0.08).astype(np.float32)

    def ones(size: int) -> Any:
        return np.ones(size, np.float32)

    queries, keys = HEADS * HEAD_SIZE, KV_HEADS * HEAD_SIZE
    tensors = {"model.embed_tokens.weight": noise(vocabulary, HIDDEN), "model.norm.weight": ones(HIDDEN)}
    for layer in (f"model.layers.{i}." for i in range(LAYERS)):
        tensors |= {
            f"{layer}input_layernorm.weight": ones(HIDDEN),
            f"{layer}post_attention_layernorm.weight": ones(HIDDEN),
            f"{layer}self_attn.q_proj.weight": noise(queries, HIDDEN),
            f"{layer}self_attn.k_proj.weight": noise(keys, HIDDEN),
            f"{layer}self_attn.v_proj.weight": noise(keys, HIDDEN),
            f"{layer}self_attn.o_proj.weight": noise(HIDDEN, queries),
            f"{layer}self_attn.q_norm.weight": ones(HEAD_SIZE),
            f"{layer}self_attn.k_norm.weight": ones(HEAD_SIZE),
            f"{layer}mlp.gate_proj.weight": noise(FEED_FORWARD, HIDDEN),
            f"{layer}mlp.up_proj.weight": noise(FEED_FORWARD, HIDDEN),
            f"{layer}mlp.down_proj.weight": noise(HIDDEN, FEED_FORWARD),
        }
    return tensors


def write(folder: Path) -> None:
    """Write the whole checkpoint into a new folder."""
    folder.mkdir(parents=True)
    made = tokenizer()
    vocabulary = made.get_vocab_size() + -made.get_vocab_size() % 64
    end, pad = made.token_to_id("<|im_end|>"), made.token_to_id("<|endoftext|>")
    made.save(str(folder / "tokenizer.json"))
    texts = {
        "config.json": config(end, pad, vocabulary),
        "generation_config.json": {"eos_token_id": [end, pad], "pad_token_id": pad, "do_sample": True},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "model_max_length": POSITIONS,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
    }
    for name, content in texts.items():
        (folder / name).write_text(json.dumps(content, indent=1))
    save_file(weights(vocabulary), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # it is made for its owner alone; a pod reads it as another user


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder to make")
    write(parser.parse_args().folder)
