"""Settings from the environment, and what of kopf they pin."""

import pytest

from trimtab_operator.__main__ import main
from trimtab_operator.settings import Settings, SettingsError, configure_kopf

IMAGE = {"TRIMTAB_ROUTER_IMAGE": "localhost/trimtab:test"}


def test_defaults():
    settings = Settings.from_environment(IMAGE)
    assert settings.namespaces == ()
    assert (settings.metrics_port, settings.probe_port, settings.log_level) == (8080, 8081, "INFO")
    assert (settings.lease.namespace, settings.lease.name) == ("default", "trimtab-operator")
    assert settings.lease.identity
    assert settings.lease.renew_deadline_seconds < settings.lease.duration_seconds


def test_everything_may_be_set():
    settings = Settings.from_environment(
        IMAGE
        | {
            "TRIMTAB_WATCH_NAMESPACES": "a, b,a,",
            "TRIMTAB_LOG_LEVEL": "debug",
            "TRIMTAB_METRICS_PORT": "0",
            "POD_NAME": "me",
            "POD_NAMESPACE": "here",
            "TRIMTAB_LEASE_NAME": "mine",
            "TRIMTAB_RESYNC_SECONDS": "30",
            "KUBECONFIG": "/x",
        }
    )
    assert settings.namespaces == ("a", "b")
    assert (settings.log_level, settings.metrics_port, settings.resync_seconds) == ("DEBUG", 0, 30)
    assert (settings.lease.identity, settings.lease.namespace, settings.lease.name) == ("me", "here", "mine")
    assert settings.kubeconfig == "/x"


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, "TRIMTAB_ROUTER_IMAGE is not set; set it to the image that holds `trimtab router`"),
        (
            IMAGE | {"TRIMTAB_LOG_LEVEL": "LOUD"},
            "TRIMTAB_LOG_LEVEL LOUD is not a level; use DEBUG, INFO, WARNING or ERROR",
        ),
        (
            IMAGE | {"TRIMTAB_PROBE_PORT": "http"},
            "TRIMTAB_PROBE_PORT http is not a whole number from 0 to 65535; correct it",
        ),
        (
            IMAGE | {"TRIMTAB_METRICS_PORT": "70000"},
            "TRIMTAB_METRICS_PORT 70000 is not a whole number from 0 to 65535; correct it",
        ),
        (
            IMAGE | {"TRIMTAB_RESYNC_SECONDS": "1"},
            "TRIMTAB_RESYNC_SECONDS 1 is not a whole number from 5 to 86400; correct it",
        ),
    ],
    ids=["no image", "level", "a word", "too large", "too often"],
)
def test_bad_settings_name_the_variable_the_value_and_the_fix(environment: dict[str, str], sentence: str):
    with pytest.raises(SettingsError) as refused:
        Settings.from_environment(environment)
    assert str(refused.value) == sentence


def test_a_bad_setting_is_exit_status_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.delenv("TRIMTAB_ROUTER_IMAGE", raising=False)
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("trimtab-operator: TRIMTAB_ROUTER_IMAGE is not set")


def test_help_shows_every_variable(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    for name in ("TRIMTAB_ROUTER_IMAGE", "TRIMTAB_WATCH_NAMESPACES", "KUBECONFIG", "POD_NAMESPACE"):
        assert name in printed


def test_kopf_leaves_no_trace_but_its_finalizer_and_watches_only_ours():
    settings = configure_kopf()
    assert settings.persistence.finalizer == "trimtab.dev/operator"
    assert settings.peering.standalone
    assert settings.scanning.disabled
    selectors = {str(key): value for key, value in settings.watching.label_selectors.items()}
    assert set(selectors.values()) == {"app.kubernetes.io/managed-by=trimtab"}
    assert len(selectors) == 6, "Deployments, Services, ConfigMaps, PodDisruptionBudgets, NetworkPolicies, Pods"
