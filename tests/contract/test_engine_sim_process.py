"""The process of the simulated engine: its start, its errors and its end. No real server is needed."""

import os
import signal
import socket
import subprocess
import sys
import threading

import httpx
import pytest

from support.engines import free_port, simulated_engine
from support.sse import DONE, events
from testcluster.processes import PATIENCE_SECONDS

BODY = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4000, "ignore_eos": True}


def command(*flags: str) -> list[str]:
    return [sys.executable, "-m", "trimtab_cli.engine_sim", "Qwen/Qwen3-8B", "--host=127.0.0.1", *flags]


def test_nothing_listens_while_the_model_loads():
    port = free_port()
    argv = command(f"--port={port}", "--sim-startup-seconds=300")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "simulated vLLM 0.32.0: loading Qwen/Qwen3-8B, 300 s\n"
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False)
        process.terminate()
        assert process.wait(10) == 0


def test_a_taken_port_is_told():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = subprocess.run(
            command(f"--port={port}"), capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
        )
    assert ended.returncode == 1
    assert ended.stderr == (
        f"trimtab engine-sim: cannot listen on 127.0.0.1:{port} (Address already in use); choose another --port\n"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_without_a_shutdown_timeout_streams_end_in_abort(number: signal.Signals):
    with simulated_engine("--sim-time-scale=0.5") as engine:
        answers: list[httpx.Response] = []
        begun = threading.Event()

        def stream() -> None:
            with (
                httpx.Client(base_url=engine.base_url, timeout=PATIENCE_SECONDS, trust_env=False) as client,
                client.stream("POST", "/v1/chat/completions", json=BODY | {"stream": True}) as answer,
            ):
                begun.set()
                answer.read()
                answers.append(answer)

        reader = threading.Thread(target=stream)
        reader.start()
        assert begun.wait(20)
        os.kill(engine.pid, number)
        reader.join(20)
        assert engine.process.wait(10) == 0
    chunks = events(answers[0].text)
    assert chunks[-1] == DONE
    assert chunks[-2]["choices"][0]["finish_reason"] == "abort"


def test_a_client_that_hangs_up_on_a_whole_answer_frees_the_engine():
    with (
        simulated_engine("--sim-time-scale=0.5", "--max-num-seqs=1") as engine,
        httpx.Client(base_url=engine.base_url, timeout=PATIENCE_SECONDS, trust_env=False) as client,
    ):
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/chat/completions", json=BODY, timeout=0.5)
        # The only slot is free again, else this would wait for minutes.
        assert client.post("/v1/chat/completions", json=BODY | {"max_tokens": 1}).status_code == 200
