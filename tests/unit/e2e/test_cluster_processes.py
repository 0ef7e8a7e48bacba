"""Servers of tests end with their run, however it ends, and nobody else's process ends with them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from testcluster.errors import StartError
from testcluster.processes import (
    RECORD,
    URGENT,
    Processes,
    direct_environment,
    recorded,
    start_time,
    stop_recorded,
    wait_until,
)
from testcluster.teardown import tear_down

SLEEP = ["sleep", "60"]


def gone(pid: int) -> bool:
    return start_time(pid) is None


@pytest.fixture
def processes(tmp_path: Path):
    started = Processes(tmp_path)
    yield started
    started.stop_all()


def test_a_server_is_recorded_and_ended(processes: Processes, tmp_path: Path):
    child = processes.start("sleeper", SLEEP)
    assert recorded(tmp_path)["sleeper"] == {"pid": child.pid, "started": start_time(child.pid)}
    assert processes.alive("sleeper")
    processes.stop("sleeper")
    assert gone(child.pid)
    assert recorded(tmp_path) == {}


def test_what_a_server_started_ends_with_it(processes: Processes, tmp_path: Path):
    pid_file = tmp_path / "child"
    processes.start("parent", ["sh", "-c", f"sleep 60 & echo $! > {pid_file}; wait"])
    wait_until("the child", lambda: pid_file.exists() and pid_file.read_text().strip(), 10)
    processes.stop("parent")
    wait_until("the child's end", lambda: gone(int(pid_file.read_text())), 10)


def test_a_pid_that_belongs_to_somebody_else_by_now_is_left_alone(tmp_path: Path):
    other = subprocess.Popen(SLEEP, start_new_session=True)
    try:
        entry = {"pid": other.pid, "started": "1"}
        (tmp_path / RECORD).write_text(json.dumps({"old": entry}))
        stop_recorded(tmp_path / RECORD)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_server_that_was_gone_before_it_was_noted_is_not_waited_for(tmp_path: Path):
    (tmp_path / RECORD).write_text(json.dumps({"gone": {"pid": 2**22 + 1, "started": None}}))
    stop_recorded(tmp_path / RECORD, timeout_seconds=0)


def test_a_server_that_ends_while_starting_shows_its_log(processes: Processes):
    processes.start("broken", ["sh", "-c", "echo no such flag >&2; exit 3"])
    with pytest.raises(StartError, match="broken ended while starting:\nno such flag"):
        processes.wait_ready("broken", lambda: False, timeout_seconds=10)


def test_a_server_that_never_gets_ready_shows_its_log(processes: Processes):
    processes.start("slow", ["sh", "-c", "echo still loading; sleep 60"])
    wait_until("its line", processes.log("slow").read_text, 10)
    with pytest.raises(StartError, match=r"not within 0\.1 s: slow ready\nstill loading"):
        processes.wait_ready("slow", lambda: False, timeout_seconds=0.1)


def test_waiting_names_the_last_error():
    def refuse() -> bool:
        raise ConnectionRefusedError("nobody there")

    with pytest.raises(TimeoutError, match="not within 0 s: the server; last error: nobody there"):
        wait_until("the server", refuse, timeout_seconds=0)


def test_teardown_of_a_folder_ends_its_servers_and_removes_it(tmp_path: Path):
    folder = tmp_path / "state"
    folder.mkdir()
    processes = Processes(folder)
    child = processes.start("sleeper", SLEEP)
    tear_down(folder)
    child.wait()
    assert not folder.exists()
    tear_down(folder)  # a second time is fine


def test_a_killed_run_leaves_nothing(tmp_path: Path):
    code = (
        "import os, signal, sys\nfrom testcluster import provide\nfrom testcluster.processes import Processes\n"
        "with provide.state_folder() as folder:\n"
        "    print(folder, Processes(folder).start('sleeper', ['sleep', '60']).pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == -signal.SIGKILL
    folder, pid = done.stdout.split()
    wait_until("the server's end", lambda: gone(int(pid)), 20)
    wait_until("the folder's end", lambda: not Path(folder).exists(), 20)


def test_servers_of_tests_get_no_proxy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://192.0.2.1:3128")
    monkeypatch.setenv("no_proxy", "example.org")
    assert not [name for name in direct_environment() if name.lower().endswith("_proxy")]


def test_an_urgent_server_comes_first_in_groups_by_session_too(tmp_path: Path):
    processes = Processes(tmp_path)
    child = processes.start("urgent", ["sleep", "60"], urgent=True)
    try:
        privileged = os.geteuid() == 0
        wait_until("its niceness", lambda: os.getpriority(os.PRIO_PROCESS, child.pid) == (URGENT if privileged else 0))
        group = Path(f"/proc/{child.pid}/autogroup")
        if group.exists():
            assert group.read_text().endswith(f" nice {URGENT if privileged else 0}\n")
    finally:
        processes.stop_all()
