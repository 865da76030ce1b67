"""A ledger that knows less than the job folders: refused with the way out, or gone on without when somebody says so."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from support.job_history import T0, interval, submitted
from support.manual_clock import ManualClock
from support.replay_launcher import ReplayLauncher
from support.rig import ME, START

from carbonsched.errors import InputError
from carbonsched.ledger import Ledger
from carbonsched.model.files import save
from carbonsched.supervisor.ledger_continuity import check_file, check_jobs


class Box:
    """A state folder with a ledger, opened as the daemon opens it."""

    def __init__(self, root: Path) -> None:
        self.file, self.jobs = root / "ledger.db", root / "jobs"
        self.jobs.mkdir()
        self.clock = ManualClock(START)
        self.launcher = ReplayLauncher(self.clock)

    @property
    def url(self) -> str:
        return f"sqlite:///{self.file}"

    def open(self, *, accept: bool = False) -> Ledger:
        check_file(self.url, self.jobs, accept=accept)
        ledger = Ledger.open(self.url)
        try:
            check_jobs(ledger, self.jobs, self.launcher, self.clock, accept=accept)
        except BaseException:
            ledger.close()
            raise
        return ledger

    def folder(self, job_id: str, *files: str) -> Path:
        path = self.jobs / job_id
        path.mkdir()
        save(path / "spec.json", submitted(job_id))
        for name in files:
            (path / name).write_text("{}")
        return path

    def job(self, job_id: str, *files: str) -> Path:
        """One that the ledger took."""
        with self.open() as ledger:
            ledger.add_job(submitted(job_id))
        return self.folder(job_id, *files)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def link_to_nowhere(box: Box) -> None:
    box.file.unlink()
    box.file.symlink_to("no/such.db")


def without_a_table(box: Box) -> None:
    box.file.unlink()
    sqlite3.connect(box.file).execute("VACUUM")


def new(box: Box) -> None:
    box.file.unlink()
    with Ledger.open(box.url):
        pass


def older(box: Box) -> None:
    shutil.copy(box.file.with_name("older.db"), box.file)


def without_its_log(box: Box) -> None:
    """As after a power cut: what was folded back is there, what was in the log is not."""
    box.file.with_name("killed.db").replace(box.file)


LOSSES: dict[str, Callable[[Box], object]] = {
    "gone": lambda box: box.file.unlink(),
    "empty": lambda box: box.file.write_bytes(b""),
    "a byte": lambda box: box.file.write_bytes(b"\0"),
    "a link to nowhere": link_to_nowhere,
    "without a table": without_a_table,
    "new": new,
    "older": older,
    "without its log": without_its_log,
}


@pytest.mark.parametrize(
    ("loss", "ran"),
    [
        *((loss, "run.json") for loss in LOSSES),
        *(("older", name) for name in ("run.1.json", "exit.json", "events.jsonl")),
    ],
)
def test_a_ledger_that_lost_a_job_that_ran_is_refused_until_somebody_says_so(
    box: Box, loss: str, ran: str, caplog: pytest.LogCaptureFixture
) -> None:
    with box.open() as ledger:
        ledger.append([interval(T0, 10, 500)])
    shutil.copy(box.file, box.file.with_name("older.db"))
    with box.open() as ledger:
        ledger.add_job(submitted("lost-0a0a0a"))
        shutil.copy(box.file, box.file.with_name("killed.db"))  # and not its log
    box.folder("lost-0a0a0a", ran)
    LOSSES[loss](box)
    for _ in range(2):
        with pytest.raises(InputError) as caught:
            box.open()
        said = str(caught.value)
        assert said.startswith("ledger.url: ")
        assert "job lost-0a0a0a" in said
        assert "put the ledger back" in said
        assert "--new-ledger" in said
        assert "\n" not in said
    with box.open(accept=True) as ledger:
        entry = ledger.history(None, kinds=("began",))[-1]
        assert (entry["left_behind"], entry["actor"]) == (["lost-0a0a0a"], "daemon")
        assert "goes on without job lost-0a0a0a: what they spent is not in it" in caplog.text
        assert ledger.verify().ok
    caplog.clear()
    box.open().close()
    assert not caplog.records, "not needed again"
    box.open(accept=True).close()
    assert "--new-ledger was not needed" in caplog.text
    box.folder("lost-0b0b0b", "run.json")
    with pytest.raises(InputError, match="knows nothing of job lost-0b0b0b,"):
        box.open()


def test_a_log_without_its_database_is_kept_aside_by_whoever_goes_on(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    box.folder("lost-0a0a0a", "run.json")
    wal = box.file.with_name("ledger.db-wal")
    for n in (1, 2):
        wal.write_text("rows")
        with pytest.raises(InputError):
            box.open()
        box.open(accept=True).close()
        assert box.file.with_name(f"ledger.db-wal.{n}").read_text() == "rows"
        box.file.unlink()
    assert "ledger.db-wal is the log of a ledger that is gone: it is kept as ledger.db-wal.1" in caplog.text


@pytest.mark.parametrize("loss", ["gone", "empty", "new"])
def test_a_ledger_that_lost_a_job_that_waited_is_refused_too(box: Box, loss: str) -> None:
    box.job("lost-0a0a0a")
    LOSSES[loss](box)
    with pytest.raises(InputError, match="job lost-0a0a0a"):
        box.open()
    shutil.rmtree(box.jobs / "lost-0a0a0a")
    box.open().close()


def test_a_submit_that_was_cut_short_never_stops_a_start(box: Box, caplog: pytest.LogCaptureFixture) -> None:
    """The daemon is killed before the ledger took the job: in its first second, and later."""
    box.open().close()
    box.folder("cut-0a0a0a")
    (box.jobs / "cut-0b0b0b").mkdir()
    box.open().close()
    assert "cut-0a0a0a: submitted, but the ledger never took it; submit again" in caplog.text
    assert "cut-0b0b0b" not in caplog.text
    box.job("known-0a0a0a", "run.json")
    box.open().close()


@pytest.mark.parametrize("there", [True, False], ids=["ledger", "no ledger"])
def test_what_is_no_job_stops_nothing(box: Box, there: bool) -> None:
    if there:
        known = box.job("known-0a0a0a", "run.json", "exit.json")
        shutil.copytree(known, box.jobs / "known-0a0a0a.copy")
    (box.jobs / "lost+found").mkdir()
    (box.jobs / "note.txt").write_text("run.json")
    (box.jobs / "broken").symlink_to("nowhere")
    (box.jobs / "mine").mkdir()
    (box.jobs / "mine" / "run.json.tmp").write_text("")
    box.open().close()


def test_more_than_a_few_are_counted(box: Box) -> None:
    for n in range(5):
        box.folder(f"lost-00000{n}", "run.json")
    with pytest.raises(
        InputError, match="folders of jobs lost-000000, lost-000001, lost-000002 and 2 more are in"
    ):
        box.open()
    assert not box.file.exists(), "nothing was made"


def test_job_folders_that_cannot_be_listed_are_not_none(box: Box, caplog: pytest.LogCaptureFixture) -> None:
    box.jobs.rmdir()
    box.jobs.write_text("no folder")
    with pytest.raises(InputError, match=r"is not there, and .*jobs cannot be looked into: Not a directory"):
        box.open()
    box.open(accept=True).close()
    box.open().close()
    assert "whether the ledger knows all jobs cannot be told" in caplog.text


def test_a_process_that_is_left_behind_is_told_to_end(box: Box) -> None:
    folder = box.folder("lost-0a0a0a")
    box.launcher.start(folder, ["x"], {}, ME)
    with pytest.raises(InputError):
        box.open()
    assert box.launcher.asked == []
    box.open(accept=True).close()
    assert box.launcher.asked == [("terminate", folder)]


def test_a_ledger_in_memory_forgets_as_it_was_told_to(box: Box, caplog: pytest.LogCaptureFixture) -> None:
    box.folder("lost-0a0a0a", "run.json")
    check_file("sqlite://", box.jobs, accept=False)
    with Ledger.open("sqlite://") as ledger:
        check_jobs(ledger, box.jobs, box.launcher, box.clock, accept=False)
        assert not ledger.begun
    assert "in memory alone: what job lost-0a0a0a spent is forgotten" in caplog.text


def test_a_full_disk_keeps_the_flag_from_nothing(box: Box, caplog: pytest.LogCaptureFixture) -> None:
    box.folder("lost-0a0a0a", "run.json")
    with Ledger.open(box.url) as ledger:
        with ledger._writer.connect() as connection:
            connection.exec_driver_sql("PRAGMA query_only=ON")
        check_jobs(ledger, box.jobs, box.launcher, box.clock, accept=True)
    assert "readonly" in caplog.text


def test_the_entry_is_plain(box: Box) -> None:
    with box.open() as ledger:
        (entry,) = ledger.history(None)
    assert json.loads(json.dumps(entry)) | {"at": ""} == {
        "at": "", "kind": "began", "actor": "daemon", "text": "begins", "left_behind": [],
    }  # fmt: skip
