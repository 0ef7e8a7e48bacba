"""Request bodies: what vLLM accepts and what it refuses, in its own words. No I/O.

The messages are those of vLLM 0.32 (`vllm/entrypoints/openai/*/protocol.py`, `vllm/sampling_params.py`). Unknown
fields are accepted and ignored, as vLLM does. Tools, images and structured outputs are not simulated: their fields are
such unknown fields.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trimtab_cli.engine_sim.answers import THINK_END, THINK_START, count_tokens
from trimtab_cli.engine_sim.settings import Settings
from trimtab_cli.engine_sim.vocabulary import ids_of, text_of

MAX_LOGPROBS = 20
MAX_STOPS = 4
MAX_REPORTED_ERRORS = 10
MAX_SHOWN_CHARACTERS = 200
DEFAULT_COMPLETION_TOKENS = 16
MAX_SEQUENCES_PER_REQUEST = 16_384
_BUDGET_NEEDS_PARSER = (
    "thinking_token_budget is set but reasoning_config is not configured. Please set --reasoning-parser "
    "and/or --reasoning-config to use thinking_token_budget."
)
BUSY = {
    "max_num_queued_reqs": "The engine is currently busy and cannot accept new requests. ",
    "max_num_queued_tokens": "The engine has reached its prefill token backlog limit. ",
}


class ApiError(Exception):
    """An answer with an error status: vLLM's JSON error object.

    `late` errors come from the engine: a stream has begun by then, so it gets 200 and the error as its only event.
    """

    def __init__(self, status: int, message: str, kind: str, param: str | None = None, *, late: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.late = late
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": status}}


def bad_request(message: str, parameter: str | None = None, *, value: object = None) -> ApiError:
    """vLLM's validation error: the message ends in the parameter and its value."""
    extras = [f"parameter={parameter}"] if parameter else []
    if value is not None:
        extras.append(f"value={value}")
    return ApiError(400, f"{message} ({', '.join(extras)})" if extras else message, "BadRequestError", parameter)


def engine_busy(reason: str) -> ApiError:
    """The answer of an engine whose queue is full, or that drains."""
    retry = "Please try again later or on a different instance."
    return ApiError(503, BUSY[reason] + retry, "Service Unavailable", late=True)


class StreamOptions(BaseModel):
    """`stream_options`."""

    model_config = ConfigDict(extra="allow")
    include_usage: bool | None = True
    continuous_usage_stats: bool | None = False


class Message(BaseModel):
    """One chat message; content is a text or a list of parts, of which the texts count."""

    model_config = ConfigDict(extra="allow")
    role: str
    content: str | list[Any] | None = None

    @property
    def text(self) -> str:
        """The text of the message."""
        if isinstance(self.content, list):
            return "\n".join(str(part.get("text", "")) for part in self.content if isinstance(part, dict))
        return self.content or ""


class Request(BaseModel):
    """What chat and text completions have in common."""

    model_config = ConfigDict(extra="allow")
    model: str | None = None
    n: int | None = 1
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stop: str | Annotated[list[str], Field(max_length=MAX_STOPS)] | None = Field(default_factory=list)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    presence_penalty: float | None = 0.0
    frequency_penalty: float | None = 0.0
    max_tokens: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    include_stop_str_in_output: bool = False
    request_id: str | None = None
    thinking_token_budget: Any = None
    kv_transfer_params: dict[str, Any] | None = None
    return_token_ids: bool | None = None

    @property
    def samples(self) -> int:
        """How many answers are asked for."""
        return 1 if self.n is None else self.n

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends in a chunk with the usage."""
        return bool(self.stream and self.stream_options and self.stream_options.include_usage)

    @property
    def wants_usage_in_every_chunk(self) -> bool:
        """Whether each chunk of a stream tells the usage so far."""
        return bool(self.wants_usage and self.stream_options and self.stream_options.continuous_usage_stats)


R = TypeVar("R", bound=BaseModel)


class ChatRequest(Request):
    """`POST /v1/chat/completions`."""

    messages: list[Message]
    max_completion_tokens: int | None = None
    logprobs: bool | None = False
    top_logprobs: int | None = 0
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    include_reasoning: bool = True
    chat_template_kwargs: dict[str, Any] | None = None

    @property
    def output_limit(self) -> tuple[str, int | None]:
        """The field that caps the answer and its value; the newer field wins."""
        if self.max_completion_tokens is not None:
            return "max_completion_tokens", self.max_completion_tokens
        return "max_tokens", self.max_tokens


@dataclass(frozen=True, slots=True)
class RawPrompt:
    """A prompt that is given as its text, or as tokens (`given`)."""

    text: str
    given: tuple[int, ...] | None = None

    @property
    def tokens(self) -> int:
        """How many there are."""
        return count_tokens(self.text) if self.given is None else len(self.given)

    @property
    def ids(self) -> tuple[int, ...]:
        """Its tokens."""
        return tuple(ids_of(self.text)) if self.given is None else self.given

    @property
    def thought_tokens(self) -> int:
        """Tokens after the mark that opens the reasoning, where it is still open."""
        at = self.text.rfind(THINK_START)
        if at <= self.text.rfind(THINK_END):
            return 0
        begins = at + len(THINK_START)
        if self.given is None:
            return count_tokens(self.text[begins:])
        ends = accumulate(len(text_of((number,))) for number in self.given)
        return sum(end > begins for end in ends)


class CompletionRequest(Request):
    """`POST /v1/completions`."""

    prompt: str | list[str] | list[int] | list[list[int]] | None = None
    logprobs: int | None = None
    echo: bool | None = False

    @property
    def prompts(self) -> list[RawPrompt]:
        """The prompts; each is a text or a list of token ids."""
        if self.prompt is None:
            return []
        prompts = [self.prompt] if isinstance(self.prompt, str) or self._is_one_list_of_ids() else self.prompt
        return [raw_prompt(prompt) for prompt in prompts]  # type: ignore[arg-type]

    def _is_one_list_of_ids(self) -> bool:
        return isinstance(self.prompt, list) and all(isinstance(item, int) for item in self.prompt)


def raw_prompt(prompt: str | list[int]) -> RawPrompt:
    """A prompt that is given as its text or as its token ids."""
    if isinstance(prompt, str):
        return RawPrompt(prompt)
    return RawPrompt(text_of(prompt), tuple(prompt))


class TokenizeRequest(BaseModel):
    """`POST /tokenize` of a text."""

    model_config = ConfigDict(extra="allow")
    model: str | None = None
    prompt: str


def parse_tokenize(body: object) -> TokenizeRequest:
    """A text to be tokenized; raises ApiError."""
    return _validate(TokenizeRequest, body)


def parse_chat(body: object) -> ChatRequest:
    """A chat request; raises ApiError."""
    _check_raw(body)
    if isinstance(body, dict) and body.get("top_logprobs") and not body.get("logprobs"):
        raise bad_request("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs")
    request = _validate(ChatRequest, body)
    if not request.messages:
        raise bad_request("Cannot apply chat template to an empty conversation. Provide at least one message.")
    return request


def parse_completion(body: object) -> CompletionRequest:
    """A text completion request; raises ApiError."""
    _check_raw(body)
    request = _validate(CompletionRequest, body)
    if not request.prompts or not all(prompt.tokens for prompt in request.prompts):
        raise bad_request("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    return request


def _check_raw(body: object) -> None:
    """What vLLM checks before the types of the fields."""
    if not isinstance(body, dict):
        return
    if body.get("stream_options") and not body.get("stream"):
        raise bad_request("Stream options can only be defined when `stream=True`.", "stream_options")
    budget = body.get("thinking_token_budget")
    if budget is not None and (not isinstance(budget, int) or isinstance(budget, bool) or budget < -1):
        message = "`thinking_token_budget` must be a non-negative integer or -1 for unlimited."
        raise bad_request(message, "thinking_token_budget", value=budget)


def _validate(model: type[R], body: object) -> R:
    try:
        return model.model_validate(body, from_attributes=True)
    except ValidationError as error:
        raise validation_error(error.errors(include_url=False)) from error


def validation_error(errors: Any) -> ApiError:
    """pydantic's errors as vLLM words them, the first ten in full."""
    rows = [_error_row(error) for error in errors]
    label = "error" if len(rows) == 1 else "errors"
    lines = [f"{len(rows)} validation {label}:", *(f"  {row}" for row in rows[:MAX_REPORTED_ERRORS])]
    if len(rows) > MAX_REPORTED_ERRORS:
        lines.append(f"  ...and {len(rows) - MAX_REPORTED_ERRORS} more {label}")
    return ApiError(400, "\n".join(lines), "Bad Request", str(rows[0]["loc"]))


def _error_row(error: dict[str, Any]) -> dict[str, object]:
    # pydantic names the branch of a union in the location; the sender knows fields only.
    location = [str(part) for part in error["loc"] if part != "str" and "[" not in str(part)]
    row = {"type": error["type"], "loc": ".".join(["body", *location]), "msg": error["msg"]}
    row["input"] = _shown(error["input"])
    if error.get("ctx"):
        row["ctx"] = error["ctx"]
    return row


def _shown(given: object) -> str:
    """The offending value, bounded: it comes from outside."""
    if isinstance(given, dict | list):
        return f"<{type(given).__name__} of {len(given)} items>"
    text = str(given)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else text[:MAX_SHOWN_CHARACTERS] + "...[truncated]"


def check_model(request: "Request | TokenizeRequest", settings: Settings) -> str:
    """The model that answers; raises 404 for one that is not served."""
    if request.model and request.model not in settings.served_names:
        names = ", ".join(settings.served_names)
        message = f"The model `{request.model}` does not exist. Valid aliases: {names}."
        raise ApiError(404, message, "NotFoundError", "model")
    return request.model or settings.served_names[0]


def check_sampling(request: Request, *, limit: int, logprobs: int | None) -> None:
    """vLLM's checks of the sampling parameters, in its order; `limit` is the resolved cap of the answer."""
    if not 1 <= request.samples <= MAX_SEQUENCES_PER_REQUEST:
        bound = "at least 1" if request.samples < 1 else f"at most {MAX_SEQUENCES_PER_REQUEST}"
        raise bad_request(f"n must be {bound}, got {request.samples}.")
    _check_ranges(request)
    if limit < 1:
        raise bad_request(f"max_tokens must be at least 1, got {limit}.", "max_tokens", value=limit)
    if request.min_tokens < 0:
        raise bad_request(f"min_tokens must be greater than or equal to 0, got {request.min_tokens}.")
    if request.min_tokens > limit:
        raise bad_request(f"min_tokens must be less than or equal to max_tokens={limit}, got {request.min_tokens}.")
    if any(not stop for stop in request.stops):
        raise bad_request("stop cannot contain an empty string.")
    if request.temperature == 0 and request.samples > 1:
        raise bad_request(f"n must be 1 when using greedy sampling, got {request.samples}.")
    if logprobs is not None and logprobs > MAX_LOGPROBS:
        message = f"Requested sample logprobs of {logprobs}, which is greater than max allowed: {MAX_LOGPROBS}"
        raise bad_request(message, "logprobs", value=logprobs)


def _check_ranges(request: Request) -> None:
    for name in ("presence_penalty", "frequency_penalty"):
        value = getattr(request, name)
        if value is not None and not -2 <= value <= 2:
            raise bad_request(f"{name} must be in [-2, 2], got {value}.")
    temperature, top_p, top_k = request.temperature, request.top_p, request.top_k
    if temperature is not None and temperature < 0:
        raise bad_request(f"temperature must be non-negative, got {temperature}.", "temperature", value=temperature)
    if temperature is not None and temperature > 2:
        raise bad_request(f"temperature must be in [0, 2], got {temperature}.", "temperature", value=temperature)
    if top_p is not None and not 0 < top_p <= 1:
        raise bad_request(f"top_p must be in (0, 1], got {top_p}.", "top_p", value=top_p)
    if top_k is not None and top_k < -1:
        raise bad_request(f"top_k must be 0 (disable), or at least 1, got {top_k}.")


def check_length(tokens: int, settings: Settings, *, field: str, asked: int | None, default: int | None) -> int:
    """How many tokens the answer may have; raises 400 when the prompt or the cap does not fit the context window."""
    window = settings.max_model_len
    if asked is not None and asked > window:
        message = f"{field}={asked} cannot be greater than max_model_len={window}. Please request fewer output tokens."
        raise bad_request(message, field, value=asked)
    if tokens >= window:
        least = min(tokens, window + 1)
        raise bad_request(
            f"This model's maximum context length is {window} tokens. However, your prompt contains at least {least} "
            "input tokens, which exceeds this limit even without any output tokens. "
            "Please reduce the length of the input prompt.",
            "input_tokens",
            value=least,
        )
    caps = [window - tokens, settings.max_new_tokens, default if asked is None else asked]
    return min(cap for cap in caps if cap is not None)


def check_budget(request: Request, settings: Settings) -> int | None:
    """The thinking budget, None when there is no bound; raises 400 where the engine cannot enforce one."""
    budget: int | None = request.thinking_token_budget
    if budget is None or budget < 0:
        return None
    if not settings.can_budget:
        raise ApiError(400, _BUDGET_NEEDS_PARSER, "BadRequestError", late=True)
    return budget


def chat_thinks(request: ChatRequest, settings: Settings) -> bool:
    """Whether the chat template leaves the model thinking: the request's word, else its effort, else the default."""
    if settings.reasoning_parser is None:
        return False
    asked = (request.chat_template_kwargs or {}).get("enable_thinking")
    if asked is not None:
        return bool(asked)
    if request.reasoning_effort is not None:
        return request.reasoning_effort != "none"
    return settings.default_thinking


def render_chat(request: ChatRequest, *, thinks: bool) -> str:
    """The conversation as the prompt that the model reads (ChatML, as the Qwen family has it)."""
    turns = "".join(f"<|im_start|>{message.role}\n{message.text}<|im_end|>\n" for message in request.messages)
    opening = THINK_START if thinks else f"{THINK_START}\n\n{THINK_END}\n"
    return f"{turns}<|im_start|>assistant\n{opening}\n"


def completion_thinks(prompt: str, settings: Settings) -> bool:
    """Whether a raw prompt leaves a reasoning block open."""
    return settings.reasoning_parser is not None and prompt.rfind(THINK_START) > prompt.rfind(THINK_END)
