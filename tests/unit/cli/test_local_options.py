"""The command line of `trimtab up` and what it refuses."""

from pathlib import Path

import pytest

from trimtab_cli.errors import UsageError
from trimtab_cli.local.options import Address, Options, parse


def test_defaults() -> None:
    assert parse(["-f", "examples"]) == Options(files=("examples",))


def test_everything_can_be_set() -> None:
    argv = (
        "-f a.yaml -f b.yaml --for 90 --report r.json --svg v.svg --logs logs --listen 0.0.0.0:0 --no-load --rate 2.5 "
        "--seed 7 --engine vllm --time-scale 1 --startup-seconds 0 --prometheus embedded --plain"
    )
    assert parse(argv.split()) == Options(
        files=("a.yaml", "b.yaml"),
        for_seconds=90,
        report=Path("r.json"),
        svg=Path("v.svg"),
        logs=Path("logs"),
        listen=Address("0.0.0.0", 0),
        load=False,
        requests_per_second=2.5,
        seed=7,
        engine="vllm",
        time_scale=1,
        startup_seconds=0,
        prometheus="embedded",
        plain=True,
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("", "the following arguments are required: -f/--file"),
        ("-f x --for 0", "argument --for: 0 is not above 0"),
        ("-f x --for -1", "argument --for: -1 is not above 0"),
        ("-f x --for soon", "argument --for: 'soon' is not a number"),
        ("-f x --for nan", "argument --for: 'nan' is not a finite number"),
        ("-f x --rate inf", "argument --rate: 'inf' is not a finite number"),
        ("-f x --startup-seconds -2", "argument --startup-seconds: -2 is below 0"),
        ("-f x --listen 8080", "argument --listen: '8080' is not HOST:PORT, such as 127.0.0.1:8080"),
        (
            "-f x --listen localhost:http",
            "argument --listen: 'localhost:http' is not HOST:PORT, such as 127.0.0.1:8080",
        ),
        ("-f x --listen a:70000", "argument --listen: 'a:70000' is not HOST:PORT, such as 127.0.0.1:8080"),
        ("-f x --engine gpu", "argument --engine: invalid choice: 'gpu'"),
        ("-f x --seed x", "argument --seed: invalid int value: 'x'"),
        ("-f x --fro 3", "unrecognized arguments: --fro 3"),
    ],
)
def test_bad_options_are_named(argv: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(argv.split())
    assert str(caught.value).startswith(f"up: {message}")
    assert str(caught.value).endswith("; `trimtab up --help` explains the options")


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])
    assert ended.value.code == 0
    assert "trimtab up -f examples/quickstart --for 90" in capsys.readouterr().out
