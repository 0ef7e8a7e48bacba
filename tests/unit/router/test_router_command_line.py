"""The command line's options and mistakes; the admin port's answers."""

import asyncio

import httpx
import pytest

from support.running import on_loop
from trimtab_router.__main__ import main, options
from trimtab_router.shell.admin import admin_app
from trimtab_router.shell.endpoints import resolve
from trimtab_router.shell.fleet import Fleet
from trimtab_router.shell.options import Options
from trimtab_router.shell.supervisor import StartError, reserve

BAD = {
    "no file": ([], "the following arguments are required: --config"),
    "no port": (["--config", "x", "--listen", "8080"], "'8080' is not HOST:PORT, for example 0.0.0.0:8080"),
    "a large port": (["--config", "x", "--admin", "h:70000"], "'h:70000' is not HOST:PORT, for example 0.0.0.0:8080"),
    "no worker": (["--config", "x", "--workers", "0"], "'0' is not a whole number from 1 to 1024"),
    "a word": (["--config", "x", "--idle-seconds", "soon"], "'soon' is not a number of seconds from 0 to 86400"),
    "negative": (["--config", "x", "--drain-seconds=-1"], "'-1' is not a number of seconds from 0 to 86400"),
    "a small log": (
        ["--config", "x", "--decision-log-mib", "7"],
        "'7' is not a whole number of MiB from 8 to 1048576",
    ),
    "another model": (["--config", "x", "--classifier", "big"], "invalid choice: 'big'"),
}


@pytest.mark.parametrize(("argv", "message"), BAD.values(), ids=BAD)
def test_a_wrong_option_is_named(capsys, argv, message):
    with pytest.raises(SystemExit) as end:
        options(argv)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_options_are_what_was_given():
    argv = "--config f --listen [::1]:0 --admin 0.0.0.0:9 --workers 3 --classifier off --first-byte-seconds 2.5"
    found = options(
        [*argv.split(), "--keys", "k", "--max-body-mib", "2", "--decision-log", "-", "--decision-log-mib", "9"]
    )
    assert found == Options(
        config="f",
        keys="k",
        host="::1",
        port=0,
        admin_host="0.0.0.0",
        admin_port=9,
        workers=3,
        classifier=False,
        first_byte_seconds=2.5,
        max_body_bytes=2 * 1024 * 1024,
        decision_log="-",
        decision_log_bytes=9 * 1024 * 1024,
    )
    assert Options(**found.as_dict()) == found


def test_a_port_in_use_is_named():
    with reserve("--listen", "127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StartError) as refusal:
            reserve("--listen", "127.0.0.1", port)
    assert str(refusal.value) == (
        f"--listen: 127.0.0.1:{port} cannot be used (Address already in use); choose another address"
    )


def test_a_host_without_an_address_is_named(capsys):
    assert main(["--config", "x", "--listen", "a..b:80"]) == 1
    assert capsys.readouterr().err.startswith("trimtab router: --listen: a..b:80 has no address (")


def test_the_admin_port_says_what_the_fleet_says():
    fleet = Fleet()

    async def ask():
        transport = httpx.ASGITransport(admin_app(fleet))
        async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
            return [await client.get(path) for path in ("/healthz", "/readyz", "/metrics")]

    health, ready, metrics = asyncio.run(ask())
    assert (health.status_code, ready.status_code, ready.text) == (503, 503, "no worker reports\n")
    assert "trimtab_router_workers 0.0" in metrics.text
    assert metrics.headers["content-type"].startswith("text/plain")
    keys = {"counts": {"acme": 0}, "problems": ["tenant acme has no API key"]}
    report = {"configured": True, "policy": "a/b", "hash": "h", "pools": {}, "valid": True, "keys": keys}
    fleet.started(7)
    fleet.heard(
        7,
        {
            **report,
            "tally": {
                "tiers": {},
                "requests": [],
                "decisions": {"counts": [0] * 12, "total": 0},
                "log": {"written": 0, "dropped": 0},
                "prefills": [],
            },
        },
    )
    health, ready, metrics = asyncio.run(ask())
    assert (health.text, ready.status_code, ready.text) == ("ok\n", 200, "ok\ntenant acme has no API key\n")
    assert 'trimtab_router_tenant_keys{policy="a/b",tenant="acme"} 0.0' in metrics.text
    assert 'trimtab_router_config_info{hash="h",policy="a/b"} 1.0' in metrics.text
    fleet.draining = True
    health, ready, _ = asyncio.run(ask())
    assert (health.status_code, ready.status_code, ready.text) == (200, 503, "draining\ntenant acme has no API key\n")


@on_loop
async def test_a_name_is_resolved_to_its_addresses():
    assert ("127.0.0.1", 81) in await resolve("localhost", 81)
    assert await resolve("127.0.0.1", 81) == [("127.0.0.1", 81)]
    assert await resolve("a..b", 81) is None
