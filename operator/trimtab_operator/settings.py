"""Settings from the environment, and what of kopf is set and why."""

import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import kopf

from trimtab_operator.core import names
from trimtab_operator.core.kinds import POLICY, POOL
from trimtab_operator.shell.lease import LeaseSettings
from trimtab_operator.shell.resync import selector
from trimtab_operator.shell.world import WATCHED

ENVIRONMENT = """\
environment:
  TRIMTAB_ROUTER_IMAGE       image of routers whose policy names none (required)
  TRIMTAB_WATCH_NAMESPACES   namespaces to work in, separated by commas; all when empty
  TRIMTAB_LOG_LEVEL          DEBUG, INFO, WARNING or ERROR (INFO)
  TRIMTAB_METRICS_PORT       Prometheus metrics (8080)
  TRIMTAB_PROBE_PORT         /healthz and /readyz (8081)
  TRIMTAB_LISTEN_ADDRESS     address of both (0.0.0.0)
  TRIMTAB_LEASE_NAME         Lease of the leader election (trimtab-operator)
  TRIMTAB_RESYNC_SECONDS     time between two looks at everything (300)
  POD_NAME, POD_NAMESPACE    identity of the candidate and namespace of the Lease
  KUBECONFIG                 the cluster, outside of a pod
"""


class SettingsError(ValueError):
    """A variable is missing or cannot be read; the message names it, its value and the fix."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that a deployment may set."""

    router_image: str
    namespaces: tuple[str, ...]
    log_level: str
    metrics_port: int
    probe_port: int
    listen_address: str
    resync_seconds: int
    lease: LeaseSettings
    kubeconfig: str | None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """The settings; raises SettingsError."""
        image = environment.get("TRIMTAB_ROUTER_IMAGE", "").strip()
        if not image:
            raise SettingsError("TRIMTAB_ROUTER_IMAGE is not set; set it to the image that holds `trimtab router`")
        level = environment.get("TRIMTAB_LOG_LEVEL", "INFO").upper()
        if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise SettingsError(f"TRIMTAB_LOG_LEVEL {level} is not a level; use DEBUG, INFO, WARNING or ERROR")
        watched = environment.get("TRIMTAB_WATCH_NAMESPACES", "").split(",")
        return cls(
            router_image=image,
            namespaces=tuple(dict.fromkeys(name.strip() for name in watched if name.strip())),
            log_level=level,
            metrics_port=_number(environment, "TRIMTAB_METRICS_PORT", 8080, 0, 65535),
            probe_port=_number(environment, "TRIMTAB_PROBE_PORT", 8081, 0, 65535),
            listen_address=environment.get("TRIMTAB_LISTEN_ADDRESS", "0.0.0.0"),  # noqa: S104
            resync_seconds=_number(environment, "TRIMTAB_RESYNC_SECONDS", 300, 5, 86400),
            lease=LeaseSettings(
                namespace=environment.get("POD_NAMESPACE") or "default",
                name=environment.get("TRIMTAB_LEASE_NAME") or "trimtab-operator",
                identity=environment.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}",
            ),
            kubeconfig=environment.get("KUBECONFIG") or None,
        )


def _number(environment: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isdigit() or not low <= int(text) <= high:
        raise SettingsError(f"{name} {text} is not a whole number from {low} to {high}; correct it")
    return int(text)


class _NothingCompared(kopf.AnnotationsDiffBaseStorage):
    """For change handlers, which we have none of, kopf copies every object at every event twice."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:  # noqa: ARG002
        return {}

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:  # noqa: ARG002
        return None


class _NothingInProgress(kopf.SmartProgressStorage):
    """The same for their progress; what remains is the touch by which kopf waits for the end of a daemon."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


def configure_kopf() -> kopf.OperatorSettings:
    """The settings of kopf."""
    settings = kopf.OperatorSettings()
    settings.persistence.finalizer = names.FINALIZER
    settings.persistence.diffbase_storage = _NothingCompared()
    settings.persistence.progress_storage = _NothingInProgress()
    # One leader works; the Lease elects it. Peering would pause everybody at equal priority.
    settings.peering.standalone = True
    # Without it kopf watches CRDs and namespaces of the whole cluster.
    settings.scanning.disabled = True
    settings.posting.level = logging.WARNING
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.enforce_retry_after = True
    settings.watching.server_timeout = 600
    settings.watching.connect_timeout = 10
    settings.execution.max_workers = 2
    # It would kill the process that long after any end of kopf, also after one that is followed by a new start.
    settings.process.ultimate_exiting_timeout = None
    # A loop that is told to stop ends in milliseconds; polling it would write to the object.
    settings.background.instant_exit_timeout = 0.5
    for kind in WATCHED:
        if kind not in (POOL, POLICY):
            settings.watching.label_selectors[kind.api_version, kind.plural] = selector(kind)
    return settings
