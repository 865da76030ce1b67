"""Which files a job reads, and what is refused at submit with its true reason."""

import gc
import json
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.as_user import as_user

from carbonsched.errors import InputError
from carbonsched.launch import inputs
from carbonsched.launch.handover import check_readable
from carbonsched.launch.inputs import close_all, open_all, wanted
from carbonsched.launch.rights import Who
from carbonsched.model.job import DATA_SUFFIXES, JobSpec, Owner

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

DAEMON, ALICE, BOB = 65534, 12345, 12346
OWNER = Owner(uid=ALICE, gid=ALICE, user="alice")


@pytest.fixture
def home() -> Iterator[Path]:
    """Of alice: a model in two shards, a folder of rows and a file of rows."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        home = Path(name) / "alice"
        for folder in ("model", "data", "data/more"):
            (home / folder).mkdir(parents=True)
        shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
        texts = {f"model/{shard}": "weights" for shard in shards}
        texts |= {
            "model/config.json": "{}",
            "model/tokenizer_config.json": '{"name": 1}',
            "model/model.safetensors.index.json": json.dumps(
                {"weight_map": {"a": shards[0], "b": shards[1]}}
            ),
            "model/training_args.bin": "pickle",
            "data/train.jsonl": "{}",
            "data/train-labels.lst": "0",
            "data/dev.jsonl": "{}",
            "data/notes.md": "",
            "data/more/test.jsonl": "{}",
            "rows.jsonl": "{}",
        }
        for file, text in texts.items():
            (home / file).write_text(text)
        for path in (home, *home.rglob("*")):
            os.chown(path, ALICE, ALICE)
        yield home


def spec(home: Path, *, model: str = "", data: str = "", **parts: Any) -> JobSpec:
    return JobSpec.parse(
        {
            "name": "tiny",
            "model": {"name_or_path": model or str(home / "model")},
            "data": {"name_or_path": data or str(home / "data")} | parts.get("data_part", {}),
            "evaluate": parts.get("evaluate", {}),
            "carbon": {"budget_g": 1.0},
        }
    )


def names(job: JobSpec) -> set[str]:
    opened = open_all(wanted(job), Who("alice", ALICE, frozenset({ALICE})), DATA_SUFFIXES)
    close_all(opened)
    return {found.name.removeprefix("data/") for found in opened if not found.name.startswith("model/")}


def test_what_the_trainer_reads_is_opened(home: Path) -> None:
    who = Who("alice", ALICE, frozenset({ALICE}))
    opened = open_all(wanted(spec(home)), who, DATA_SUFFIXES)
    assert {found.name for found in opened if found.copy is not None} == {
        "model/tokenizer_config.json", "model/model.safetensors.index.json",
    }  # fmt: skip
    assert {found.name for found in opened if found.fd >= 0} == {
        "model/config.json", "model/model-00001-of-00002.safetensors", "model/model-00002-of-00002.safetensors",
        "data/train.jsonl", "data/train-labels.lst", "data/dev.jsonl", "data/more/test.jsonl",
    }  # fmt: skip
    close_all(opened)
    train, dev = str(home / "data" / "train.jsonl"), str(home / "data" / "dev.jsonl")
    assert names(spec(home, data=train)) == {"train.jsonl", "train-labels.lst"}
    beside = spec(
        home, data=train, data_part={"validation": "dev.jsonl"}, evaluate={"test": "more/test.jsonl"}
    )
    assert names(beside) == {"train.jsonl", "train-labels.lst", "dev.jsonl", "more/test.jsonl"}
    named = spec(home, data=str(home / "rows.jsonl"), data_part={"validation": dev}, evaluate={"test": train})
    assert names(named) == {"rows.jsonl", "validation/dev.jsonl", "test/train.jsonl", "test/train-labels.lst"}
    assert wanted(spec(home, model="org/model", data="squad", data_part={"validation": "dev"})) == []


def _chmod(path: str, mode: int, uid: int = ALICE) -> Callable[[Path], None]:
    def change(home: Path) -> None:
        os.chown(home / path, uid, uid)
        (home / path).chmod(mode)

    return change


def _write(path: str, document: Any) -> Callable[[Path], None]:
    return lambda home: (home / path).write_text(json.dumps(document)) and None


def _fifo(home: Path) -> None:
    (home / "data" / "dev.jsonl").unlink()
    os.mkfifo(home / "data" / "dev.jsonl", 0o644)


WEIGHTS = "model/model-00001-of-00002.safetensors"
DAEMONS = r"the daemon's user nobody may not"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_chmod(WEIGHTS, 0o600), rf"^model.name_or_path: {DAEMONS} read .*00001-of-00002.safetensors \(mode 0600, of 12345\); "
                                 r"let it .*docs/install.md$"),
        (_chmod("", 0o700), rf"{DAEMONS} look into .*alice for .*alice/model \(mode 0700"),
        (_chmod("data", 0o711), rf"^data.name_or_path: {DAEMONS} look into .*data \(mode 0711"),
        (_chmod("data/train.jsonl", 0o600), rf"^data.name_or_path: {DAEMONS} read .*train.jsonl"),
        (_chmod("data/train.jsonl", 0o600, BOB), r"alice may not read .*train.jsonl \(mode 0600, of 12346\); give files"),
        (_chmod("data/train.jsonl", 0o600, DAEMON), r"alice may not read .*train.jsonl \(mode 0600, of nobody\)"),
        (_chmod("model", 0o700, DAEMON), r"alice may not read .*model \(mode 0700, of nobody\)"),
        (_chmod("model/tokenizer_config.json", 0o600, DAEMON), "alice may not read .*tokenizer_config.json"),
        (_fifo, "dev.jsonl is not a plain file"),
        (lambda home: (home / "data" / "gone.jsonl").symlink_to("nowhere"), r"there is no .*gone.jsonl; give"),
        (_write("model/model.safetensors.index.json", {"weight_map": {"a": "/etc/other.safetensors"}}),
         "names weights outside of its folder: '/etc/other.safetensors'"),
        (_write("model/model.safetensors.index.json", {"weight_map": {"a": "../x.safetensors"}}), "outside of its folder"),
        (_write("model/adapter_config.json", {"base_model_name_or_path": "/home/bob/model"}),
         "names its base model by a path, '/home/bob/model'"),
    ],
)  # fmt: skip
def test_what_may_not_be_read_is_refused_at_submit(
    home: Path, change: Callable[[Path], None], words: str
) -> None:
    as_user(DAEMON, lambda: check_readable(spec(home), OWNER, "unused"))  # as it is, it may be
    change(home)
    with pytest.raises(InputError, match=words):
        as_user(DAEMON, lambda: check_readable(spec(home), OWNER, "unused"))


@pytest.mark.parametrize(
    ("field", "parts"),
    [
        ("model.name_or_path", {"model": "../other/output"}),
        ("model.name_or_path", {"model": "~/model"}),
        ("model.name_or_path", {"model": "a/../b"}),
        ("model.name_or_path", {"model": "hf://x/y"}),
        ("data.name_or_path", {"data": "./rows.jsonl"}),
        ("data.name_or_path", {"data": "a/b/c.jsonl"}),
        ("data.name_or_path", {"data": "/rows\0.jsonl"}),
        ("data.name_or_path", {"data": "/rows\ud800.jsonl"}),
        ("data.validation", {"data_part": {"validation": "../dev.jsonl"}}),
        ("data.validation", {"data_part": {"validation": "~bob/dev.jsonl"}}),
        ("evaluate.test", {"evaluate": {"test": "x/../../events.jsonl"}}),
        ("evaluate.test", {"evaluate": {"test": "/etc"}}),
    ],
)
def test_a_path_that_depends_on_who_reads_it_is_refused(
    home: Path, field: str, parts: dict[str, Any]
) -> None:
    with pytest.raises(InputError) as caught:
        check_readable(spec(home, **parts), Owner(uid=0, gid=0, user="root"), "unused")
    assert caught.value.field == field


def test_a_tokenizer_reads_no_file_that_its_settings_name(home: Path) -> None:
    (home / "model" / "tokenizer_config.json").write_text(
        json.dumps({"vocab_file": "/etc/vocab.txt", "kept": "a/b"})
    )
    opened = open_all(wanted(spec(home)), None, DATA_SUFFIXES)
    close_all(opened)
    (copy,) = (found.copy for found in opened if found.name == "model/tokenizer_config.json")
    assert json.loads(copy or b"") == {"kept": "a/b"}


def test_too_many_files_are_one_clear_line_and_nothing_stays_open(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gc.collect()  # earlier tests' files would be closed meanwhile
    before = len(list(Path("/proc/self/fd").iterdir()))
    with monkeypatch.context() as patch:
        patch.setattr(inputs, "MOST_FILES", 5)
        with pytest.raises(
            InputError, match=r"^data\.name_or_path: the job reads more files than may be open at once"
        ):
            open_all(wanted(spec(home)), None, DATA_SUFFIXES)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        lowest = os.dup(0)  # the limit is on numbers: below this one all are taken
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 6, limits[1]))
        with pytest.raises(InputError, match="more files than may be open at once"):
            open_all(wanted(spec(home)), None, DATA_SUFFIXES)
        inputs.make_room()
        close_all(open_all(wanted(spec(home)), None, DATA_SUFFIXES))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
