"""API keys: which tenant they name, how they are refused, files that change, and that engines never see one."""

import logging
import os

import pytest

from support.routing import chat, document, ladder
from support.running import on_loop, running, with_engines
from support.upstream import FakeEngine
from trimtab_router.core.errors import ApiError
from trimtab_router.core.keys import KeyRing, digest_of, tenant_of
from trimtab_router.shell.keyfolder import KeyFolder

ACME, BETA, OTHER = "acme-key-0123456789", "beta-key-0123456789", "some-key-0123456789"
KEYED = [{"name": "acme", "keyed": True, "maxTier": "low"}, {"name": "beta", "keyed": True}]
RING = KeyRing.of({"acme": [digest_of(ACME.encode())], "beta": [digest_of(BETA.encode())]})


def write(folder, tenant, name, text):
    (folder / tenant).mkdir(exist_ok=True)
    fresh = folder / ".fresh"
    fresh.write_text(text)
    fresh.replace(folder / tenant / name)


# -- what a request says --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "asked", "tenant"),
    [
        (f"Bearer {ACME}", None, "acme"),
        (f"bearer   {BETA} ", None, "beta"),
        (f"Bearer {ACME}", "acme", "acme"),
        (None, None, "default"),
        (None, "default", "default"),
    ],
)
def test_a_key_names_its_tenant(header, asked, tenant):
    on = ladder(tenants=[*KEYED, {"name": "default"}])
    assert tenant_of([] if header is None else [header.encode()], asked, RING, on) == tenant


BAD = {
    "no key": ([], None, 401, "authorization: no API key; send Authorization: Bearer KEY"),
    "another key": (
        [f"Bearer {OTHER}"],
        None,
        401,
        "authorization: the API key is not known here; correct it or ask those who run this router for another",
    ),
    "a part of a key": ([f"Bearer {ACME[:-1]}"], None, 401, None),
    "more than a key": ([f"Bearer {ACME} {BETA}"], None, 401, None),
    "an empty key": (["Bearer "], None, 401, None),
    "another scheme": (["Basic eDp5"], None, 401, "authorization: no Bearer token; send Authorization: Bearer KEY"),
    "no scheme": ([ACME], None, 401, None),
    "twice": ([f"Bearer {ACME}"] * 2, None, 401, "authorization: there more than once; send one"),
    "another tenant": (
        [f"Bearer {ACME}"],
        "beta",
        403,
        'x-trimtab-tenant: "beta" is not the tenant that the API key names; remove the header',
    ),
    "a tenant without a key": ([], "beta", 401, None),
}


@pytest.mark.parametrize(("headers", "asked", "status", "message"), BAD.values(), ids=BAD)
def test_what_no_key_allows_is_refused_without_repeating_it(headers, asked, status, message):
    with pytest.raises(ApiError) as refusal:
        tenant_of([h.encode() for h in headers], asked, RING, ladder(tenants=KEYED))
    assert refusal.value.status == status
    assert message in (None, refusal.value.message)
    assert refusal.value.code == ("invalid_api_key" if status == 401 else "not_allowed")
    assert not any(key in refusal.value.message for key in (ACME, BETA, OTHER, ACME[:-1]))


def test_a_wrong_key_is_refused_even_where_none_is_needed():
    with pytest.raises(ApiError, match="not known here"):
        tenant_of([f"Bearer {OTHER}".encode()], None, RING, ladder(tenants=[*KEYED, {"name": "default"}]))


def test_without_a_key_no_tenant_can_be_named():
    with pytest.raises(ApiError, match='"acme" is not for requests without an API key; send its key') as refusal:
        tenant_of([], "acme", RING, ladder(tenants=[*KEYED, {"name": "default"}]))
    assert refusal.value.status == 403


def test_a_default_tenant_with_keys_needs_them():
    with pytest.raises(ApiError, match="no API key"):
        tenant_of([], None, RING, ladder(tenants=[*KEYED, {"name": "default", "keyed": True}]))


def test_a_key_of_two_tenants_is_nobodys():
    one, two = digest_of(ACME.encode()), digest_of(BETA.encode())
    ring = KeyRing.of({"acme": [one], "beta": [one, two], "gamma": [one]})
    assert ring.tenant(ACME.encode()) is None
    assert ring.tenant(BETA.encode()) == "beta"
    assert ring.shared == (("acme", "beta"), ("acme", "gamma"))


def test_keys_are_kept_as_digests_only():
    assert ACME.encode() not in b"".join(RING.tenants)
    assert all(len(digest) == 32 for digest in RING.tenants)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "has 0 characters; a key has 16 to 512"),
        (b" short \n", "has 5 characters; a key has 16 to 512"),
        (b"x" * 513, "has 513 characters; a key has 16 to 512"),
        (b"one-key-of-enough\nanother-one-of-enough", "has characters that no key may have; use visible ASCII"),
        ("schl\u00fcssel-0123456789".encode(), "has characters that no key may have; use visible ASCII"),
    ],
    ids=["empty", "short", "long", "two lines", "not ASCII"],
)
def test_what_is_no_key_is_said_without_repeating_it(text, problem):
    with pytest.raises(ValueError, match=problem) as refusal:
        digest_of(text)
    assert not text.strip() or text.strip().decode() not in str(refusal.value)


# -- files ----------------------------------------------------------------------------------------------------------


def folder_of(path, *tenants):
    found = KeyFolder(str(path))
    found.configure(tenants)
    return found


def test_files_are_followed(tmp_path):
    write(tmp_path, "acme", "laptop", f"{ACME}\n")
    keys = folder_of(tmp_path, "acme", "beta")
    assert keys.counts == {"acme": 1, "beta": 0}
    write(tmp_path, "beta", "ci", BETA)
    write(tmp_path, "acme", "laptop", OTHER)
    keys.poll()
    assert [keys.ring.tenant(k.encode()) for k in (ACME, BETA, OTHER)] == [None, "beta", "acme"]
    (tmp_path / "beta" / "ci").unlink()
    keys.poll()
    assert keys.ring.tenant(BETA.encode()) is None
    [problem] = keys.problems
    assert problem == (
        f"tenant beta has no API key, so its requests are refused (no usable file in {tmp_path}/beta, which a missing "
        "or empty Secret leaves empty)"
    )


def test_a_swapped_link_is_a_change(tmp_path):
    """As the kubelet does: every file is a link through `..data`, which is swapped."""
    tenant = tmp_path / "acme"
    for version, key in (("..1", ACME), ("..2", BETA)):
        (tenant / version).mkdir(parents=True)
        (tenant / version / "key").write_text(key)
    (tenant / "..data").symlink_to("..1")
    (tenant / "key").symlink_to("..data/key")
    keys = folder_of(tmp_path, "acme")
    assert keys.ring.tenant(ACME.encode()) == "acme"
    (tenant / "..fresh").symlink_to("..2")
    (tenant / "..fresh").replace(tenant / "..data")
    keys.poll()
    assert (keys.counts, keys.ring.tenant(BETA.encode())) == ({"acme": 1}, "acme")


def test_a_file_that_went_bad_keeps_its_last_good_key_and_the_others_go_on(tmp_path, caplog):
    write(tmp_path, "acme", "a", ACME)
    write(tmp_path, "acme", "b", BETA)
    keys = folder_of(tmp_path, "acme")
    write(tmp_path, "acme", "a", "oops")
    write(tmp_path, "acme", "b", OTHER)
    write(tmp_path, "acme", "c", "")
    with caplog.at_level(logging.INFO):
        keys.poll()
        keys.poll()
    assert [keys.ring.tenant(k.encode()) for k in (ACME, BETA, OTHER)] == ["acme", None, "acme"]
    assert keys.problems == [
        f"{tmp_path}/acme/a: has 4 characters; a key has 16 to 512; its last good key stays",
        f"{tmp_path}/acme/c: has 0 characters; a key has 16 to 512",
    ]
    assert caplog.text.count("its last good key stays") == 1
    assert not any(key in caplog.text for key in (ACME, BETA, OTHER, "oops"))


def test_what_cannot_be_read_keeps_its_last_good_keys(tmp_path):
    write(tmp_path, "acme", "a", ACME)
    keys = folder_of(tmp_path, "acme")
    (tmp_path / "acme" / "a").unlink()
    (tmp_path / "acme" / "a").mkdir()
    keys.poll()
    assert keys.ring.tenant(ACME.encode()) == "acme"
    assert keys.problems == [f"{tmp_path}/acme/a: Is a directory; its last good key stays"]
    (tmp_path / "acme" / "a").rmdir()
    (tmp_path / "acme").rmdir()
    (tmp_path / "acme").symlink_to("acme")
    keys.poll()
    assert keys.ring.tenant(ACME.encode()) == "acme"
    assert keys.problems == [f"{tmp_path}/acme: Too many levels of symbolic links; its last good keys stay"]


def test_a_key_of_two_tenants_is_named_by_tenant(tmp_path):
    write(tmp_path, "acme", "a", ACME)
    write(tmp_path, "beta", "b", ACME)
    keys = folder_of(tmp_path, "acme", "beta")
    assert keys.problems[0] == "tenants acme and beta have a key in common, which is refused"
    assert keys.counts == {"acme": 0, "beta": 0}


def test_a_router_without_a_folder_says_so_and_lets_nobody_in():
    keys = folder_of("", "acme")
    assert keys.problems == [
        "tenant acme has no API key, so its requests are refused (start the router with --keys DIR)"
    ]
    assert keys.ring == KeyRing()


def test_a_new_configuration_says_nothing_again(tmp_path, caplog):
    write(tmp_path, "acme", "a", ACME)
    with caplog.at_level(logging.INFO):
        keys = folder_of(tmp_path, "acme", "beta")
        keys.configure(["acme", "beta"])
        assert [record.levelname for record in caplog.records] == ["INFO", "ERROR"]
        write(tmp_path, "acme", "a", OTHER)
        keys.poll()
        assert [record.getMessage() for record in caplog.records[2:]] == ["API keys by tenant: acme 1, beta 0"]


def test_tenants_that_are_gone_are_forgotten(tmp_path):
    write(tmp_path, "acme", "a", ACME)
    keys = folder_of(tmp_path, "acme")
    keys.configure([])
    assert (keys.ring, keys.problems, keys.counts) == (KeyRing(), [], {})
    os.truncate(tmp_path / "acme" / "a", 0)
    keys.configure(["acme"])
    assert keys.counts == {"acme": 0}


# -- the data port --------------------------------------------------------------------------------------------------


def keyed(engine, **changes):
    return document(with_engines(low=[engine], medium=[engine], high=[engine]), tenants=KEYED, **changes)


@on_loop
async def test_the_engine_never_sees_a_key():
    async with FakeEngine() as engine, running(keyed(engine)) as router:
        assert (await router.ask(chat(), authorization=f"Bearer {ACME}")).status == 401
        router.worker.key_folder.ring = RING
        client = await router.open()
        for _ in range(2):
            answer = await client.ask(chat(), authorization=f"Bearer {ACME}", x_other="1")
            assert (answer.status, answer.headers["x-trimtab-tier"]) == (200, "low")
        assert [("authorization" in got.headers, got.headers["x-other"]) for got in engine.got] == [(False, "1")] * 2


@on_loop
async def test_a_key_counts_with_an_offer_to_upgrade_and_as_a_header_of_this_hop():
    async with FakeEngine() as engine, running(keyed(engine)) as router:
        router.worker.key_folder.ring = RING
        for more in ({"connection": "upgrade", "upgrade": "h2c"}, {"connection": "authorization"}):
            assert (await router.ask(chat(), authorization=f"Bearer {BETA}", **more)).status == 200
        assert all("authorization" not in got.headers for got in engine.got)


@on_loop
async def test_every_path_but_health_needs_a_key():
    async with FakeEngine() as engine, running(keyed(engine)) as router:
        router.worker.key_folder.ring = RING
        for method, path in (
            *(("POST", f"/v1/{name}") for name in ("chat/completions", "completions", "explain", "feedback")),
            *(("GET", "/v1/models"), ("GET", "/v1/models/auto")),
        ):
            answer = await router.ask(chat() if method == "POST" else None, method=method, path=path)
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert answer.json()["error"] == {
                "message": "authorization: no API key; send Authorization: Bearer KEY",
                "type": "invalid_request_error",
                "param": None,
                "code": "invalid_api_key",
            }
        assert (await router.ask(method="GET", path="/healthz")).status == 200
        assert engine.got == []
        listed = await router.ask(method="GET", path="/v1/models", authorization=f"Bearer {BETA}")
        assert listed.status == 200


@on_loop
async def test_the_plan_is_that_of_the_keys_tenant():
    async with FakeEngine() as engine, running(keyed(engine)) as router:
        router.worker.key_folder.ring = RING
        shown = await router.ask(chat(), path="/v1/explain", authorization=f"Bearer {BETA}")
        assert shown.json()["facts"]["tenant"] == "beta"
        refused = await router.ask(chat(), authorization=f"Bearer {ACME}", x_trimtab_tenant="beta")
        assert refused.status == 403
        high = await router.ask(chat(), authorization=f"Bearer {ACME}", x_trimtab_tier="high")
        assert (high.status, high.message) == (403, "x-trimtab-tier: high is not for tenant acme; use one of low")


@on_loop
async def test_without_keys_the_header_goes_on_to_the_engine():
    async with FakeEngine() as engine:
        content = document(with_engines(low=[engine], medium=[engine], high=[engine]), tenants=[{"name": "acme"}])
        async with running(content) as router:
            await router.ask(chat(), authorization="Bearer of-the-engine")
            assert engine.got[0].headers["authorization"] == "Bearer of-the-engine"
            assert router.worker.report()["keys"] == {"counts": {}, "problems": []}


@on_loop
async def test_a_new_configuration_can_ask_for_keys():
    async with FakeEngine() as engine, running(keyed(engine) | {"tenants": None}) as router:
        assert (await router.ask(chat())).status == 200
        router.write(keyed(engine))
        router.tick(1)
        assert (await router.ask(chat())).status == 401
        assert router.worker.report()["keys"]["counts"] == {"acme": 0, "beta": 0}
        router.write(keyed(engine) | {"tenants": None})
        router.tick(1)
        assert (await router.ask(chat())).status == 200
