"""What one replica can do: a roofline of the model's shape on the GPU, corrected by what was measured.

One step of continuous batching takes

    max((2 P (pf + n) + attention) / (MFU x peak x GPUs), (W + kv) / (efficiency x bandwidth x GPUs)) + c_s n + c_0

seconds for `pf` prompt tokens and `n` decoding sequences, with P the active parameters, W the bytes of weights read
and kv the bytes of cache read. The constants (MFU 0.45, HBM efficiency 0.70, 40 us per sequence) are a prior that meets
16 published maximum-throughput points (TensorRT-LLM performance overview: Llama-3.3-70B, gpt-oss-20b and -120b on H100
and H200, 1k/1k to 32k/1k) with 12 % mean error; `Replica.correction` scales it to what a pool really does.
Units: tokens, seconds, bytes. No quantity is rounded here.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from trimtab_crds.accelerators import Accelerator
from trimtab_crds.shapes import ModelShape, shape_from_config

__all__ = [
    "ModelShape",
    "Rates",
    "Replica",
    "largest_batch",
    "memory_batch",
    "prefill_seconds",
    "rates",
    "shape_from_config",
    "step_seconds",
]

#: Share of peak operations that matrix products reach.
MODEL_FLOPS_UTILIZATION = 0.45
#: Share of peak memory bandwidth that reading weights and cache reaches.
BANDWIDTH_EFFICIENCY = 0.70
#: Scheduling, sampling and detokenisation per running sequence and step.
SECONDS_PER_SEQUENCE = 40e-6
#: Launch overhead of one step.
SECONDS_PER_STEP = 2e-3
#: Share of GPU memory that the engine may use, and what activations and CUDA graphs take of it on every GPU.
MEMORY_UTILIZATION = 0.90
ACTIVATION_BYTES_PER_GPU = 3e9
#: Measured over predicted speed outside these bounds is a fault of the measurement, not of the prior.
CORRECTION_BOUNDS = (0.5, 2.0)
#: vLLM's `--max-num-seqs` on GPUs with 70 GiB or more.
DEFAULT_MAX_SEQUENCES = 1024


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica: a model on some GPUs. `correction` is measured over predicted speed, clipped to [0.5, 2]."""

    shape: ModelShape
    accelerator: Accelerator
    gpus: int = 1
    max_sequences: int = DEFAULT_MAX_SEQUENCES
    correction: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot run; raises ValueError naming the field."""
        if self.gpus < 1:
            raise ValueError(f"gpus is {self.gpus}; a replica has at least 1")
        if self.max_sequences < 1:
            raise ValueError(f"max_sequences is {self.max_sequences}; it must be at least 1")
        if not self.correction > 0:
            raise ValueError(f"correction is {self.correction}; it must be above 0")

    def corrected(self, correction: float) -> Self:
        """The same replica with another correction factor."""
        return replace(self, correction=correction)

    @property
    def clipped_correction(self) -> float:
        """The correction factor within its bounds."""
        low, high = CORRECTION_BOUNDS
        return min(max(self.correction, low), high)

    @property
    def flops_per_second(self) -> float:
        """Operations per second that the replica reaches."""
        return MODEL_FLOPS_UTILIZATION * self.accelerator.flops_per_second(self.shape.weight_bits) * self.gpus

    @property
    def bytes_per_second(self) -> float:
        """Memory bandwidth that the replica reaches."""
        return BANDWIDTH_EFFICIENCY * self.accelerator.bandwidth_bytes_per_second * self.gpus

    @property
    def kv_capacity_bytes(self) -> float:
        """Memory left for the cache; negative when the weights do not fit."""
        usable = MEMORY_UTILIZATION * self.accelerator.memory_bytes - ACTIVATION_BYTES_PER_GPU
        return usable * self.gpus - self.shape.weight_bytes

    @property
    def kv_capacity_tokens(self) -> int:
        """Tokens of full attention that fit into the cache; 0 when the weights do not fit."""
        return max(0, int(self.kv_capacity_bytes / self.shape.kv_bytes_per_token))


@dataclass(frozen=True, slots=True)
class Rates:
    """What one replica can do inside the target.

    `prompt_tokens_per_second` is the speed of reading prompts alone, `output_tokens_per_second` that of writing alone
    at `batch` sequences. A mix shares the replica's time: a request takes `input / prompt rate + output / output rate`
    replica-seconds, and `requests_per_second` is one over that. `time_per_output_token_seconds` is what a running
    sequence then sees, prompts of others included. All rates are 0 when the model does not fit.
    """

    prompt_tokens_per_second: float
    output_tokens_per_second: float
    requests_per_second: float
    batch: int
    time_per_output_token_seconds: float


def step_seconds(
    replica: Replica,
    *,
    prefill_tokens: float,
    decode_sequences: float,
    kv_tokens: float,
    prefill_position: float = 0,
) -> float:
    """Seconds of one step.

    `kv_tokens` is the context of all decoding sequences together, `prefill_position` where in its prompt the run of
    `prefill_tokens` starts.
    """
    shape, tokens = replica.shape, prefill_tokens + decode_sequences
    mean_context = kv_tokens / decode_sequences if decode_sequences else 0
    flops = 2 * shape.active_parameters * tokens + shape.attention_flops(prefill_tokens, prefill_position)
    read = shape.weight_bytes_read(tokens) + decode_sequences * shape.kv_bytes(mean_context)
    roof = max(flops / replica.flops_per_second, read / replica.bytes_per_second)
    return (roof + SECONDS_PER_SEQUENCE * decode_sequences + SECONDS_PER_STEP) / replica.clipped_correction


def prefill_seconds(replica: Replica, *, input_tokens: float) -> float:
    """Seconds that reading one prompt adds to a busy replica: its operations, not the overhead of a step."""
    shape = replica.shape
    flops = 2 * shape.active_parameters * input_tokens + shape.attention_flops(input_tokens, 0)
    return flops / replica.flops_per_second / replica.clipped_correction


def memory_batch(replica: Replica, *, context_tokens: float) -> int:
    """Sequences of that context that fit into memory and `max_sequences`; 0 when not even one does."""
    if replica.kv_capacity_bytes <= 0:
        return 0
    per_sequence = replica.shape.kv_bytes(context_tokens)
    fitting = replica.kv_capacity_bytes / per_sequence if per_sequence else replica.max_sequences
    return int(min(replica.max_sequences, fitting))


def largest_batch(replica: Replica, *, context_tokens: float, tpot_seconds: float) -> int:
    """The largest batch that decodes inside the target and fits into memory.

    0 when not even one sequence fits. 1 also when one alone misses the target: a replica can always run one.
    """

    def inside(batch: int) -> bool:
        step = step_seconds(replica, prefill_tokens=0, decode_sequences=batch, kv_tokens=batch * context_tokens)
        return step <= tpot_seconds

    return _largest(memory_batch(replica, context_tokens=context_tokens), inside)


def rates(replica: Replica, *, input_tokens: float, output_tokens: float, tpot_seconds: float) -> Rates:
    """What the replica can do on requests of that mean size inside the target time per output token.

    The batch is the largest at which a running sequence still gets its tokens in time although the prompts of its
    successors are read in between. Run at 0.80 to 0.85 of `requests_per_second`: the knee is sharp.
    """
    input_tokens, output_tokens = max(input_tokens, 1), max(output_tokens, 1)
    context = input_tokens + output_tokens / 2
    prefill = prefill_seconds(replica, input_tokens=input_tokens)

    def decode(batch: int) -> float:
        return step_seconds(replica, prefill_tokens=0, decode_sequences=batch, kv_tokens=batch * context)

    def pace(batch: int) -> float:
        return decode(batch) + batch * prefill / output_tokens

    batch = _largest(memory_batch(replica, context_tokens=context), lambda n: pace(n) <= tpot_seconds)
    if batch == 0:
        return Rates(0.0, 0.0, 0.0, 0, float("inf"))
    return Rates(
        prompt_tokens_per_second=input_tokens / prefill,
        output_tokens_per_second=batch / decode(batch),
        requests_per_second=batch / (pace(batch) * output_tokens),
        batch=batch,
        time_per_output_token_seconds=pace(batch),
    )


def _largest(bound: int, inside: Callable[[int], bool]) -> int:
    """The largest batch up to the bound that is inside; 1 if none is, 0 if the bound is 0. `inside` is monotone."""
    low, high = min(bound, 1), bound
    while low < high:
        middle = (low + high + 1) // 2
        if inside(middle):
            low = middle
        else:
            high = middle - 1
    return low
