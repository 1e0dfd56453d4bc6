"""One experiment that is broken, empty or somebody else's hides no other one; and only experiments are deleted."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
from click.testing import Result
from torch import nn
from typer.testing import CliRunner

from nas import Categorical, Experiment, ExperimentError, ValueChoice
from nas.cli.catalogue import Catalogue, UnknownName
from nas.cli.commands import app
from nas.evaluators import FunctionalEvaluator
from nas.strategies import GridSearch, Random

CURSOR = {*"\x1b\x9b\x7f\u202e\u200b\0\ud800"}
EVIL = "x\x1b[2J\x9b\x7f\u202e\u200b\nTotal: 9"


def search(folder: Path, name: str = "first", **more: Any) -> Experiment:
    return Experiment(
        lambda: nn.Linear(4, ValueChoice([1, 2, 3], label="width")),
        FunctionalEvaluator(lambda model: float(model.out_features)),
        Random(),
        name=name,
        directory=folder,
        **more,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    search(folder).run(2, progress="silent")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """An experiment `first`, with its two trials, among others to come."""
    shutil.copytree(made / "first", tmp_path / "kept/first")
    return tmp_path / "kept"


def nas(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, (result.output, result.exception)
    return result


def rows(folder: Path, *more: str) -> dict[str, Any]:
    return {row["name"]: row for row in json.loads(nas("list", "-d", str(folder), *more, "--json").stdout)}


def by_optuna(folder: Path) -> optuna.storages.BaseStorage:
    """The journal of an experiment, as Optuna opens it."""
    folder.mkdir(exist_ok=True)
    (folder / "journal.log.lock").unlink(missing_ok=True)  # A file of this name is a lock that is held, to Optuna.
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "journal.log")))


def broken(folder: Path) -> list[str]:
    """Experiments that cannot be read, each in another way; their names."""
    for name, text in {
        "empty": "",
        "garbage": "no JSON\n",
        "binary": "\0\1\2\n" * 9,
        "a list": "[1, 2]\n",
        "an operation": '{"op_code": 99, "worker_id": "a"}\n',
        "deep": "[" * 100_000 + "\n",
    }.items():
        (folder / name).mkdir()
        (folder / name / "journal.log").write_text(text)
    (folder / "a folder/journal.log").mkdir(parents=True)
    shutil.copytree(folder / "first", folder / "renamed")
    study = optuna.create_study(study_name="foreign", storage=by_optuna(folder / "foreign"))
    study.add_trial(optuna.trial.create_trial(value=1.0))
    study = optuna.create_study(study_name="headless", storage=by_optuna(folder / "headless"))
    study.set_user_attr("nas:experiment", {"seed": EVIL})
    return sorted({path.name for path in folder.iterdir()} - {"first"})


def test_a_row_says_what_is_wrong_with_one_that_cannot_be_read(folder: Path) -> None:
    names = broken(folder)
    found = rows(folder)
    assert sorted(found) == sorted([*names, "first"])
    assert (found["first"]["state"], found["first"]["error"]) == ("done", None)
    assert found["empty"]["state"] == "empty"
    for name in set(names) - {"empty"}:
        assert found[name]["state"] in ("broken", "empty"), name
        assert found[name]["error"], name
    assert {*found["first"]} == {*found["garbage"]}, "a row is a row"
    text = nas("list", "-d", str(folder)).stdout
    assert "2/2" in text
    for name in names:
        assert name in text
        nas("show", name, "-d", str(folder), code=1) if name == "garbage" else None
    for verb in ("show", "top", "trials", "report"):
        nas(verb, "first", "-d", str(folder))
    assert len(Experiment.load(folder / "first").trials) == 2
    with pytest.raises(ExperimentError):
        Experiment.load(folder / "empty")


def test_what_is_broken_can_be_deleted(folder: Path) -> None:
    for name in broken(folder):
        nas("rm", "-y", name, "-d", str(folder))
    assert [path.name for path in folder.iterdir()] == ["first"]


def test_a_link_is_said_to_be_one_and_not_deleted(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "first", tmp_path / "elsewhere")
    (tmp_path / "elsewhere").rename(tmp_path / "first")
    (folder / "first").symlink_to(tmp_path / "first")
    assert rows(folder)["first"]["link"] == str(tmp_path / "first")
    assert f"a link to {tmp_path / 'first'}" in " ".join(nas("list", "-d", str(folder)).stdout.split())
    message = nas("rm", "-y", "first", "-d", str(folder), code=1).stderr
    assert f"is a link, and nas rm follows none; received '{folder / 'first'} -> {tmp_path / 'first'}'" in message
    assert (tmp_path / "first/trials/0/metrics.json").exists()


def test_only_what_an_experiment_wrote_is_deleted(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/weights.pt").write_text("mine")
    (folder / "first/notes.txt").write_text("mine")
    (folder / "first/trials/0/link").symlink_to(tmp_path / "mine")
    (folder / "first/top").symlink_to(tmp_path / "mine")
    said = nas("rm", "-y", "first", "-d", str(folder)).stdout
    assert said == f"first is deleted.\nIt is kept, as no experiment wrote it: {folder / 'first/notes.txt'}\n"
    assert os.listdir(folder / "first") == ["notes.txt"]
    assert (tmp_path / "mine/weights.pt").read_text() == "mine"


def test_a_name_in_a_shared_database_leads_nowhere_else(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    (mine / "trials").mkdir(parents=True)
    url = f"sqlite:///{tmp_path}/base.db"
    search(folder, "second", storage=url).run(1, progress="silent")
    header = optuna.load_study(study_name="second", storage=url).user_attrs["nas:experiment"]
    names = ["../mine", "..", ".", str(mine), "a/b", "", "a\0b"]
    for name in names:
        optuna.create_study(study_name=name, storage=url).set_user_attr("nas:experiment", header)
    found = rows(folder, "--storage", url)
    assert found["second"]["state"] == "done"
    catalogue = Catalogue(directory=folder, storage=url)
    for name in names:
        assert "the name of an experiment is that of a folder" in found[name]["error"]
        for ask in (catalogue.remove, catalogue.stop, catalogue.find, catalogue.is_running):
            with pytest.raises(UnknownName):
                ask(name)
    nas("rm", "-y", "../mine", "-d", str(folder), "--storage", url, code=2)
    assert (mine / "trials").is_dir()
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock") == ["base.db", "kept", "mine"]


def test_a_folder_of_another_experiment_is_kept(folder: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/base.db"
    search(tmp_path / "there", storage=url).run(1, progress="silent")
    said = nas("rm", "-y", "first", "-d", str(folder), "--storage", url).stdout
    assert "of an experiment with a journal" in said
    assert rows(folder)["first"]["finished"] == 2


@pytest.fixture
def evil(folder: Path) -> Path:
    """An experiment of a stranger, in whose journal are texts that move the cursor."""
    study = optuna.load_study(study_name="first", storage=by_optuna(folder / "first"))
    header, run = study.user_attrs["nas:experiment"], study.user_attrs["nas:run"]
    study.set_user_attr("nas:experiment", {**header, "strategy": EVIL, "changes": [[EVIL]]})
    study.set_user_attr("nas:run", {**run, "file": EVIL, "arguments": [EVIL]})
    (folder / "first/trials/0/log.txt").write_text(EVIL)
    return folder


def test_nothing_that_a_stranger_wrote_moves_the_cursor(evil: Path) -> None:
    (evil / EVIL.replace("/", "_")).mkdir()
    (evil / EVIL.replace("/", "_") / "journal.log").write_text("no JSON\n")
    for command in ("list", "show first", "top first", "trials first", "log first 0", "stop first", "report first"):
        for more in ([], ["--json"]) if command.split()[0] in ("list", "show", "top", "trials") else ([],):
            found = nas(*command.split(), *more, "-d", str(evil))
            assert not set(found.output) & CURSOR, command
            assert "\nTotal" not in found.output or command.startswith("log")
    assert "x\\x1b[2J\\x9b\\x7f\\u202e\\u200b" in nas("show", "first", "-d", str(evil)).stdout
    page = (evil / "first/report.html").read_text(encoding="utf-8")
    assert not set(page) & CURSOR
    assert "x\\x1b[2J" in page
    message = nas("show", EVIL, "-d", str(evil), code=1).output
    assert not set(message) & CURSOR


@pytest.mark.parametrize("name", [EVIL, "-x", "$(touch x)", "a b", "'"])
def test_the_shell_completes_no_name_that_it_would_take_for_more_than_a_word(name: str, folder: Path) -> None:
    from nas.cli.options import complete

    (folder / name.replace("/", "_")).mkdir()
    (folder / name.replace("/", "_") / "journal.log").write_text("")

    class Context:
        params = {"directory": folder}  # noqa: RUF012

    assert complete(Context()) == ["first"]  # type: ignore[arg-type]


@pytest.mark.parametrize("password", ["verysecret", "very@secret", "very/secr@et", "v", "12/very", "very secret"])
def test_passwords_are_in_no_message(password: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg")
    url = f"postgresql://me:{password}@127.0.0.1:1/base"
    monkeypatch.setenv("NAS_STORAGE", url)
    said = [nas("list", "-d", str(folder), code=1).output, nas("list", "--help").output]
    said += [repr(Catalogue(directory=folder, storage=url))]
    with pytest.raises(ExperimentError) as caught:
        search(folder, "second", storage=url)
    error: BaseException | None = caught.value
    while error is not None:
        said.append(f"{error} {error!r}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    for text in said:
        for piece in ("very", "secr", "ecret", ":v@", "(v)", "12/"):
            assert piece not in text, text
    assert "NAS_STORAGE" in said[1]


@pytest.mark.parametrize("kind", ["journal", pytest.param("sqlite", marks=pytest.mark.slow)])
def test_odd_answers_and_error_texts_are_kept_and_shown_escaped(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = EVIL + "\0\ud800"

    def value(model: nn.Module, kind: str) -> float:
        if kind == odd:
            raise ValueError(odd)
        return 1.0

    experiment = Experiment(
        lambda: nn.Linear(4, 2),
        FunctionalEvaluator(value, kind=Categorical([odd, odd + "2", "plain"])),
        GridSearch(),
        name="first",
        directory=tmp_path,
        storage=None if kind == "journal" else f"sqlite:///{tmp_path}/base.db",
    )
    experiment.run(progress="plain")
    print(repr(experiment), experiment.space)
    printed = capsys.readouterr()
    assert not set(printed.out + printed.err) & CURSOR
    assert not set(experiment._repr_html_() + experiment.space._repr_html_()) & CURSOR
    assert [trial.sample["kind"] for trial in experiment.trials] == [odd, odd + "2", "plain"]
    assert "x\\x1b[2J" in printed.out
    for line in ("list", "show first", "top first", "trials first", "log first 0", "report first", "export first"):
        more = [] if kind == "journal" else ["--storage", f"sqlite:///{tmp_path}/base.db"]
        found = nas(*line.split(), "-d", str(tmp_path), *more)
        assert not set(found.output) & CURSOR, line
    assert not set((tmp_path / "first/report.html").read_text(encoding="utf-8")) & CURSOR
