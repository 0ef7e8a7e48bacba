"""The accelerator catalogue: names, figures that hang together, labels."""

import re

import pytest

from trimtab_crds.accelerators import (
    CATALOGUE,
    GKE_LABEL,
    PRODUCT_LABEL,
    SLICES,
    Accelerator,
    accelerator,
    is_gpu_resource,
    is_known,
)

ALL = list(CATALOGUE.values())


@pytest.mark.parametrize("gpu", ALL, ids=lambda gpu: gpu.name)
def test_entries_hang_together(gpu: Accelerator):
    assert re.fullmatch(r"nvidia-[a-z0-9-]+-\d+gb", gpu.name)
    on_the_box = int(gpu.name.rpartition("-")[2].removesuffix("gb"))
    assert 0.9 * on_the_box <= gpu.memory_gib <= on_the_box
    assert gpu.resource == "nvidia.com/gpu"
    assert 300 <= gpu.bandwidth_gb_per_second <= 8000
    assert gpu.labels[PRODUCT_LABEL]
    assert set(gpu.tflops) <= {"bf16", "fp8", "fp4", "int8"}


@pytest.mark.parametrize("gpu", ALL, ids=lambda gpu: gpu.name)
def test_compute_types_follow_the_compute_capability(gpu: Accelerator):
    major, minor = map(int, gpu.compute_capability.split("."))
    assert ("fp8" in gpu.tflops) == ((major, minor) >= (8, 9))
    assert ("fp4" in gpu.tflops) == (major >= 10)


@pytest.mark.parametrize("gpu", ALL, ids=lambda gpu: gpu.name)
def test_narrower_types_are_never_slower(gpu: Accelerator):
    bf16 = gpu.flops_per_second(16)
    assert gpu.flops_per_second(8) >= bf16
    assert gpu.flops_per_second(4) >= bf16


@pytest.mark.parametrize(
    ("name", "bits", "tflops"),
    [
        pytest.param("nvidia-h100-80gb", 16, 989.5, id="h100-bf16"),
        pytest.param("nvidia-h100-80gb", 8, 1979, id="h100-fp8"),
        pytest.param("nvidia-h100-80gb", 4, 989.5, id="h100-widens-fp4"),
        pytest.param("nvidia-a100-80gb", 8, 312, id="a100-widens-fp8"),
        pytest.param("nvidia-b200-180gb", 4, 9000, id="b200-fp4"),
        pytest.param("nvidia-l4-24gb", 5, 121, id="odd-widths-are-widened"),
    ],
)
def test_operations_per_weight_width(name: str, bits: int, tflops: float):
    assert CATALOGUE[name].flops_per_second(bits) == pytest.approx(tflops * 1e12)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("nvidia-h100-80gb", "nvidia-h100-80gb"),
        ("nvidia-a100-40gb", "nvidia-tesla-a100"),
        ("nvidia-l4-24gb", "nvidia-l4"),
        ("nvidia-t4-16gb", "nvidia-tesla-t4"),
        ("nvidia-b200-180gb", "nvidia-b200"),
    ],
)
def test_gke_labels(name: str, label: str):
    assert CATALOGUE[name].labels[GKE_LABEL] == label


def test_units():
    gpu = CATALOGUE["nvidia-h100-80gb"]
    assert gpu.memory_bytes == pytest.approx(85.5e9, rel=0.01)
    assert gpu.bandwidth_bytes_per_second == pytest.approx(3.35e12)


def test_entries_can_be_keys():
    assert len(set(ALL)) == len(CATALOGUE)


def test_a_name_finds_its_entry():
    assert accelerator("nvidia-h200-141gb") is CATALOGUE["nvidia-h200-141gb"]


def test_an_unknown_name_is_told_with_the_known_ones():
    with pytest.raises(ValueError, match=r"accelerator 'h100' is not in the catalogue; use one of nvidia-t4-16gb, "):
        accelerator("h100")


@pytest.mark.parametrize("made", SLICES.values(), ids=lambda made: made.name)
def test_a_slice_is_a_part_of_its_gpu(made: Accelerator):
    gpu = CATALOGUE[made.name.partition("-mig-")[0]]
    compute, gigabytes = map(int, re.fullmatch(r"nvidia\.com/mig-([1-7])g\.(\d+)gb", made.resource).groups())  # type: ignore[union-attr]
    assert made.name == f"{gpu.name}-mig-{compute}g-{gigabytes}gb"
    assert len(made.name) <= 63
    assert made.memory_gib == pytest.approx(gigabytes, rel=0.11)
    assert made.memory_gib <= 0.51 * gpu.memory_gib
    assert made.bandwidth_gb_per_second / gpu.bandwidth_gb_per_second == pytest.approx(made.memory_gib / gpu.memory_gib)
    assert compute / 7 - 1e-9 <= made.tflops["bf16"] / gpu.tflops["bf16"] <= compute / 4 + 1e-9
    assert is_gpu_resource(made.resource)
    assert is_known(made.name)
    assert accelerator(made.name) is made


def test_a_profile_that_a_gpu_does_not_have_is_told_with_those_that_it_has():
    with pytest.raises(ValueError, match=r"use one of nvidia-h100-80gb-mig-1g-10gb, nvidia-h100-80gb-mig-1g-20gb, "):
        accelerator("nvidia-h100-80gb-mig-5g-50gb")


@pytest.mark.parametrize("resource", ["cpu", "memory", "nvidia.com/gpu.shared", "amd.com/gpu"])
def test_other_resources_are_no_gpus(resource: str):
    assert not is_gpu_resource(resource)
