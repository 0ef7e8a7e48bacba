"""Where a pool's model comes from besides the hub: a volume with its files, and the token for gated models."""

from typing import ClassVar

from pydantic import Field

from trimtab_crds.meta import Rule, Spec


class ModelCache(Spec):
    """The volume that holds models: a claim, a folder of the node, or an OCI image."""

    claim_name: str | None = Field(
        default=None,
        description="A PersistentVolumeClaim of the namespace, shared by all replicas: ReadWriteMany, or ReadOnlyMany "
        "with `readOnly`.",
        pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
        max_length=253,
    )
    host_path: str | None = Field(
        default=None,
        description="A folder of every node. It must exist and, unless `readOnly`, be writable for "
        "`engine.pod.runAsUser`. Pod Security restricted and baseline forbid it; a claim of a local volume is allowed.",
        pattern=r"^/[^\s:]*$",
        max_length=512,
    )
    image: str | None = Field(
        default=None,
        description="An OCI image or artifact with the model's files, mounted read-only as an image volume "
        "(Kubernetes 1.35 or later).",
        min_length=1,
        max_length=512,
    )
    mount_path: str = Field(
        default="/models",
        description="Where the engine finds it. The hub's files are kept here when model.name is a Hugging Face id.",
        pattern=r"^/[^\s:]*[^\s:/]$",
        max_length=512,
    )
    read_only: bool = Field(default=False, description="Mount it read-only; an image always is.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "[has(self.claimName), has(self.hostPath), has(self.image)].filter(x, x).size() == 1",
            lambda c: sum(source is not None for source in (c.claim_name, c.host_path, c.image)) == 1,
            "model.cache needs exactly one of claimName, hostPath and image; set the one that holds the model",
        ),
    )

    @property
    def is_read_only(self) -> bool:
        """Whether nothing can be written there."""
        return self.read_only or self.image is not None


class TokenSecret(Spec):
    """A key of a Secret that holds a Hugging Face token."""

    name: str = Field(
        description="Name of the Secret, in the pool's namespace.",
        pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
        max_length=253,
    )
    key: str = Field(default="HF_TOKEN", description="Key of the token.", pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)
