"""The reasoning parsers that vLLM has (`ReasoningParserManager`); a server with another name ends."""

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


#: What came with 0.33.
_NEW = frozenset({"beam", "muse", "musespark1x", "step5"})


def parsers_of(version: str) -> frozenset[str]:
    """The parsers of a version of vLLM."""
    return REASONING_PARSERS if version.startswith("0.32.") else REASONING_PARSERS | _NEW


def unknown_parser(name: str, version: str) -> str | None:
    """Why that version would end, with the nearest name; None for one that it has."""
    known = parsers_of(version)
    if name in known:
        return None
    near = get_close_matches(name, sorted(known), n=1)
    hint = f"set it to {near[0]}" if near else f"set it to one of {', '.join(sorted(known))}"
    return f"model.reasoningParser {name} is none of vLLM {version}'s; {hint} or remove it"
