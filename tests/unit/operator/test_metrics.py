"""Rows of Prometheus to demand, and everything that makes it missing."""

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_api_client.exceptions import PrometheusApiClientException
from requests import ConnectionError as RequestsConnectionError
from requests import ReadTimeout

from trimtab_operator.core.fleet import Demand
from trimtab_operator.shell.metrics import MetricsUnavailable, PrometheusMetrics, demand_query

URL = "http://prometheus:9090"
POLICY = "default/chat"


@dataclass(slots=True)
class FakeClient:
    """Answers one query with rows, or with an error."""

    answer: Any
    asked: str = ""
    closed: bool = False
    may_answer: threading.Event = field(default_factory=threading.Event)
    blocks: bool = False

    def custom_query(self, query: str) -> Any:
        self.asked = query
        if self.blocks:
            self.may_answer.wait(10)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self) -> None:
        self.closed = True


def rows(tier: str = "low", **readings: object) -> list[dict[str, object]]:
    """A good answer for one tier, with some readings changed; None leaves one out."""
    whole = {"requests": "2", "prompt": "200", "output": "100", "age": "1.5", "before": "0"} | readings
    return [
        {"metric": {"tier": tier, "reading": name}, "value": [1_700_000_000.0, value]}
        for name, value in whole.items()
        if value is not None
    ]


def demand(answer: Any, *tiers: str) -> dict[str, Demand | None]:
    client = FakeClient(answer)
    source = PrometheusMetrics(URL, client=client)
    return dict(asyncio.run(source.demand(POLICY, tiers or ("low",), window_seconds=300)))


def test_a_whole_answer_is_demand() -> None:
    assert demand(rows()) == {"low": Demand(2, 200, 100)}


def test_no_traffic_is_zero_and_not_missing() -> None:
    assert demand(rows(requests="0", prompt="0", output="0")) == {"low": Demand(0, 0, 0)}


def test_tiers_are_valid_one_by_one() -> None:
    answer = [*rows("low"), *rows("high", age="61")]
    assert demand(answer, "low", "high", "other") == {"low": Demand(2, 200, 100), "high": None, "other": None}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param([], id="no-series"),
        pytest.param(rows(requests=None), id="no-requests"),
        pytest.param(rows(prompt=None), id="no-prompt-tokens"),
        pytest.param(rows(output=None), id="no-output-tokens"),
        pytest.param(rows(age=None), id="gone-now"),
        pytest.param(rows(age="60.5"), id="stale"),
        pytest.param(rows(before=None), id="younger-than-the-window"),
        pytest.param(rows(requests="NaN"), id="nan"),
        pytest.param(rows(output="+Inf"), id="infinite"),
        pytest.param(rows(prompt="-1"), id="negative"),
        pytest.param(rows(requests="many"), id="no-number"),
        pytest.param([{"metric": {}, "value": [0, "1"]}, "nonsense", {"value": 3}], id="rows-of-another-form"),
    ],
)
def test_everything_else_is_missing(answer: Any) -> None:
    assert demand(answer) == {"low": None}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (RequestsConnectionError("<object at 0x7f00>"), "cannot be reached (ConnectionError)"),
        (ReadTimeout(), "no answer in time"),
        (PrometheusApiClientException("HTTP Status Code 503 (b'starting')"), "HTTP Status Code 503 (b'starting')"),
        (ValueError("no JSON"), "the answer is not one of Prometheus's API"),
        (KeyError("data"), "the answer is not one of Prometheus's API"),
        ({"resultType": "scalar"}, "the answer is not a vector"),
    ],
    ids=["refused", "slow", "status", "no-json", "other-json", "no-vector"],
)
def test_a_source_that_cannot_be_read_says_why_in_words_that_do_not_change(answer: Any, why: str) -> None:
    with pytest.raises(MetricsUnavailable) as caught:
        demand(answer)
    assert str(caught.value) == f"Prometheus at {URL}: {why}"


def test_an_answer_that_trickles_in_is_given_up() -> None:
    client = FakeClient(rows(), blocks=True)
    source = PrometheusMetrics(URL, client=client, timeout_seconds=0.01)

    async def asked() -> None:
        try:
            await source.demand(POLICY, ["low"], window_seconds=300)
        finally:
            client.may_answer.set()

    with pytest.raises(MetricsUnavailable, match="no answer in time"):
        asyncio.run(asked())


def test_close_closes_the_connections() -> None:
    client = FakeClient([])
    asyncio.run(PrometheusMetrics(URL, client=client).close())
    assert client.closed


def test_one_query_reads_everything() -> None:
    requests = 'trimtab_router_admitted_total{policy="default/chat"}'
    prompt = 'trimtab_router_admitted_prompt_tokens_total{policy="default/chat"}'
    output = 'trimtab_router_admitted_output_tokens_total{policy="default/chat"}'
    assert demand_query(POLICY, 300).split(" or ") == [
        f'label_replace(sum by (tier) (rate({requests}[300s])), "reading", "requests", "", "")',
        f'label_replace(sum by (tier) (rate({prompt}[300s])), "reading", "prompt", "", "")',
        f'label_replace(sum by (tier) (rate({output}[300s])), "reading", "output", "", "")',
        f'label_replace(time() - max by (tier) (timestamp({requests})), "reading", "age", "", "")',
        f'label_replace(max by (tier) ({requests} offset 300s), "reading", "before", "", "")',
    ]
