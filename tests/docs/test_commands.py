"""The documentation is true: its commands run as written, and what it names is there."""

import os
import re
import sys

import pytest
from support.command_line import ROOT, run
from support.documentation import COMMANDS, LONG_COMMANDS, LONG_PAGES, OTHERS, PAGES, blocks, commands

README = PAGES["README.md"]
EVERYTHING = "\n".join([*PAGES.values(), *OTHERS.values()])
PYTHON = {name: "".join(blocks(text, "python")) for name, text in PAGES.items() if blocks(text, "python")}


def test_the_documentation_has_commands():
    assert len(COMMANDS) >= 20
    for verb in ("ingest", "inspect", "pretrain", "evaluate linear_probe", "evaluate knn", "rank", "analyze", "study"):
        assert any(command.startswith(f"ssl-transfer {verb}") for command in COMMANDS)
    assert any(command.startswith("accelerate launch pretrain.py") for command in COMMANDS)


def test_no_page_has_commands_that_are_not_run():
    assert not {name: commands(text) for name, text in OTHERS.items() if commands(text)}


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in LONG_COMMANDS])
def test_a_command_runs_as_it_is_written(command, answers):
    assert answers[command].status == 0, answers[command].stderr


@pytest.mark.long
@pytest.mark.parametrize("command", LONG_COMMANDS)
def test_a_long_command_runs_as_it_is_written(command, long_answers):
    assert long_answers[command].status == 0, long_answers[command].stderr


SHOWN = [part for block in blocks(README, "console") for part in block.removeprefix("$ ").split("\n$ ")]


@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: shown.partition("\n")[0])
def test_the_readme_shows_what_a_command_prints(shown, answers):
    command, _, printed = shown.partition("\n")
    for line in printed.splitlines():
        if line.strip() != "…":
            assert without_numbers(line) in without_numbers(answers[command].stdout)


def without_numbers(text: str) -> str:
    """Text with digits masked and runs of spaces as one: numbers depend on the machine."""
    return re.sub(r"[ ─]+", " ", re.sub(r"[-−]?\d[\d.,]*", "#", text)).strip()


@pytest.mark.long
def test_two_processes_are_two(long_answers, checkout):
    log = [path.read_text() for path in checkout.glob("runs/quickstart_byol-*/log.jsonl")]
    assert len(log) == 1
    assert '"world_size": 2' in log[0].splitlines()[0]


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=pytest.mark.long if page in LONG_PAGES else ()) for page in PYTHON]
)
def test_python_on_a_page_runs_after_its_commands(page, request, checkout, monkeypatch, capsys):
    request.getfixturevalue("long_answers" if page in LONG_PAGES else "answers")
    monkeypatch.chdir(checkout)
    exec(compile(PYTHON[page], page, "exec"), {"__name__": page})


def test_plain_timm_loads_the_backbone_as_the_readme_says(answers, checkout):
    (call,) = set(re.findall(r"`(timm\.create_model\([^`]*\))`", README))
    answer = run([sys.executable, "-c", f"import timm\nprint({call}.num_features)"], checkout)
    assert answer.stdout == "256\n", answer.stderr


@pytest.mark.parametrize(
    "path",
    sorted(set(re.findall(r"\b(?:recipes|launch|tests|notebooks|benchmarks|docs|ssl_transfer)/[\w./-]*", EVERYTHING))),
)
def test_a_path_that_the_documentation_names_is_there(path):
    assert os.path.exists(ROOT / path.rstrip("."))


def test_the_recipes_of_the_table_are_there_and_none_is_missing():
    table = PAGES["docs/pretraining.md"].partition("| recipe | method | hardware |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"`(\w+\.yaml)`", table)) == sorted(
        path.name for path in (ROOT / "recipes").glob("*.yaml")
    )


def test_the_tasks_of_the_table_are_there_and_none_is_missing():
    table = PAGES["docs/data.md"].partition("| task | target | metric |")[2].partition("\n\n")[0]
    names = [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(names) == sorted(path.stem for path in (ROOT / "recipes/tasks").glob("*.yaml"))


def test_the_studies_of_the_table_are_there_and_none_is_missing():
    table = PAGES["docs/studies.md"].partition("| study | question | two-core version |")[2]
    assert sorted(re.findall(r"`(\w+\.yaml)`", table)) == sorted(
        path.name for path in (ROOT / "recipes/studies").glob("*.yaml")
    )


def test_the_benchmarks_of_the_table_are_there_and_none_is_missing():
    assert set(re.findall(r"`python benchmarks/(\w+)\.py", OTHERS["docs/benchmarks.md"])) == {
        path.stem for path in (ROOT / "benchmarks").glob("*.py")
    }


def test_the_launch_files_of_the_page_are_there_and_none_is_missing():
    sentence = re.search(r"`launch/accelerate/` has (.*?)\.", OTHERS["docs/clusters.md"], re.S)[1]
    assert sorted(re.findall(r"`(\w+)`", sentence)) == sorted(
        path.stem for path in (ROOT / "launch/accelerate").glob("*.yaml")
    )


@pytest.mark.parametrize("target", sorted(set(re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)`", EVERYTHING, re.M))))
def test_a_make_target_that_the_documentation_names_is_there(target):
    name = "".join(target)
    assert re.search(rf"^{name}:", (ROOT / "Makefile").read_text(), re.M)
