"""Probes: late loops and faults are deaths, standing by is not."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import pytest

from support.operatorparts import Clock
from trimtab_operator.shell.health import Health, serve


@pytest.fixture
def clock() -> Clock:
    return Clock(0)


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(clock)


def test_a_loop_that_keeps_its_promise_is_alive(health: Health, clock: Clock):
    health.beat("loop", promised_seconds=30)
    clock.now = 30
    assert health.dead() == []


def test_a_loop_that_is_late_is_a_death(health: Health, clock: Clock):
    health.beat("loop", promised_seconds=30)
    clock.now = 31
    assert health.dead() == ["loop is silent for 31 s, it promised 30 s"]


def test_a_loop_that_ended_on_purpose_is_forgotten(health: Health, clock: Clock):
    health.beat("loop", promised_seconds=30)
    health.forget("loop")
    clock.now = 1000
    assert health.dead() == []


def test_a_fault_is_a_death_until_it_is_gone(health: Health):
    health.fault("watches", "no longer heard: Pod")
    assert health.dead() == ["watches: no longer heard: Pod"]
    health.fault("watches", None)
    assert health.dead() == []


def test_ready_is_who_does_its_part_and_lives(health: Health):
    assert not health.is_ready()
    health.set_ready(True)
    assert health.is_ready()
    health.fault("watches", "deaf")
    assert not health.is_ready()


@pytest.fixture
def server(health: Health) -> Iterator[ThreadingHTTPServer]:
    made = serve(health, 0, "127.0.0.1")
    yield made
    made.shutdown()
    made.server_close()


def get(server: ThreadingHTTPServer, path: str) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_address[1]}{path}", timeout=5) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_probes_over_http(server: ThreadingHTTPServer, health: Health):
    assert get(server, "/healthz") == (200, {"ok": True, "why": []})
    assert get(server, "/readyz")[0] == 503
    health.set_ready(True)
    assert get(server, "/readyz")[0] == 200
    health.fault("watches", "deaf")
    assert get(server, "/healthz") == (503, {"ok": False, "why": ["watches: deaf"]})
    assert get(server, "/elsewhere")[0] == 404
