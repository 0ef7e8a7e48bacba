"""The accelerator catalogue: what one GPU can do, and how Kubernetes nodes that have it are labelled.

Peak figures are dense (no structured sparsity) and come from NVIDIA's data sheets: H100, H200, A100, L4, L40S, T4, A10,
DGX B200, DGX B300, GB200 NVL72, RTX PRO 6000 Blackwell Server Edition, the Ada and Blackwell GeForce white papers, and
AWS's G5 page for the A10G. `memory_gib` is what the driver reports to programs: less than the number on the box where
ECC takes its share. Node labels are those of GKE (`cloud.google.com/gke-accelerator`), Karpenter on EKS
(`karpenter.k8s.aws/instance-gpu-name`) and NVIDIA's GPU feature discovery (`nvidia.com/gpu.product`, on AKS, EKS and
bare metal).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

GKE_LABEL = "cloud.google.com/gke-accelerator"
KARPENTER_LABEL = "karpenter.k8s.aws/instance-gpu-name"
PRODUCT_LABEL = "nvidia.com/gpu.product"
NVIDIA_RESOURCE = "nvidia.com/gpu"


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One GPU model.

    `tflops` maps a compute type (bf16, fp8, fp4, int8) to dense tera-operations per second; a type that the hardware
    does not multiply in is absent. `bf16` means 16-bit floats; the T4 has float16 only.
    """

    name: str
    memory_gib: float
    bandwidth_gb_per_second: float
    tflops: Mapping[str, float] = field(hash=False)
    compute_capability: str
    labels: Mapping[str, str] = field(hash=False)
    resource: str = NVIDIA_RESOURCE

    @property
    def memory_bytes(self) -> float:
        """Memory in bytes."""
        return self.memory_gib * 2**30

    @property
    def bandwidth_bytes_per_second(self) -> float:
        """Peak memory bandwidth in bytes per second."""
        return self.bandwidth_gb_per_second * 1e9

    def flops_per_second(self, weight_bits: int) -> float:
        """Peak operations per second for weights of that width.

        Weights narrower than the hardware multiplies in are widened to 16 bits first (vLLM's weight-only kernels), so
        they save memory and bandwidth but no operations.
        """
        native = {4: "fp4", 8: "fp8", 16: "bf16"}.get(weight_bits, "bf16")
        return self.tflops.get(native, self.tflops["bf16"]) * 1e12


def _gpu(
    name: str,
    *,
    memory_gib: float,
    gb_per_second: float,
    compute_capability: str,
    product: str,
    gke: str = "",
    karpenter: str = "",
    **tflops: float,
) -> Accelerator:
    labels = {GKE_LABEL: gke, KARPENTER_LABEL: karpenter, PRODUCT_LABEL: product}
    return Accelerator(
        name=name,
        memory_gib=memory_gib,
        bandwidth_gb_per_second=gb_per_second,
        tflops=MappingProxyType(tflops),
        compute_capability=compute_capability,
        labels=MappingProxyType({key: value for key, value in labels.items() if value}),
    )


_ALL = (
    _gpu(
        "nvidia-t4-16gb",
        memory_gib=15.0,
        gb_per_second=320,
        compute_capability="7.5",
        product="Tesla-T4",
        gke="nvidia-tesla-t4",
        karpenter="t4",
        bf16=65,
        int8=130,
    ),
    _gpu(
        "nvidia-a100-40gb",
        memory_gib=40.0,
        gb_per_second=1555,
        compute_capability="8.0",
        product="NVIDIA-A100-SXM4-40GB",
        gke="nvidia-tesla-a100",
        karpenter="a100",
        bf16=312,
        int8=624,
    ),
    _gpu(
        "nvidia-a100-80gb",
        memory_gib=80.0,
        gb_per_second=2039,
        compute_capability="8.0",
        product="NVIDIA-A100-SXM4-80GB",
        gke="nvidia-a100-80gb",
        karpenter="a100",
        bf16=312,
        int8=624,
    ),
    _gpu(
        "nvidia-a10-24gb",
        memory_gib=22.5,
        gb_per_second=600,
        compute_capability="8.6",
        product="NVIDIA-A10",
        bf16=125,
        int8=250,
    ),
    _gpu(
        "nvidia-a10g-24gb",
        memory_gib=22.5,
        gb_per_second=600,
        compute_capability="8.6",
        product="NVIDIA-A10G",
        karpenter="a10g",
        bf16=70,
        int8=140,
    ),
    _gpu(
        "nvidia-l4-24gb",
        memory_gib=22.5,
        gb_per_second=300,
        compute_capability="8.9",
        product="NVIDIA-L4",
        gke="nvidia-l4",
        karpenter="l4",
        bf16=121,
        fp8=242.5,
        int8=242.5,
    ),
    _gpu(
        "nvidia-l40s-48gb",
        memory_gib=45.0,
        gb_per_second=864,
        compute_capability="8.9",
        product="NVIDIA-L40S",
        karpenter="l40s",
        bf16=362,
        fp8=733,
        int8=733,
    ),
    _gpu(
        "nvidia-rtx-4090-24gb",
        memory_gib=24.0,
        gb_per_second=1008,
        compute_capability="8.9",
        product="NVIDIA-GeForce-RTX-4090",
        bf16=165.2,
        fp8=330.3,
        int8=660.6,
    ),
    _gpu(
        "nvidia-h100-80gb",
        memory_gib=79.6,
        gb_per_second=3350,
        compute_capability="9.0",
        product="NVIDIA-H100-80GB-HBM3",
        gke="nvidia-h100-80gb",
        karpenter="h100",
        bf16=989.5,
        fp8=1979,
        int8=1979,
    ),
    _gpu(
        "nvidia-h100-nvl-94gb",
        memory_gib=93.6,
        gb_per_second=3938,
        compute_capability="9.0",
        product="NVIDIA-H100-NVL",
        bf16=835.5,
        fp8=1671,
        int8=1671,
    ),
    _gpu(
        "nvidia-h200-141gb",
        memory_gib=140.4,
        gb_per_second=4800,
        compute_capability="9.0",
        product="NVIDIA-H200",
        gke="nvidia-h200-141gb",
        karpenter="h200",
        bf16=989.5,
        fp8=1979,
        int8=1979,
    ),
    _gpu(
        "nvidia-b200-180gb",
        memory_gib=179.0,
        gb_per_second=8000,
        compute_capability="10.0",
        product="NVIDIA-B200",
        gke="nvidia-b200",
        karpenter="b200",
        bf16=2250,
        fp8=4500,
        fp4=9000,
        int8=4500,
    ),
    _gpu(
        "nvidia-gb200-186gb",
        memory_gib=184.0,
        gb_per_second=8000,
        compute_capability="10.0",
        product="NVIDIA-GB200",
        gke="nvidia-gb200",
        bf16=2500,
        fp8=5000,
        fp4=10000,
        int8=5000,
    ),
    _gpu(
        "nvidia-b300-288gb",
        memory_gib=268.0,
        gb_per_second=8000,
        compute_capability="10.3",
        product="NVIDIA-B300-SXM6-AC",
        gke="nvidia-b300",
        bf16=2250,
        fp8=4500,
        fp4=13500,
    ),
    _gpu(
        "nvidia-rtx-5090-32gb",
        memory_gib=31.8,
        gb_per_second=1792,
        compute_capability="12.0",
        product="NVIDIA-GeForce-RTX-5090",
        bf16=209.5,
        fp8=419,
        fp4=1676,
        int8=838,
    ),
    _gpu(
        "nvidia-rtx-pro-6000-96gb",
        memory_gib=95.6,
        gb_per_second=1597,
        compute_capability="12.0",
        product="NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition",
        gke="nvidia-rtx-pro-6000",
        karpenter="rtx-pro-server-6000",
        bf16=500,
        fp8=1000,
        fp4=2000,
        int8=1000,
    ),
)

CATALOGUE: Mapping[str, Accelerator] = MappingProxyType({gpu.name: gpu for gpu in _ALL})

#: Stands between the GPU's name and the profile in the name of a slice.
SLICE_MARK = "-mig-"
#: Of GPU names: all compute slices, and the profiles as (compute slices, GB).
_MIG_PROFILES: Mapping[str, tuple[int, tuple[tuple[int, int], ...]]] = MappingProxyType(
    {
        "nvidia-a100-40gb": (7, ((1, 5), (1, 10), (2, 10), (3, 20), (4, 20))),
        "nvidia-a100-80gb": (7, ((1, 10), (1, 20), (2, 20), (3, 40), (4, 40))),
        "nvidia-h100-80gb": (7, ((1, 10), (1, 20), (2, 20), (3, 40), (4, 40))),
        "nvidia-h100-nvl-94gb": (7, ((1, 12), (1, 24), (2, 24), (3, 47), (4, 47))),
        "nvidia-h200-141gb": (7, ((1, 18), (1, 35), (2, 35), (3, 71), (4, 71))),
        "nvidia-b200-180gb": (7, ((1, 23), (1, 45), (2, 45), (3, 90), (4, 90))),
        "nvidia-rtx-pro-6000-96gb": (4, ((1, 24), (2, 48))),
    }
)


def _slice(gpu: Accelerator, *, compute: int, of: int, gigabytes: int) -> Accelerator:
    """Memory and bandwidth go with the memory slices, operations with the compute slices."""
    on_the_box = int(gpu.name.rpartition("-")[2].removesuffix("gb"))
    share = gigabytes / on_the_box
    return replace(
        gpu,
        name=f"{gpu.name}{SLICE_MARK}{compute}g-{gigabytes}gb",
        memory_gib=gpu.memory_gib * share,
        bandwidth_gb_per_second=gpu.bandwidth_gb_per_second * share,
        tflops=MappingProxyType({kind: value * compute / of for kind, value in gpu.tflops.items()}),
        resource=f"nvidia.com/mig-{compute}g.{gigabytes}gb",
    )


#: Slices of GPUs (NVIDIA MIG, strategy mixed), each an accelerator of its own with a resource of its own. Profiles are
#: those of NVIDIA's MIG user guide: `nvidia-h100-80gb-mig-3g-40gb` is `nvidia.com/mig-3g.40gb` to the device plugin.
SLICES: Mapping[str, Accelerator] = MappingProxyType(
    {
        made.name: made
        for name, (whole, profiles) in _MIG_PROFILES.items()
        for compute, gigabytes in profiles
        for made in [_slice(CATALOGUE[name], compute=compute, of=whole, gigabytes=gigabytes)]
    }
)


def is_known(name: str) -> bool:
    """Whether it is the name of a GPU or of a slice."""
    return name in CATALOGUE or name in SLICES


def is_gpu_resource(resource: str) -> bool:
    """Whether a resource of a pod is GPUs: whole ones or slices."""
    return resource == NVIDIA_RESOURCE or resource.startswith("nvidia.com/mig-")


def accelerator(name: str) -> Accelerator:
    """The GPU or slice of that name.

    Raises ValueError that lists the known names.
    """
    found = CATALOGUE.get(name) or SLICES.get(name)
    if found is None:
        raise ValueError(f"accelerator {name!r} is not in the catalogue; use one of {_suggested(name, CATALOGUE)}")
    return found


def _suggested(name: str, names: Iterable[str]) -> str:
    """The slices of a GPU where one was meant, else the names given."""
    gpu, mark, _ = name.partition(SLICE_MARK)
    slices = [known for known in SLICES if mark and known.startswith(gpu + mark)]
    return ", ".join(slices or names)


def suggestions(name: str) -> str:
    """What to use instead of an unknown name."""
    return _suggested(name, sorted(CATALOGUE))
