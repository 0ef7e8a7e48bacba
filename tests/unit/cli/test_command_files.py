"""`render` and `compile`: what they read, what they print, and what they say of files that are no good."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.badinputs import BAD_INPUTS
from support.commands import Trimtab
from support.manifests import Manifest, policy_manifest, pool_manifest, shape, tier
from support.modelshapes import config, folder
from trimtab_crds.wire import RouterConfig

Write = Callable[..., Path]


@pytest.fixture
def trimtab(capsys: pytest.CaptureFixture[str]) -> Trimtab:
    return Trimtab(capsys)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes manifests as one multi-document file and gives its path."""

    def written(*manifests: Manifest, name: str = "all.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump_all(manifests, sort_keys=False))
        return path

    return written


def everything() -> list[Manifest]:
    return [pool_manifest("low"), pool_manifest("high"), policy_manifest()]


# -- render -----------------------------------------------------------------------------------------------


def test_render_gives_flags_and_objects_of_pools_and_policies(trimtab: Trimtab, write: Write):
    ran = trimtab("render", "-f", write(*everything()), "-o", "json")
    assert ran.status == 0
    low, high, policy = json.loads(ran.out)
    assert [r["name"] for r in (low, high, policy)] == ["low", "high", "chat"]
    assert all(r["accepted"] and r["reasons"] == [] for r in (low, high, policy))
    flags = low["flags"]
    assert flags[flags.index("--served-model-name") + 1] == "low"
    assert flags[flags.index("--max-model-len") + 1] == "32768"
    assert {o["kind"] for o in low["objects"]} == {"Deployment", "Service", "PodDisruptionBudget"}
    assert {o["kind"] for o in policy["objects"]} >= {"Deployment", "Service", "ConfigMap"}
    [document] = [o["data"]["router.json"] for o in policy["objects"] if o["kind"] == "ConfigMap"]
    assert RouterConfig.model_validate_json(document).policy == "default/chat"


def test_render_as_yaml_is_the_same(trimtab: Trimtab, write: Write):
    path = write(*everything())
    as_json, as_yaml = (trimtab("render", "-f", path, "-o", o).out for o in ("json", "yaml"))
    assert yaml.safe_load(as_yaml) == json.loads(as_json)


def test_render_for_people_says_the_command_line(trimtab: Trimtab, write: Write):
    out = trimtab("render", "-f", write(*everything())).out
    assert "InferencePool default/low: accepted\n  vllm serve Qwen/Qwen3-8B \\\n" in out
    assert "    --reasoning-parser qwen3 \\\n" in out
    assert "RoutingPolicy default/chat: accepted\n  makes ConfigMap chat-router\n" in out


def test_render_uses_the_image_that_is_given(trimtab: Trimtab, write: Write):
    rendered = json.loads(trimtab("render", "-f", write(*everything()), "-o", "json", "--image", "here/router:1").out)
    [deployment] = [o for o in rendered[2]["objects"] if o["kind"] == "Deployment"]
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "here/router:1"


def test_render_takes_the_shape_of_pools_without_one_from_a_config(trimtab: Trimtab, write: Write):
    own = pool_manifest("own", spec__model__shape=shape(parametersMillions=1000))
    small, big = pool_manifest("small"), pool_manifest("big", spec__accelerator__name="nvidia-h200-141gb")
    path = write(small, big, own)
    without = json.loads(trimtab("render", "-f", path, "-o", "json").out)
    assert [r["accepted"] for r in without] == [True, True, True]
    ran = trimtab("render", "-f", path, "--shape", folder("Qwen/Qwen3-32B") / "config.json", "-o", "json")
    assert ran.status == 1
    refused, fits, kept = json.loads(ran.out)
    assert [refused["accepted"], fits["accepted"], kept["accepted"]] == [False, True, True]
    assert "model.shape.parametersMillions 32" in refused["reasons"][0]
    assert kept == without[2]


def test_render_says_which_preset_auto_is(trimtab: Trimtab, write: Write):
    path = write(pool_manifest(spec__accelerator__name="nvidia-l4-24gb", spec__recipe={"preset": "auto"}))
    out = trimtab("render", "-f", path, "--shape", folder("Qwen/Qwen3-8B")).out
    assert "\n  preset memory-saver: the weights of 15.3 GiB and one full context do not fit as they are\n" in out
    [pool] = json.loads(trimtab("render", "-f", path, "-o", "json").out)
    assert (pool["preset"], pool["presetWhy"]) == (
        "balanced",
        "model.shape is not set, so nothing is known of what fits; set it",
    )


def test_render_takes_the_folder_of_a_config(trimtab: Trimtab, write: Write):
    path, model = write(pool_manifest(spec__accelerator__name="nvidia-h100-80gb")), folder("Qwen/Qwen3-8B")
    by_folder, by_file = (trimtab("render", "-f", path, "--shape", p) for p in (model, model / "config.json"))
    assert by_folder == by_file
    assert by_folder.status == 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("{", "line 1: not JSON: Expecting property name", id="no JSON"),
        pytest.param("[]", "[] is not an object; give a model's config.json", id="no object"),
        pytest.param("{}", "config.json has no whole number num_hidden_layers", id="no model"),
        pytest.param(
            json.dumps(config("Qwen/Qwen3-8B") | {"num_attention_heads": 0}), "num_attention_heads 0", id="no heads"
        ),
        pytest.param(
            json.dumps(config("Qwen/Qwen3-8B") | {"num_hidden_layers": 2000}),
            "layers: 2000 is refused; use at most 1000",
            id="too many layers",
        ),
    ],
)
def test_a_config_that_is_none_is_refused(trimtab: Trimtab, write: Write, tmp_path: Path, text: str, problem: str):
    given = tmp_path / "config.json"
    given.write_text(text)
    said = trimtab.refused("render", "-f", write(pool_manifest()), "--shape", given)
    assert said.startswith(str(given))
    assert problem in said


def test_a_config_that_is_not_there_is_refused(trimtab: Trimtab, write: Write, tmp_path: Path):
    said = trimtab.refused("render", "-f", write(pool_manifest()), "--shape", tmp_path / "nowhere.json")
    assert said == f"{tmp_path / 'nowhere.json'}: no such file or folder; correct the path"


@pytest.mark.parametrize("bad", BAD_INPUTS, ids=lambda bad: bad.id)
def test_render_says_why_a_manifest_is_refused(trimtab: Trimtab, write: Write, bad: Any):
    ran = trimtab("render", "-f", write(bad.manifest), "-o", "json")
    assert (ran.status, ran.err) == (1, "")
    [refused] = json.loads(ran.out)
    assert refused["accepted"] is False
    assert refused["reasons"] == list(bad.problems)
    assert refused["flags"] == refused["objects"] == []


def test_one_refused_pool_does_not_hide_the_others(trimtab: Trimtab, write: Write):
    ran = trimtab("render", "-f", write(pool_manifest("low", spec__replicas=-1), pool_manifest("high")), "-o", "json")
    assert ran.status == 1
    assert [(r["name"], r["accepted"]) for r in json.loads(ran.out)] == [("high", True), ("low", False)]


def test_a_policy_on_a_refused_pool_says_so(trimtab: Trimtab, write: Write):
    path = write(pool_manifest("low", spec__replicas=-1), pool_manifest("high"), policy_manifest())
    rendered = {r["name"]: r for r in json.loads(trimtab("render", "-f", path, "-o", "json").out)}
    assert rendered["chat"]["reasons"] == ["refused pools: low; mend them first"]


def test_a_policy_alone_is_accepted_and_its_objects_are_left_out(trimtab: Trimtab, write: Write):
    [policy] = json.loads(trimtab("render", "-f", write(policy_manifest()), "-o", "json").out)
    assert policy["accepted"] is True
    assert policy["objects"] == []
    why = "the pools low, high are not in the given files; give theirs too"
    assert policy["dropped"] == [{"what": "objects", "why": why}]


def test_a_policy_with_one_pool_missing_is_refused(trimtab: Trimtab, write: Write):
    ran = trimtab("render", "-f", write(pool_manifest("low"), policy_manifest()), "-o", "json")
    assert ran.status == 1
    assert json.loads(ran.out)[1]["reasons"] == [
        "tiers[1].poolRef.name high is not an InferencePool of namespace default; create it or correct the name"
    ]


def test_apply_without_a_budget_for_every_accelerator_is_refused(trimtab: Trimtab, write: Write):
    budget = {"mode": "Apply", "gpuBudget": [{"accelerator": "nvidia-h100-80gb", "gpus": 8}]}
    path = write(pool_manifest("low"), pool_manifest("high"), policy_manifest(spec__rebalance=budget))
    ran = trimtab("render", "-f", path)
    assert ran.status == 1
    assert "RoutingPolicy default/chat: REFUSED\n  rebalance.gpuBudget has no entry for accelerator" in ran.out


# -- reading ----------------------------------------------------------------------------------------------


def test_folders_files_json_and_lists_are_read(trimtab: Trimtab, write: Write, tmp_path: Path):
    write(pool_manifest("low"), name="b.yml")
    (tmp_path / "a.json").write_text(json.dumps(pool_manifest("high")))
    (tmp_path / "notes.txt").write_text("not a manifest")
    write({"apiVersion": "v1", "kind": "List", "items": [policy_manifest(), pool_manifest("third")]}, name="c.yaml")
    rendered = json.loads(trimtab("render", "-f", tmp_path, "-o", "json").out)
    assert [r["name"] for r in rendered] == ["high", "low", "third", "chat"]


def test_several_files_are_one_set(trimtab: Trimtab, write: Write):
    files = [write(m, name=f"{i}.yaml") for i, m in enumerate(everything())]
    assert len(json.loads(trimtab("render", "-f", *files, "-o", "json").out)) == 3
    assert len(json.loads(trimtab("render", "-f", files[0], "-f", files[1], "-o", "json").out)) == 2


def test_standard_input_is_read(trimtab: Trimtab, monkeypatch: pytest.MonkeyPatch):
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO(yaml.safe_dump(pool_manifest("piped"))))
    assert json.loads(trimtab("render", "-f", "-", "-o", "json").out)[0]["name"] == "piped"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("", "{path}: no manifests in it; give files with InferencePools or RoutingPolicies", id="empty"),
        pytest.param(
            "a: b: c\n", "{path}, line 1: not YAML: mapping values are not allowed here; correct it", id="yaml"
        ),
        pytest.param(
            "kind: InferencePool\nspec:\n  replicas: 1\n  replicas: 2\n",
            "{path}, line 4: not YAML: the key 'replicas' is there twice; correct it",
            id="a key twice",
        ),
        pytest.param(
            "just words\n",
            "{path}, line 1: 'just words' is not a manifest; it needs apiVersion, kind, metadata and spec",
            id="a text",
        ),
        pytest.param(
            "---\n---\nkind: Deployment\nmetadata: {name: x}\n",
            "{path}, line 3: kind Deployment is not one that Trimtab reads; "
            "InferencePool and RoutingPolicy are: put others into another folder",
            id="another kind",
        ),
        pytest.param(
            "metadata: {name: x}\n",
            "{path}, line 1: kind missing is not one that Trimtab reads; "
            "InferencePool and RoutingPolicy are: put others into another folder",
            id="no kind",
        ),
        pytest.param(
            "kind: InferencePool\nspec: {}\n",
            "{path}, line 1: InferencePool has no metadata.name; set it",
            id="no name",
        ),
        pytest.param(
            "kind: InferencePool\nmetadata: {name: a}\n---\nkind: InferencePool\nmetadata: {name: a}\n",
            "{path}, line 4: InferencePool a is also in {path}, line 1; remove one of them",
            id="one pool twice",
        ),
        pytest.param("a: \0\n", "{path}: not YAML: unacceptable character #x0000: special characters", id="a zero"),
    ],
)
def test_a_file_that_cannot_be_read_is_said_with_its_line(trimtab: Trimtab, tmp_path: Path, text: str, sentence: str):
    path = tmp_path / "pools.yaml"
    path.write_text(text)
    assert trimtab.refused("render", "-f", path).startswith(sentence.format(path=path))


def test_paths_that_lead_nowhere(trimtab: Trimtab, tmp_path: Path):
    assert trimtab.refused("render", "-f", tmp_path / "none.yaml") == (
        f"{tmp_path}/none.yaml: no such file or folder; correct the path"
    )
    assert trimtab.refused("render", "-f", tmp_path) == (
        f"{tmp_path}: the folder has no .yaml, .yml, .json file; name another"
    )
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert trimtab.refused("render", "-f", tmp_path / "binary.yaml") == (
        f"{tmp_path}/binary.yaml: not a text in UTF-8; give a YAML or JSON file"
    )
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert trimtab.refused("render", "-f", tmp_path / "loop").startswith(f"{tmp_path}/loop: cannot be read: ")


# -- compile ----------------------------------------------------------------------------------------------


def test_compile_writes_the_routers_document(trimtab: Trimtab, write: Write, tmp_path: Path):
    out = tmp_path / "router.json"
    ran = trimtab("compile", "-f", write(*everything()), "-o", out)
    assert (ran.status, ran.out, ran.err) == (0, "", "")
    config = RouterConfig.model_validate_json(out.read_text())
    assert [(t.name, t.pool, t.thinking_tokens) for t in config.tiers] == [("low", "low", 0), ("high", "high", 4096)]
    assert config.pool("low").host == "low-engine.default.svc"


def test_compile_with_endpoints_lists_addresses(trimtab: Trimtab, write: Write):
    endpoints = ["low=http://127.0.0.1:8001", "low=http://engine-2:8001/v1", "high=http://[::1]:8002/", "high=http://h"]
    options = [word for e in endpoints for word in ("--endpoint", e)]
    config = RouterConfig.model_validate_json(trimtab("compile", "-f", write(*everything()), *options).out)
    assert config.pool("low").addresses == ["127.0.0.1:8001", "engine-2:8001"]
    assert config.pool("high").addresses == ["[::1]:8002", "h:80"]
    assert config.pool("high").host is None


def test_the_pool_that_verifies_needs_an_endpoint_too(trimtab: Trimtab, write: Write):
    judged = {"type": "BestOfN", "verifierPoolRef": {"name": "judge"}}
    policy = policy_manifest(spec__classes=[{"name": "math", "tier": "high", "strategy": judged}])
    pools = [pool_manifest(name) for name in ("low", "high", "judge")]
    endpoints = [word for name in ("low", "high", "judge") for word in ("--endpoint", f"{name}=http://h:1")]
    ran = trimtab("compile", "-f", write(*pools, policy), *endpoints)
    assert {pool["name"]: pool["addresses"] for pool in json.loads(ran.out)["pools"]}["judge"] == ["h:1"]


@pytest.mark.parametrize(
    ("endpoints", "sentence"),
    [
        (
            ["mid=http://127.0.0.1:1"],
            "--endpoint mid=http://127.0.0.1:1: the policy has no pool 'mid'; use one of low, high",
        ),
        (["low=http://127.0.0.1:1"], "--endpoint: none for high; add --endpoint high=http://HOST:PORT"),
        *(
            ([f"low={url}"], f"--endpoint low={url}: not a plain HTTP address; write POOL=http://HOST:PORT")
            for url in (
                "https://h",
                "h:1",
                "http://",
                "http://h/v2",
                "http://h?a=b",
                "http://h:99999",
                "http://[::1",
                "",
            )
        ),
    ],
)
def test_endpoints_that_make_no_sense(trimtab: Trimtab, write: Write, endpoints: list[str], sentence: str):
    options = [word for e in endpoints for word in ("--endpoint", e)]
    assert trimtab.refused("compile", "-f", write(*everything()), *options) == sentence


def test_compile_needs_exactly_one_policy(trimtab: Trimtab, write: Write):
    none = write(pool_manifest("low"), name="none.yaml")
    assert trimtab.refused("compile", "-f", none) == f"{none}: no RoutingPolicy; add one, or name its file with -f"
    two = write(*everything(), policy_manifest("other"), name="two.yaml")
    assert trimtab.refused("compile", "-f", two) == (
        f"{two}: 2 RoutingPolicies (chat, other), one is needed; name the file of one"
    )


def test_compile_refuses_what_render_refuses(trimtab: Trimtab, write: Write):
    path = write(pool_manifest("low", spec__replicas=-1), policy_manifest())
    assert trimtab.refused("compile", "-f", path) == (
        f"{path}, line 1: InferencePool low: spec.replicas: -1 is refused; use at least 0"
    )
    path = write(pool_manifest("low"), policy_manifest(spec__tiers=[tier("low", pool="else")]))
    assert trimtab.refused("compile", "-f", path) == (
        "RoutingPolicy chat: tiers[0].poolRef.name else is not an InferencePool of namespace default; "
        "create it or correct the name"
    )


def test_compile_cannot_write_into_nowhere(trimtab: Trimtab, write: Write, tmp_path: Path):
    out = tmp_path / "no" / "router.json"
    assert trimtab.refused("compile", "-f", write(*everything()), "-o", out) == (
        f"{out}: cannot be written: No such file or directory"
    )
