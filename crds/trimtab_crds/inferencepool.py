"""InferencePool: identical replicas of one model with one recipe on one GPU shape (`inferencepools.trimtab.dev`)."""

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from trimtab_crds.acceleratorspec import AcceleratorRef
from trimtab_crds.meta import API_VERSION, Condition, ObjectMeta, Rule, Spec, Status, Word
from trimtab_crds.modelcache import ModelCache, TokenSecret
from trimtab_crds.networkspec import Network
from trimtab_crds.nodes import Nodes
from trimtab_crds.recipespec import Recipe
from trimtab_crds.scalars import Argument, Gpus, Milliseconds, PositiveTokens, Replicas, Seconds

KIND: Literal["InferencePool"] = "InferencePool"
MANAGED_FLAGS = (
    "--host",
    "--port",
    "--served-model-name",
    "--max-model-len",
    "--revision",
    "--shutdown-timeout",
)


#: CEL: whether the argument `a` is one of them, alone or as `--flag=value`.
_IS_MANAGED = f"{list(MANAGED_FLAGS)}.exists(f, a == f || a.startsWith(f + '='))"


def _is_managed(argument: str) -> bool:
    return argument.split("=", 1)[0] in MANAGED_FLAGS


#: CEL: whether `spec.model` sets the variable `e`.
_IS_MANAGED_ENV = (
    "(e.name == 'HF_HOME' && has(self.model.cache) && !self.model.name.startsWith('/')) || "
    "(e.name == 'HF_TOKEN' && has(self.model.tokenSecret)) || (e.name == 'HF_HUB_OFFLINE' && self.model.offline)"
)


def _managed_env(spec: "InferencePoolSpec") -> list[str]:
    """The names of `engine.env` that `spec.model` sets."""
    model = spec.model
    managed = {
        "HF_HOME": model.cache is not None and model.is_on_hub,
        "HF_TOKEN": model.token_secret is not None,
        "HF_HUB_OFFLINE": model.offline,
    }
    return [variable.name for variable in spec.engine.env if managed.get(variable.name)]


class Shape(Spec):
    """The model's shape, as its Hugging Face `config.json` has it; the capacity model and recipes read it."""

    parameters_millions: int = Field(description="Parameters, in millions.", ge=1, le=100_000_000)
    active_parameters_millions: int | None = Field(
        default=None,
        description="Parameters used per token, in millions; smaller than all of them for MoE.",
        ge=1,
    )
    layers: int = Field(description="Number of layers (`num_hidden_layers`).", ge=1, le=1000)
    attention_heads: int = Field(description="Query heads (`num_attention_heads`).", ge=1, le=1024)
    kv_heads: int = Field(description="Key and value heads (`num_key_value_heads`).", ge=1, le=1024)
    head_dim: int = Field(description="Size of one head (`head_dim`).", ge=1, le=4096)
    experts: int = Field(default=0, description="Experts per MoE layer; 0 for a dense model.", ge=0, le=10_000)
    latent_attention: bool = Field(
        default=False,
        description="Multi-head latent attention (MLA, `kv_lora_rank`): one latent of `headDim` (`kv_lora_rank` plus "
        "`qk_rope_head_dim`) is cached instead of keys and values, and `kvHeads` is 1.",
    )
    query_width: int | None = Field(
        default=None,
        description="Width that a query attends with; attentionHeads times headDim if absent. With latent attention: "
        "`num_attention_heads` x (`qk_nope_head_dim` + `qk_rope_head_dim` + `v_head_dim`) / 2.",
        ge=1,
        le=10_000_000,
    )
    full_attention_layers: int | None = Field(
        default=None, description="Layers that attend to the whole context; all if absent.", ge=0, le=1000
    )
    window_tokens: int = Field(
        default=0,
        description="How far the other layers look back (`sliding_window`); 0 for linear attention.",
        ge=0,
        le=10_000_000,
    )
    max_context_tokens: int | None = Field(
        default=None,
        description="Longest context that the model allows (`max_position_embeddings`).",
        ge=1,
        le=1_000_000_000,
    )
    mtp_layers: int | None = Field(
        default=None,
        description="Layers for multi-token prediction (`num_nextn_predict_layers`); unknown if absent.",
        ge=0,
        le=64,
    )
    weight_bits: int | None = Field(
        default=None,
        description="Bits per weight of the checkpoint; guessed from model.name if absent.",
        ge=1,
        le=32,
    )
    quantization: str | None = Field(
        default=None,
        description="What the checkpoint's `quantization_config` says, in vLLM's words (fp8, awq, gptq, mxfp4, "
        "modelopt_fp4, compressed-tensors, ...).",
        pattern=r"^[a-z0-9][a-z0-9_-]*$",
        max_length=64,
    )
    float16_overflows: bool = Field(
        default=False,
        description="vLLM refuses float16 for this type of model (Gemma 2 and 3, GLM-4): GPUs without bfloat16 run it "
        "in float32.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.attentionHeads % self.kvHeads == 0",
            lambda s: s.attention_heads % s.kv_heads == 0,
            "model.shape.kvHeads {kvHeads} does not divide attentionHeads {attentionHeads}; "
            "copy both from the model's config.json",
        ),
        Rule(
            "!has(self.activeParametersMillions) || self.activeParametersMillions <= self.parametersMillions",
            lambda s: s.active_parameters_millions is None or s.active_parameters_millions <= s.parameters_millions,
            "model.shape.activeParametersMillions {activeParametersMillions} is above parametersMillions "
            "{parametersMillions}; lower it",
        ),
        Rule(
            "!has(self.fullAttentionLayers) || self.fullAttentionLayers <= self.layers",
            lambda s: (s.full_attention_layers or 0) <= s.layers,
            "model.shape.fullAttentionLayers {fullAttentionLayers} is above layers {layers}; lower it",
        ),
        Rule(
            "!has(self.quantization) || has(self.weightBits)",
            lambda s: s.quantization is None or s.weight_bits is not None,
            "model.shape.quantization {quantization} needs weightBits; set it to the bits of one weight",
        ),
        Rule(
            "!self.latentAttention || self.kvHeads == 1",
            lambda s: not s.latent_attention or s.kv_heads == 1,
            "model.shape.kvHeads {kvHeads} beside latentAttention; set it to 1: all heads share one latent",
        ),
    )


class Model(Spec):
    """Which model the pool serves."""

    name: str = Field(
        description="What vLLM loads: a Hugging Face id (Qwen/Qwen3-8B) or an absolute path in the container.",
        min_length=1,
        max_length=512,
        pattern=r"^(/[^\s]+|[A-Za-z0-9][\w.-]*(/[\w.-]+)?)$",
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit of the model.", max_length=128)
    served_name: str | None = Field(
        default=None,
        description="The name the engine answers to (`--served-model-name`); the pool's name when absent.",
        min_length=1,
        max_length=253,
    )
    context_tokens: PositiveTokens | None = Field(
        default=None,
        description="Prompt and answer together (`--max-model-len`); the model's own when absent.",
    )
    reasoning_parser: str | None = Field(
        default=None,
        description="vLLM's `--reasoning-parser` (qwen3, deepseek_r1, ...). Thinking budgets need one.",
        pattern=r"^[a-z0-9_]+$",
        max_length=64,
    )
    shape: Shape | None = Field(default=None, description="The model's shape; capacity and memory checks need it.")
    cache: ModelCache | None = Field(
        default=None, description="The volume that holds the model; every start downloads it when absent."
    )
    token_secret: TokenSecret | None = Field(
        default=None, description="The Hugging Face token (`HF_TOKEN`) for gated models."
    )
    offline: bool = Field(
        default=False,
        description="Never ask the hub (`HF_HUB_OFFLINE`). With `network.isolated`, engines reach nothing but DNS.",
    )

    @property
    def is_on_hub(self) -> bool:
        """Whether the name is a Hugging Face id, not a path."""
        return not self.name.startswith("/")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.cache) || !self.name.startsWith('/') || self.name.startsWith(self.cache.mountPath + '/') || "
            "self.name == self.cache.mountPath",
            lambda m: m.cache is None or m.is_on_hub or f"{m.name}/".startswith(f"{m.cache.mount_path}/"),
            "model.name {name} is not below model.cache.mountPath {cache.mountPath}; "
            "correct the path, or remove model.cache",
        ),
        Rule(
            "!has(self.cache) || !has(self.cache.image) || self.name.startsWith('/')",
            lambda m: m.cache is None or m.cache.image is None or not m.is_on_hub,
            "model.name {name} is not a path and model.cache.image holds files; "
            "set model.name to the model's folder below {cache.mountPath}",
        ),
        Rule(
            "!has(self.cache) || !self.cache.readOnly || self.offline || self.name.startsWith('/')",
            lambda m: m.cache is None or not m.cache.read_only or m.offline or not m.is_on_hub,
            "model.cache.readOnly keeps {name} from being downloaded; set model.offline to true, or readOnly to false",
        ),
        Rule(
            "!self.offline || has(self.cache) || self.name.startsWith('/')",
            lambda m: not m.offline or m.cache is not None or not m.is_on_hub,
            "model.offline with model.name {name} needs model.cache; set it to a volume that holds the model",
        ),
        Rule(
            "!self.offline || !has(self.tokenSecret)",
            lambda m: not m.offline or m.token_secret is None,
            "model.tokenSecret has no effect with model.offline; remove one of them",
        ),
    )


class EnvVar(Spec):
    """One environment variable of the engine."""

    name: str = Field(description="Name of the variable.", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)
    value: str = Field(default="", description="Its value.", max_length=4096)


class PodOverrides(Spec):
    """What of the engine's pod the user sets; plain Kubernetes fields, checked by the API server."""

    volumes: list[dict[str, Any]] = Field(
        default_factory=list, description="Volumes of the pod, as in a PodSpec.", max_length=32
    )
    volume_mounts: list[dict[str, Any]] = Field(
        default_factory=list, description="Where the engine's container mounts them.", max_length=32
    )
    requests: dict[str, str] = Field(
        default_factory=dict,
        description="Requests of the container besides its GPUs: cpu, memory.",
        max_length=16,
    )
    limits: dict[str, str] = Field(
        default_factory=dict,
        description="Limits of the container besides its GPUs: cpu, memory.",
        max_length=16,
    )
    image_pull_secrets: list[str] = Field(
        default_factory=list, description="Secrets for pulling the image.", max_length=16
    )
    run_as_user: int = Field(default=1000, description="User id the engine runs as; root is refused.", ge=1)
    priority_class_name: str | None = Field(
        default=None,
        description="PriorityClass of the pods; the class says whether they may preempt others.",
        pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
        max_length=253,
    )
    topology_spread: list[dict[str, Any]] | None = Field(
        default=None,
        description="Topology spread constraints, as in a PodSpec; a labelSelector for the pool's pods is added where "
        "none is given. Absent: over zones and hosts where possible. Empty: none.",
        max_length=8,
    )


class Engine(Spec):
    """The vLLM that runs in every replica."""

    image: str = Field(
        default="docker.io/vllm/vllm-openai:v0.32.0",
        description="Image of the engine; pin it by tag or digest.",
        min_length=1,
        max_length=512,
    )
    version: str = Field(
        default="0.32.0",
        description="vLLM's version in that image: flags are resolved for it.",
        pattern=r"^\d+\.\d+\.\d+$",
        max_length=32,
    )
    command: list[Argument] = Field(
        default=["vllm", "serve"],
        description="What starts the engine; the model and the resolved flags follow.",
        min_length=1,
        max_length=16,
    )
    args: list[Argument] = Field(
        default_factory=list,
        description="More vLLM flags, after the resolved ones. They may not set what the recipe or the pool owns.",
        max_length=64,
    )
    env: list[EnvVar] = Field(default_factory=list, description="Environment of the engine.", max_length=64)
    pod: PodOverrides = Field(default_factory=PodOverrides, description="Overrides of the engine's pod.")


class Scaling(Spec):
    """Lets a RoutingPolicy's rebalancer choose the number of replicas between two bounds."""

    min_replicas: Replicas = Field(default=1, description="Never fewer.")
    max_replicas: Replicas = Field(description="Never more.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            lambda s: s.min_replicas <= s.max_replicas,
            "scaling.minReplicas {minReplicas} is above maxReplicas {maxReplicas}; "
            "lower minReplicas or raise maxReplicas",
        ),
    )


class Drain(Spec):
    """How a replica that goes away ends its open answers."""

    deadline_seconds: Seconds = Field(
        default=300, description="How long running answers may take to end; then they are cut off."
    )


class Canary(Spec):
    """How the first replica of a new revision is tried before the others follow."""

    weight_percent: int = Field(
        default=10, description="Share of the pool's requests that routers send to the new revision.", ge=1, le=99
    )
    pause_seconds: Seconds = Field(
        default=600, description="How long the first new replica has to answer before more replicas follow."
    )


class Rollout(Spec):
    """How a change of the model, the engine, the recipe or the pod reaches the replicas."""

    surge: bool = Field(
        default=True,
        description="Start a new replica before an old one drains where a RoutingPolicy's GPU budget has room for it; "
        "else one old replica drains first.",
    )
    progress_deadline_seconds: Seconds = Field(
        default=1800,
        description="How long a new replica may take to get ready; then the pool goes back to the revision before. "
        "Time in a queue (scheduling gates) does not count.",
    )
    history_limit: int = Field(
        default=2, description="Earlier revisions that are kept, without replicas, to go back to.", ge=0, le=10
    )
    canary: Canary | None = Field(default=None, description="Try the first new replica with a share of the requests.")


class Slo(Spec):
    """Latency targets; the capacity of a replica is what it can do inside them."""

    time_per_output_token_milliseconds: Milliseconds = Field(
        default=100, description="Target for the time between two tokens of an answer."
    )
    time_to_first_token_milliseconds: Milliseconds = Field(
        default=5000, description="Target for the wait before the first token."
    )


class Cost(Spec):
    """What the GPUs cost; plans compare tiers by it."""

    gpu_hour_milli: int = Field(
        default=1000,
        description="Price of one GPU hour in thousandths of a currency unit.",
        ge=0,
        le=1_000_000_000,
    )


class InferencePoolSpec(Spec):
    """The desired state of a pool."""

    model: Model = Field(description="Which model the pool serves.")
    accelerator: AcceleratorRef = Field(description="The GPUs of one replica.")
    engine: Engine = Field(default_factory=Engine, description="The vLLM that runs in every replica.")
    nodes: Nodes = Field(default_factory=Nodes, description="Which GPU nodes the replicas may run on.")
    recipe: Recipe = Field(default_factory=Recipe, description="The set of vLLM optimisations.")
    replicas: Replicas = Field(default=1, description="Number of replicas; with `scaling`, the number to start from.")
    scaling: Scaling | None = Field(
        default=None, description="Bounds within which a RoutingPolicy's rebalancer moves the replicas."
    )
    drain: Drain = Field(default_factory=Drain, description="How a replica that goes away ends its answers.")
    rollout: Rollout = Field(default_factory=Rollout, description="How a change reaches the replicas.")
    slo: Slo = Field(default_factory=Slo, description="Latency targets.")
    cost: Cost = Field(default_factory=Cost, description="What the GPUs cost.")
    network: Network = Field(default_factory=Network, description="Who may reach the replicas.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.scaling) || "
            "(self.replicas >= self.scaling.minReplicas && self.replicas <= self.scaling.maxReplicas)",
            lambda s: s.scaling is None or s.scaling.min_replicas <= s.replicas <= s.scaling.max_replicas,
            "replicas {replicas} is outside scaling.minReplicas {scaling.minReplicas} to maxReplicas "
            "{scaling.maxReplicas}; set replicas to a number between them: the pool starts from it",
        ),
        Rule(
            "!has(self.recipe.parallelism) || self.recipe.parallelism.tensor * self.recipe.parallelism.pipeline * "
            "self.recipe.parallelism.prefillContext * self.recipe.parallelism.data == self.accelerator.count",
            lambda s: s.recipe.parallelism is None or s.recipe.parallelism.gpus == s.accelerator.count,
            "recipe.parallelism.tensor {recipe.parallelism.tensor} times pipeline {recipe.parallelism.pipeline} times "
            "prefillContext {recipe.parallelism.prefillContext} times data {recipe.parallelism.data} "
            "is not accelerator.count {accelerator.count}; "
            "change one of them so that every GPU of a replica is used once",
        ),
        Rule(
            f"!self.engine.args.exists(a, {_IS_MANAGED})",
            lambda s: not any(_is_managed(a) for a in s.engine.args),
            "engine.args may not set {flag}; use spec.model and spec.drain instead",
            words={
                "flag": Word(
                    f"self.engine.args.filter(a, {_IS_MANAGED})[0]",
                    lambda s: next(a for a in s.engine.args if _is_managed(a)),
                )
            },
        ),
        Rule(
            f"!self.engine.env.exists(e, {_IS_MANAGED_ENV})",
            lambda s: not _managed_env(s),
            "engine.env {name} would replace what spec.model sets; remove it, or model.cache, tokenSecret or offline",
            words={
                "name": Word(
                    f"self.engine.env.filter(e, {_IS_MANAGED_ENV})[0].name",
                    lambda s: _managed_env(s)[0],
                )
            },
        ),
    )


class Dropped(Status):
    """A part of the recipe that has no effect here and was left out."""

    what: str = Field(description="The field and its value.")
    why: str = Field(description="Why it was left out.")


class PoolCapacity(Status):
    """What one replica can do inside the SLO."""

    prompt_tokens_per_second: int = Field(description="Prompt tokens one replica reads per second.")
    output_tokens_per_second: int = Field(description="Tokens one replica writes per second at its largest batch.")
    concurrent_sequences: int = Field(description="The largest batch inside the SLO and memory.")
    source: Literal["measured", "fitted", "prior"] = Field(description="Where the figures come from.")


class InferencePoolStatus(Status):
    """What the operator observed; never an input."""

    conditions: list[Condition] = Field(
        default_factory=list,
        description="Ready, Reconciling, Stalled, RecipeValid, NodesReady, RolledOut; ScalingOwned and ChildrenOwned "
        "where others scale the pool or change its children.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    observed_generation: int | None = Field(default=None, description="The generation this status speaks of.")
    replicas: Replicas = Field(default=0, description="Pods of the pool that exist.")
    ready_replicas: Replicas = Field(default=0, description="Pods of the pool that answer.")
    desired_replicas: Replicas = Field(default=0, description="Pods that the Deployment should have now.")
    gpus: Gpus = Field(default=0, description="GPUs that the pool's pods hold now, ending ones included.")
    draining_replicas: Replicas = Field(
        default=0, description="Pods that answer what is open and are sent nothing more, or that end."
    )
    draining_since: str | None = Field(default=None, description="When the oldest drain began, RFC 3339.")
    revision: str = Field(default="", description="The Deployment that new replicas belong to.")
    updated_replicas: Replicas = Field(default=0, description="Replicas that are of that revision.")
    selector: str = Field(default="", description="Label selector of the pods, for the scale subresource.")
    flags: list[str] = Field(default_factory=list, description="The resolved flags after `vllm serve MODEL`.")
    dropped: list[Dropped] = Field(default_factory=list, description="Parts of the recipe that were left out.")
    capacity: PoolCapacity | None = Field(default=None, description="What one replica can do inside the SLO.")


class InferencePool(BaseModel):
    """The whole object."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")

    api_version: Literal["trimtab.dev/v1alpha1"] = API_VERSION
    kind: Literal["InferencePool"] = KIND
    metadata: ObjectMeta
    spec: InferencePoolSpec
    status: InferencePoolStatus | None = None

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def served_name(self) -> str:
        """The model name the engine answers to."""
        return self.spec.model.served_name or self.metadata.name
