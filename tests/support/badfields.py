"""Manifests with a field that is missing, unknown or out of its range."""

from support.badinput import BadInput, bad_policy, bad_pool
from support.manifests import REMOVED, policy_manifest, pool_manifest, tier
from trimtab_crds.accelerators import CATALOGUE

_KNOWN = ", ".join(sorted(CATALOGUE))
_NO_SUCH_FIELD = "no such field; remove it or correct its spelling (kubectl explain lists the fields)"


BAD_POOLS = (
    BadInput(
        "pool: scaling bounds the wrong way round",
        pool_manifest(spec__replicas=3, spec__scaling={"minReplicas": 3, "maxReplicas": 2}),
        ("spec.scaling: scaling.minReplicas 3 is above maxReplicas 2; lower minReplicas or raise maxReplicas",),
        "spec.scaling: Invalid value: scaling.minReplicas 3 is above maxReplicas 2; "
        "lower minReplicas or raise maxReplicas",
    ),
    bad_pool(
        "a misspelt field",
        f"spec.model.contextLength: {_NO_SUCH_FIELD}",
        'unknown field "spec.model.contextLength"',
        spec__model__contextLength=4096,
    ),
    bad_pool("no model", "spec.model: required; set it", "spec.model: Required value", spec__model=REMOVED),
    bad_pool(
        "no name of the model",
        "spec.model.name: required; set it",
        "spec.model.name: Required value",
        spec__model__name=REMOVED,
    ),
    bad_pool("no spec", "spec: required; set it", "spec: Required value", spec=REMOVED),
    bad_pool(
        "a null for a required field", "spec.model: required; set it", "spec.model: Required value", spec__model=None
    ),
    bad_pool(
        "a list for a mapping",
        "spec.model: [] is refused; give a mapping of fields",
        'spec.model in body must be of type object: "array"',
        spec__model=[],
    ),
    bad_pool(
        "an empty model",
        "spec.model.name: '' is refused; use at least 1 character",
        "spec.model.name in body should be at least 1 chars long",
        spec__model__name="",
    ),
    bad_pool(
        "a model with a space",
        r"spec.model.name: 'two words' is refused; it must match ^(/[^\s]+|[A-Za-z0-9][\w.-]*(/[\w.-]+)?)$",
        'spec.model.name: Invalid value: "two words": spec.model.name in body should match',
        spec__model__name="two words",
    ),
    bad_pool(
        "an unknown preset",
        "spec.recipe.preset: 'fast' is refused; "
        "use 'auto', 'balanced', 'interactive', 'code', 'agentic', 'search', 'reasoning', 'long-context', "
        "'throughput', 'memory-saver', 'edge' or 'high-stakes'",
        'spec.recipe.preset: Unsupported value: "fast"',
        spec__recipe={"preset": "fast"},
    ),
    bad_pool(
        "an unknown method of speculation",
        "spec.recipe.speculation.method: 'medusa' is refused; "
        "use 'none', 'ngram', 'suffix', 'mtp', 'eagle3', 'dflash', 'dspark' or 'draft_model'",
        'spec.recipe.speculation.method: Unsupported value: "medusa"',
        spec__recipe={"speculation": {"method": "medusa"}},
    ),
    bad_pool(
        "an unknown cache type",
        "spec.recipe.kvCache.dtype: 'int4' is refused; use 'auto', 'fp8' or 'fp8_e5m2'",
        'spec.recipe.kvCache.dtype: Unsupported value: "int4"',
        spec__recipe={"kvCache": {"dtype": "int4"}},
    ),
    bad_pool(
        "negative replicas",
        "spec.replicas: -1 is refused; use at least 0",
        "spec.replicas in body should be greater than or equal to 0",
        spec__replicas=-1,
    ),
    bad_pool(
        "a digit in quotes for a number",
        "spec.replicas: '2' is refused; give a whole number",
        'spec.replicas in body must be of type integer: "string"',
        spec__replicas="2",
    ),
    bad_pool(
        "true for a number",
        "spec.replicas: true is refused; give a whole number",
        'spec.replicas in body must be of type integer: "boolean"',
        spec__replicas=True,
    ),
    bad_pool(
        "half a replica",
        "spec.replicas: 1.5 is refused; give a whole number",
        'spec.replicas in body must be of type integer: "number"',
        spec__replicas=1.5,
    ),
    bad_pool(
        "too many replicas",
        "spec.replicas: 1001 is refused; use at most 1000",
        "spec.replicas in body should be less than or equal to 1000",
        spec__replicas=1001,
    ),
    bad_pool(
        "no GPU",
        "spec.accelerator.count: 0 is refused; use at least 1",
        "spec.accelerator.count in body should be greater than or equal to 1",
        spec__accelerator__count=0,
    ),
    bad_pool(
        "an accelerator that is not in the catalogue",
        f"spec.accelerator.name: 'nvidia-h100' is not in the catalogue; use one of {_KNOWN}",
        None,
        spec__accelerator__name="nvidia-h100",
    ),
    bad_pool(
        "a slice that the GPU does not have",
        "spec.accelerator.name: 'nvidia-rtx-pro-6000-96gb-mig-3g-40gb' is not in the catalogue; "
        "use one of nvidia-rtx-pro-6000-96gb-mig-1g-24gb, nvidia-rtx-pro-6000-96gb-mig-2g-48gb",
        None,
        spec__accelerator__name="nvidia-rtx-pro-6000-96gb-mig-3g-40gb",
    ),
    bad_pool(
        "an accelerator that is no label",
        "spec.accelerator.name: 'NVIDIA H100' is refused; "
        "use lower-case letters and digits, with dashes only between them",
        'spec.accelerator.name: Invalid value: "NVIDIA H100"',
        spec__accelerator__name="NVIDIA H100",
    ),
    bad_pool(
        "root",
        "spec.engine.pod.runAsUser: 0 is refused; use at least 1",
        "spec.engine.pod.runAsUser in body should be greater than or equal to 1",
        spec__engine={"pod": {"runAsUser": 0}},
    ),
    bad_pool(
        "a number for a quantity",
        "spec.engine.pod.requests.cpu: 1 is refused; give text, numbers in quotes",
        'spec.engine.pod.requests.cpu in body must be of type string: "integer"',
        spec__engine={"pod": {"requests": {"cpu": 1}}},
    ),
    bad_pool(
        "a version that is none",
        "spec.engine.version: 'latest' is refused; use three numbers such as 0.32.0",
        'spec.engine.version: Invalid value: "latest"',
        spec__engine={"version": "latest"},
    ),
    bad_pool(
        "an empty command",
        "spec.engine.command: [] is refused; give at least 1 entry",
        "spec.engine.command in body should have at least 1 items",
        spec__engine={"command": []},
    ),
    bad_pool(
        "a variable that no shell takes",
        "spec.engine.env[0].name: '1X' is refused; it must match ^[A-Za-z_][A-Za-z0-9_]*$",
        'spec.engine.env[0].name: Invalid value: "1X"',
        spec__engine={"env": [{"name": "1X"}]},
    ),
    bad_pool(
        "no time to drain",
        "spec.drain.deadlineSeconds: 0 is refused; use at least 1",
        "spec.drain.deadlineSeconds in body should be greater than or equal to 1",
        spec__drain={"deadlineSeconds": 0},
    ),
)

BAD_POLICIES = (
    bad_policy("no tiers", "spec.tiers: required; set it", "spec.tiers: Required value", spec__tiers=REMOVED),
    bad_policy(
        "an empty list of tiers",
        "spec.tiers: [] is refused; give at least 1 entry",
        "spec.tiers in body should have at least 1 items",
        spec__tiers=[],
    ),
    bad_policy(
        "a word for a list",
        "spec.tiers: 'low' is refused; give a list",
        'spec.tiers in body must be of type array: "string"',
        spec__tiers="low",
    ),
    bad_policy(
        "a tier without a pool",
        "spec.tiers[0].poolRef: required; set it",
        "spec.tiers[0].poolRef: Required value",
        spec__tiers=[{"name": "low"}],
    ),
    bad_policy(
        "two tiers of one name",
        "spec: tiers[1].name 'low' is there twice; remove one of the entries or rename it",
        'spec.tiers[1]: Duplicate value: {"name":"low"}',
        spec__tiers=[tier("low"), tier("low", pool="other")],
    ),
    bad_policy(
        "two lines for one class",
        "spec: classes[1].name 'math' is there twice; remove one of the entries or rename it",
        'spec.classes[1]: Duplicate value: {"name":"math"}',
        spec__classes=[{"name": "math", "tier": "low"}, {"name": "math", "tier": "high"}],
    ),
    bad_policy(
        "two budgets for one accelerator",
        "spec.rebalance: gpuBudget[1].accelerator 'nvidia-l4-24gb' is there twice; "
        "remove one of the entries or rename it",
        'spec.rebalance.gpuBudget[1]: Duplicate value: {"accelerator":"nvidia-l4-24gb"}',
        spec__rebalance={"gpuBudget": [{"accelerator": "nvidia-l4-24gb", "gpus": n} for n in (4, 8)]},
    ),
    bad_policy(
        "one model twice",
        "spec: models[1] 'auto' is there twice; remove one of the entries or rename it",
        'spec.models[1]: Duplicate value: "auto"',
        spec__models=["auto", "auto"],
    ),
    bad_policy(
        "a tier's name that is no label",
        "spec.tiers[0].name: 'Low Tier' is refused; use lower-case letters and digits, with dashes only between them",
        'spec.tiers[0].name: Invalid value: "Low Tier"',
        spec__tiers=[tier("Low Tier", pool="low")],
    ),
    bad_policy(
        "negative thinking",
        "spec.tiers[0].budget.thinkingTokens: -1 is refused; use at least 0",
        "spec.tiers[0].budget.thinkingTokens in body should be greater than or equal to 0",
        spec__tiers=[tier("low", thinking_tokens=-1)],
    ),
    bad_policy(
        "quality above 100",
        "spec.quality: 101 is refused; use at most 100",
        "spec.quality in body should be less than or equal to 100",
        spec__quality=101,
    ),
    bad_policy(
        "an unknown mode",
        "spec.rebalance.mode: 'On' is refused; use 'Off', 'DryRun' or 'Apply'",
        'spec.rebalance.mode: Unsupported value: "On"',
        spec__rebalance={"mode": "On"},
    ),
    bad_policy(
        "Off without quotes",
        "spec.rebalance.mode: false is refused; use 'Off', 'DryRun' or 'Apply' in quotes: "
        "YAML reads a bare On, Off, Yes or No as true or false",
        'spec.rebalance.mode in body must be of type string: "boolean"',
        spec__rebalance={"mode": False},
    ),
    bad_policy(
        "an address without a scheme",
        "spec.rebalance.prometheus.url: 'prometheus:9090' is refused; use a URL such as http://host:9090",
        'spec.rebalance.prometheus.url: Invalid value: "prometheus:9090"',
        spec__rebalance={"prometheus": {"url": "prometheus:9090"}},
    ),
    bad_policy(
        "a budget for an accelerator that is not in the catalogue",
        f"spec.rebalance.gpuBudget[0].accelerator: 'h100' is not in the catalogue; use one of {_KNOWN}",
        None,
        spec__rebalance={"gpuBudget": [{"accelerator": "h100", "gpus": 8}]},
    ),
    bad_policy(
        "no time to decide",
        "spec.classifier.deadlineMilliseconds: 0 is refused; use at least 1",
        "spec.classifier.deadlineMilliseconds in body should be greater than or equal to 1",
        spec__classifier={"deadlineMilliseconds": 0},
    ),
    bad_policy(
        "a tier worth nothing",
        "spec.tiers[0].weight: 0 is refused; use at least 1",
        "spec.tiers[0].weight in body should be greater than or equal to 1",
        spec__tiers=[tier("low") | {"weight": 0}],
    ),
    bad_policy(
        "a tenant twice",
        "spec: tenants[1].name 'a' is there twice; remove one of the entries or rename it",
        'spec.tenants[1]: Duplicate value: {"name":"a"}',
        spec__tenants=[{"name": "a"}, {"name": "a"}],
    ),
    bad_policy(
        "the name of no Secret",
        "spec.tenants[0].apiKeys.secretRef.name: 'Keys' is refused; use lower-case letters and digits, "
        "with dashes and dots only between them",
        'spec.tenants[0].apiKeys.secretRef.name: Invalid value: "Keys"',
        spec__tenants=[{"name": "a", "apiKeys": {"secretRef": {"name": "Keys"}}}],
    ),
    bad_policy(
        "a tenant's ceiling of nothing",
        "spec.tenants[0].ceiling.tokens: 0 is refused; use at least 1",
        "spec.tenants[0].ceiling.tokens in body should be greater than or equal to 1",
        spec__tenants=[{"name": "a", "ceiling": {"tokens": 0}}],
    ),
    BadInput(
        "policy: two faults, both told",
        policy_manifest(spec__quality=101, spec__manual={"maxBudget": 200}),
        ("spec.quality: 101 is refused; use at most 100", "spec.manual.maxBudget: 200 is refused; use at most 100"),
        "spec.manual.maxBudget in body should be less than or equal to 100",
    ),
)
