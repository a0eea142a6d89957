"""The command tests/gpu and its driver, as far as they can be tried without a GPU."""

import itertools
import json
import sys
from pathlib import Path

import pytest
import torch
from commands import load

from torchqp import testing

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"


command = load("gpu")
driver = load("gpu_driver.py")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """What a run shares, with this interpreter and no GPU."""
    found = {"torch": torch.__version__, "device": None}
    monkeypatch.setattr(command, "interpreter", lambda: (Path(sys.executable), found))
    monkeypatch.delenv("TORCHQP_WHEELS", raising=False)
    return command.Run(command.parse(["--out", str(tmp_path), "--minutes", "1"]))


def test_the_named_interpreter_is_asked_about_its_torch(monkeypatch):
    monkeypatch.setenv("TORCHQP_PYTHON", sys.executable)
    python, found = command.interpreter()
    assert python == Path(sys.executable)
    assert found["torch"] == torch.__version__
    assert (found["device"] is not None) == torch.cuda.is_available()


def test_driver_compares_every_mode_with_the_cpu(capsys):
    options = ["--device", "cpu", "--sizes", "4", "--families", "optnet", "simplex", "--batch", "3"]
    assert driver.main(options) == 0
    told = capsys.readouterr().out
    # Two families, two precisions, three modes; z, four multipliers, and 4 or 5 gradients each.
    assert "12 batches on cpu: 0 differ" in told


def test_driver_sees_a_wrong_value_and_a_wrong_gradient(monkeypatch, capsys):
    right = driver.testing.pullback
    options = ["--device", "cpu", "--sizes", "4", "--families", "optnet", "--modes", "kkt"]
    for what in ("z", "grad h"):
        calls = []

        def wrong(*args, what=what, calls=calls, **kwargs):
            solution, gradients = right(*args, **kwargs)
            calls.append(1)
            if len(calls) % 2 == 0:  # the second of each pair is the GPU's
                if what == "z":
                    solution = solution._replace(z=solution.z * 1.01)
                else:
                    gradients["h"] = gradients["h"] + 0.1
            return solution, gradients

        monkeypatch.setattr(driver.testing, "pullback", wrong)
        assert driver.main(options) == 1
        assert f"{what} differs by" in capsys.readouterr().out


def rows(family, n):
    """Of the largest matrix of a problem, which csrc/cuda/launch_plan.cpp chooses the lanes by."""
    problem = testing.make(family, n, 1)
    return max(n, sum(problem[k].shape[-2] for k in ("G", "A") if k in problem))


@pytest.mark.parametrize("words", ["TINY", "TINIER", "SIZES"])
def test_sizes_reach_every_width_of_a_team(words):
    families, sizes = ["optnet", "two_sided"], driver.SIZES
    if words != "SIZES":
        arguments = getattr(command, words).split()
        end = arguments.index("--batch")
        sizes = [int(word) for word in arguments[arguments.index("--sizes") + 1 : end]]
        families = arguments[1 : arguments.index("--sizes")]
    found = [rows(family, n) for family in families for n in sizes]
    limits = [0, 6, 16, 24, 32, 64, *([160] if words != "TINIER" else []), 1000]
    for low, high in itertools.pairwise(limits):
        assert any(low < count <= high for count in found), (low, high, found)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("9 batches on cuda\n========= ERROR SUMMARY: 0 errors", True),
        ("9 batches on cuda\n========= ERROR SUMMARY: 1 error", False),
        ("9 batches on cuda\n== RACECHECK SUMMARY: 0 hazards displayed (0 errors)", True),
        ("9 batches on cuda\n== RACECHECK SUMMARY: 2 hazards displayed (0 errors)", False),
        ("Traceback ...\n========= ERROR SUMMARY: 0 errors", False),
        ("9 batches on cuda\n", False),
    ],
)
def test_a_sanitizer_is_clean_only_if_it_saw_the_end(text, clean):
    assert command.summary(text) == clean


def test_a_sanitizer_of_all_kernels_is_clean_where_it_names_none_of_ours():
    text = "9 batches on cuda\n=========     at {}::kernel\n========= ERROR SUMMARY: 1 error"
    assert command.summary(text.format("at::native"), others=True)
    assert not command.summary(text.format("torchqp::cuda"), others=True)
    assert not command.summary(text.format("torchqp::cuda").replace("batches", ""), others=True)


def test_a_sanitizer_that_finds_something_fails_and_leaves_its_text(run, tmp_path, monkeypatch):
    fake = tmp_path / "compute-sanitizer"
    fake.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        '*racecheck*) echo "1 batches on cuda; RACECHECK SUMMARY: 1 hazards"; exit 9;;\n'
        '*initcheck*"kns=torchqp"*) ;;\n'
        '*initcheck*|*"--kernel-name kns=torchqp"*)\n'
        'echo "1 batches on cuda; ERROR SUMMARY: 0 errors";; esac\n'
    )
    fake.chmod(0o755)
    monkeypatch.setattr(command, "cuda_tool", lambda name: str(fake))
    step, log = command.Step("sanitizer"), tmp_path / "log"
    with log.open("w") as file:
        command.sanitizer(run, step, file)
    assert (step.passed, step.failed) == (3, 1)
    assert step.told[1] == "racecheck: exit status 9, see the log"
    assert log.read_text().count("SUMMARY") == 4
    assert [path.name for path in tmp_path.glob(".*check")] == []


def test_kernels_are_counted_by_name_and_architecture(tmp_path, monkeypatch):
    fake = tmp_path / "cuobjdump"
    text = "arch = sm_90\n Function _ZN7torchqp5solveEv:\n  REG:9\n"
    monkeypatch.setattr(command, "cuda_tool", lambda name: str(fake))
    for extra, arch, failed in (("", "9.0", 0), (" Function other:\n", "9.0", 1), ("", "8.0", 1)):
        fake.write_text(f"#!/bin/sh\nprintf '{text}{extra}'\n")
        fake.chmod(0o755)
        step = command.Step("build")
        with (tmp_path / "log").open("w") as log:
            command.kernels(step, log, arch)
        assert step.failed == failed, step.told


def test_cases_of_a_junit_file_are_counted(tmp_path, capsys):
    file = tmp_path / "results.xml"
    file.write_text(
        "<testsuite><testcase/><testcase/><testcase><failure/></testcase>"
        "<testcase name='d'><skipped/><system-out>first\nno GPU</system-out></testcase></testsuite>"
    )
    assert command.bootstrap.count(file) == {"passed": 2, "failed": 1, "skipped": 1}
    assert capsys.readouterr().out == "d: no GPU\n"
    nothing = {"passed": 0, "failed": 0, "skipped": 0}
    assert command.bootstrap.count(tmp_path / "absent.xml") == nothing


def test_a_command_that_outlasts_its_time_is_stopped(run, tmp_path):
    with (tmp_path / "log").open("w") as log:
        slow = [sys.executable, "-c", "import time; time.sleep(60)"]
        assert run.call(slow, log, limit=0.5) == 124
    assert "stopped after 0 s" in (tmp_path / "log").read_text()


def test_steps_report_and_the_last_line_counts(run, tmp_path, monkeypatch, capsys):
    def good(run, step, log):
        step.passed, step.told = 3, ["three of them"]

    def broken(run, step, log):
        log.write("why\n")
        raise SystemExit("it broke")

    def absent(run, step, log):
        step.skipped = "not installed"

    monkeypatch.setattr(command, "Run", lambda options: run)
    for steps, expected in (
        ({"parity": good, "cpp": absent}, "3 passed, 0 failed"),
        ({"parity": broken, "pytest": good}, "3 passed, 1 failed"),
        ({"build": broken, "parity": good}, "0 passed, 1 failed"),  # nothing runs without a build
        ({"cpp": absent}, "0 passed, 0 failed"),
    ):
        monkeypatch.setattr(command, "STEPS", steps)
        status = command.main(["--out", str(tmp_path), "--only", *steps])
        told = capsys.readouterr().out
        assert told.splitlines()[-1] == expected
        assert status == int(expected != "3 passed, 0 failed")
        assert ("why" in told) == (broken in steps.values())
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["torch"] == torch.__version__
    assert report["steps"][0]["skipped"] == "not installed"
