"""What is told a second time, and what a run says of its machine."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from testcluster import secondtry
from testcluster.paths import ROOT
from testcluster.processes import wait_until
from testcluster.stalls import Stalls, stolen_share, ticks

CONTRACT = "tests/contract/test_chart.py::test_a"
STORY = "e2e/test_story.py::test_b"


def test_files_on_real_parts_are_told_again_once_each_and_whole():
    assert secondtry.files([STORY, CONTRACT, f"{STORY}[1]"]) == ["e2e/test_story.py", "tests/contract/test_chart.py"]


@pytest.mark.parametrize("other", ["tests/unit/crds/test_units.py::test_c", "tests/charts/test_chart.py::test_d"])
def test_a_failure_without_real_parts_is_final(other: str):
    assert secondtry.files([CONTRACT, other]) == []


def test_what_failed_is_what_pytest_noted(tmp_path: Path):
    assert secondtry.last_failed(tmp_path) == []
    (tmp_path / "test_it.py").write_text("def test_good(): pass\ndef test_bad(): assert False\n")
    argv = [sys.executable, "-m", "pytest", "-q", f"--rootdir={tmp_path}", str(tmp_path)]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.returncode == 1, ran.stdout
    assert secondtry.last_failed(tmp_path) == ["test_it.py::test_bad"]


def test_a_machine_that_ran_all_the_time_says_never():
    seen = Stalls()
    for _ in range(5):
        seen.saw("10:00:00", 1.1, 0.02)
    said = "the machine stood still for over 3 s: never; its host kept a third of it for 0 of 6 s"
    assert str(seen) == said


def test_a_machine_that_stood_still_names_the_worst_times():
    seen = Stalls()
    for seconds in (1.0, 5.0, 41.0):
        seen.saw(f"10:00:{seconds:02.0f}", seconds, 0.5 if seconds > 4 else 0.0)
    said = (
        "stood still for over 3 s: 40 s until 10:00:41, 4 s until 10:00:05; its host kept a third of it for 46 of 47 s"
    )
    assert said in str(seen)


def test_stolen_time_is_a_share_of_what_passed():
    before = [100, 0, 100, 800, 0, 0, 0, 0, 0, 0]
    after = [150, 0, 100, 825, 0, 0, 0, 25, 0, 0]
    assert stolen_share(before, after) == 0.25
    assert stolen_share(before, before) == 0.0
    assert 0.0 <= stolen_share([0] * len(ticks()), ticks()) <= 1.0


def test_the_watch_of_a_run_ends_with_one_line():
    environment = os.environ | {"PYTHONPATH": str(ROOT / "e2e")}
    argv = [sys.executable, "-u", "-c", "from testcluster import stalls; print('up'); stalls.main()"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as watch:
        assert watch.stdout
        assert watch.stdout.readline() == "up\n"
        wait_until("its handler", lambda: _catches(watch.pid, signal.SIGTERM))
        watch.terminate()
        assert watch.stdout.read().startswith("the machine stood still for over 3 s: ")


def _catches(pid: int, signum: signal.Signals) -> bool:
    (line,) = [x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("SigCgt")]
    return bool(int(line.split()[1], 16) >> (signum - 1) & 1)
