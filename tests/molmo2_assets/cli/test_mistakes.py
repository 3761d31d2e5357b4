"""Mistakes are told in one line that names what is known and the nearest name, with exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from molmo2_assets.cli import main
from tests.support.homes import environment

COMMANDS = (
    "demo",
    "profiles",
    "datasets",
    "quarantine",
    "mixture",
    "preview",
    "scoreboard",
    "runs",
    "stale",
    "why",
    "bom",
    "diff",
    "import",
    "export",
    "ask",
    "doctor",
    "sweep",
)
MISTAKES = {
    "command": (["staled"], ["unknown command 'staled'", "known: ask, bom, ", "Did you mean stale?"]),
    "option": (["stale", "--jsno"], ["unknown option '--jsno'", "known: --help, --json", "Did you mean --json?"]),
    "option with a value": (["quarantine", "show", "x", "--reson=x"], ["unknown option '--reson'", "Did you mean --reason?"]),
    "option before the command": (["--json", "stale"], ["--json stands after the command: `molmo2 stale --json`"]),
    "option without its value": (["stale", "--profile"], ["--profile", "expected one argument", "`molmo2 stale --help`"]),
    "word too many": (["stale", "sft"], ["'sft' is one word too many", "`molmo2 stale --help`"]),
    "word missing": (["why"], ["ASSET", "`molmo2 why --help`"]),
    "action": (["datasets", "shwo", "x"], ["unknown action 'shwo'", "known: show.", "Did you mean show?"]),
    "run action": (["runs", "stopp", "x"], ["unknown action 'stopp'", "known: attach, stop.", "Did you mean stop?"]),
    "profile": (["--profile", "demoo", "datasets"], ["unknown profile 'demoo'", "report", "Did you mean demo?"]),
    "a profile's file": (["--profile", "some/own.yaml", "datasets"], ["MOLMO2_PROFILE_DIRS=some makes 'own' one"]),
    "profile after the command": (["datasets", "--profile", "repotr"], ["unknown profile 'repotr'", "Did you mean report?"]),
    "dataset": (["datasets", "show", "shapes_cpa"], ["unknown dataset 'shapes_cpa'", "tiny_text", "Did you mean shapes_cap?"]),
    "dataset of another profile": (["quarantine", "show", "clips_cap"], ["clips_cap is in the catalogue but not in profile small"]),
    "dataset not named": (["datasets", "show"], ["which dataset?"]),
    "quarantine": (["quarantine", "show", "tiny_txt"], ["unknown dataset 'tiny_txt'", "Did you mean tiny_text?"]),
    "reason": (
        ["quarantine", "show", "shapes_cap", "--reason", "media_mising"],
        ["unknown reason 'media_mising'", "Did you mean media_missing?"],
    ),
    "mixture": (["mixture", "show", "sft_mixtur"], ["unknown mixture 'sft_mixtur'", "Did you mean sft_mixture?"]),
    "asset": (["why", "sft_chekpoint"], ["unknown asset 'sft_chekpoint'", "Did you mean sft_checkpoint?"]),
    "asset of a bill": (["bom", "raw/shapes_cpa"], ["unknown asset 'raw/shapes_cpa'", "Did you mean raw/shapes_cap?"]),
    "diff": (["diff", "shapes_cpa"], ["unknown dataset 'shapes_cpa'", "Did you mean shapes_cap?"]),
    "preview": (["preview", "sft_sequence"], ["unknown dataset, mixture or sequences", "Did you mean sft_sequences?"]),
    "preview of nothing": (["preview", "shapes_cap"], ["validated/shapes_cap was never materialised", "make demo"]),
    "preview as a stage": (["preview", "shapes_cap", "--stage", "stf"], ["unknown stage 'stf'", "Did you mean sft?"]),
    "preview of no row": (["preview", "shapes_cap", "--count", "0"], ["--count 0", "at least one"]),
    "preview into no folder": (["preview", "shapes_cap", "--out", "/nowhere/x.html"], ["/nowhere/x.html", "folder that exists"]),
    "run": (["runs", "attach", "train-000000000000"], ["unknown run 'train-000000000000'", "known: "]),
    "run not named": (["runs", "stop"], ["which run?", "`molmo2 runs` lists them"]),
}  # fmt: skip


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in environment(tmp_path, "small").items():
        if name.startswith(("MOLMO2_", "DAGSTER_")):
            monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("name", MISTAKES)
def test_mistake(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, words = MISTAKES[name]
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("molmo2: ")
    assert len(err.splitlines()) == 1, err
    for word in words:
        assert word in err
    assert "usage" not in err


def test_an_unknown_benchmark_or_model_of_a_profile_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for section, nearest in (("model: tinny", "tiny"), ("stages: {sft: {benchmarks: [clips_pints]}}", "clips_points")):
        (tmp_path / "mine.yaml").write_text(f"extends: demo\n{section}\n")
        monkeypatch.setenv("MOLMO2_PROFILE_DIRS", str(tmp_path))
        monkeypatch.setenv("MOLMO2_HOME", str(tmp_path))
        assert main(["--profile", "mine", "datasets"]) == 2
        err = capsys.readouterr().err
        assert len(err.splitlines()) == 1, err
        assert "mine.yaml:2: " in err
        assert f"Did you mean {nearest}?" in err


def test_a_broken_profile_leaves_the_others_listed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text("extends: demo\nmodel: tinny\nabsent: ignore\n")
    monkeypatch.setenv("MOLMO2_PROFILE_DIRS", str(tmp_path))
    assert main(["profiles", "--json"]) == 0
    out = capsys.readouterr().out
    assert "unusable: " in out
    assert "mine.yaml:3: absent is 'ignore'" in out
    assert "(and 1 more)" in out
    assert '"profile": "demo"' in out


def test_a_relative_home_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MOLMO2_HOME", "some/folder")
    assert main(["stale"]) == 2
    assert capsys.readouterr().err == (
        "molmo2: MOLMO2_HOME is 'some/folder'; it must be an absolute path (`source activate.sh` sets one).\n"
    )


def test_without_a_command_it_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("molmo2: which command?\n")
    for name in COMMANDS:
        assert f"    {name} " in err


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*([name] if name else []), "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: molmo2{' ' + name if name else ''} ")
    assert "--profile" in out
    assert ("--json" in out) == (name not in ("", "demo"))


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    """`molmo2 … | head -1`, with more to say than a pipe holds."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as out:
        done = subprocess.run(
            [sys.executable, "-m", "molmo2_assets.cli", "--profile", "release", "datasets", "--json"],
            env=environment(tmp_path, "demo"), stdout=out, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_looking_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from molmo2_assets.cli import main; main(['datasets']); main(['stale']); main(['runs']);"
        "print([n for n in ('torch', 'dagster', 'polars', 'duckdb', 'numpy', 'av', 'PIL') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path, "small"), capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_shell_activated_for_another_profile_does_not_get_this_history(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment(tmp_path, "demo").items():
        if name.startswith(("MOLMO2_", "DAGSTER_")):
            monkeypatch.setenv(name, value)
    assert main(["--profile", "small", "demo"]) == 2
    err = capsys.readouterr().err
    assert "DAGSTER_HOME holds the history of profile demo: `MOLMO2_PROFILE=small make demo`" in err
    assert len(err.splitlines()) == 1
