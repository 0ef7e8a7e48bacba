"""The reasoning parsers that vLLM 0.32 and 0.33 have (`ReasoningParserManager`); a server with another name ends."""

from difflib import get_close_matches

REASONING_PARSERS = frozenset(
    {
        *("cohere_command3", "cohere_command4", "deepseek_r1", "deepseek_v3", "deepseek_v4", "deepseek_v41"),
        *("ernie45", "gemma4", "glm45", "glm47", "granite", "granite_thinking_parser", "hf", "holo2"),
        *("hunyuan_a13b", "hy_v3", "hy_v4", "inkling", "k2_horizon", "kimi_k2", "kimi_k3", "ling3", "mimo"),
        *("minicpmv", "minimax_m2", "minimax_m2_append_think", "minimax_m3", "mistral", "muse_glimmer"),
        *("nemotron_v3", "olmo3", "openai_gptoss", "plamo3", "poolside_v1", "qwen3", "seed_oss", "step3", "step3p5"),
    }
)


def unknown_parser(name: str) -> str | None:
    """Why vLLM would end, with the nearest name; None for one that it has."""
    if name in REASONING_PARSERS:
        return None
    near = get_close_matches(name, sorted(REASONING_PARSERS), n=1)
    hint = f"set it to {near[0]}" if near else f"set it to one of {', '.join(sorted(REASONING_PARSERS))}"
    return f"model.reasoningParser {name} is none of vLLM's; {hint} or remove it"
