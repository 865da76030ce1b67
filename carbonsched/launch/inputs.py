"""Opens the files that a job will read with the submitter's rights, whatever the daemon's user may read.

Small files in a model's folder are read here once, because some name further files (the shards of an index, the base of an adapter) and the
trainer has to read exactly what was checked. All others are passed as descriptors. If the daemon is root, the same code runs in a child
that has become the owner (`python -I -S`, so it and its imports use only the standard library), and the kernel does the checks.
"""

import contextlib
import errno
import json
import os
import re
import resource
import stat
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from carbonsched.errors import InputError
from carbonsched.launch.rights import Opener, Who

if TYPE_CHECKING:
    from carbonsched.model.job import JobSpec

MOST_FILES = 4096
MOST_DEPTH = 3
"""Depth of subfolders in a data folder."""
_MODEL_SUFFIXES = (".json", ".safetensors", ".bin", ".txt", ".model", ".jinja", ".tiktoken", ".vocab")
_LEADING = ("adapter_config.json", "tokenizer_config.json")
"""Files that name others, beside the index of a model's shards."""
_LEADING_BYTES = 16 << 20
_UNREAD = ("training_args.bin", "optimizer.bin", "scheduler.bin")
"""Files that a Trainer leaves beside the weights and that nobody loads."""
_TEMPLATES = "additional_chat_templates"
_LABELS = "-labels.lst"
_HUB_ID = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?")
_SPARE_FDS = 256
"""Descriptors that the daemon needs for itself."""


class Wanted(NamedTuple):
    """One thing that a spec names.

    Example:
        >>> Wanted("model.name_or_path", "model", "/models/llama").beside
        ()
    """

    field: str
    part: str
    """`model`, `data`, `validation` or `test`: the folder under inputs/ that it goes to."""
    path: str
    beside: tuple[str, ...] = ()
    """Files and splits for validation and test that are searched for beside it."""


class Input(NamedTuple):
    """One file that was opened.

    Example:
        >>> Input("data/rows.jsonl", fd=7).copy is None
        True
    """

    name: str
    """Name under inputs/."""
    fd: int = -1
    copy: bytes | None = None
    """The whole content, if there is no descriptor."""


def wanted(spec: "JobSpec") -> list[Wanted]:
    """What `spec` names on this box. Raises InputError for a path that depends on where, or as whom, it is read."""
    found: list[Wanted] = []
    beside: list[str] = []
    for field, part, name in (
        ("data.validation", "validation", spec.data.validation),
        ("evaluate.test", "test", spec.evaluate.test),
    ):
        if name is None:
            continue
        if name.startswith("/"):
            found.append(Wanted(field, part, name))
        elif name.startswith("~") or ".." in name.split("/"):
            raise InputError(
                field,
                f"{name!r} is neither an absolute path nor a name beside the data",
                "write the whole path",
            )
        else:
            beside.append(name)
    for field, part, name in (
        ("model.name_or_path", "model", spec.model.name_or_path),
        ("data.name_or_path", "data", spec.data.name_or_path),
    ):
        if name.startswith("/"):
            found.append(Wanted(field, part, name, tuple(beside) if part == "data" else ()))
        elif not _HUB_ID.fullmatch(name):
            raise InputError(
                field,
                f"{name!r} is neither an absolute path nor a hub id",
                "write the whole path, as submit does",
            )
    return found


def open_all(
    wants: Iterable[Wanted], who: Who | None, suffixes: tuple[str, ...], *, keep: bool = True
) -> list[Input]:
    """Open every file that a job naming `wants` will read; the caller closes them.

    who: None if this process is the submitter's and the kernel does the checks. suffixes: of files with rows. keep: if false, each is
    closed once it was opened. Raises InputError with everything closed.
    """
    opened: list[Input] = []
    field = ""
    try:
        for want in wants:
            field = want.field
            _Files(want, who, suffixes, opened, keep=keep).open()
    except BaseException as e:
        close_all(opened)
        if isinstance(e, OSError) and e.errno in (errno.EMFILE, errno.ENFILE):
            raise InputError(
                field,
                f"the job reads more files than may be open at once, {len(opened)} here",
                "put the rows in fewer files, or raise the daemon's LimitNOFILE",
            ) from e
        if isinstance(e, ValueError):  # a NUL, or half a surrogate pair
            raise InputError(field, "is no name of a file", "give an existing file or folder") from e
        raise
    return opened


def close_all(opened: Iterable[Input]) -> None:
    for found in opened:
        if found.fd >= 0:
            with contextlib.suppress(OSError):
                os.close(found.fd)


def make_room(files: int = MOST_FILES) -> None:
    """Raise the soft limit of open files if `files` more need it; the hard limit stays."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files + _SPARE_FDS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(most, soft), hard))


class _Files:
    """Opens the files that one `Wanted` stands for."""

    def __init__(
        self, want: Wanted, who: Who | None, suffixes: tuple[str, ...], opened: list[Input], *, keep: bool
    ) -> None:
        """opened: each opened file is added at once, so that none stays open after an error."""
        self.want, self.suffixes, self.opened, self.keep = want, suffixes, opened, keep
        self.opener = Opener(want.field, who)

    def open(self) -> None:
        part, path = self.want.part, self.want.path.rstrip("/") or "/"
        with self._at(path) as fd:
            folder = stat.S_ISDIR(os.fstat(fd).st_mode)
            if part == "model" and folder:
                self._model(fd, path)
            elif part == "model":
                raise self.opener.refused(f"{path} is no folder", "give the folder of a saved model")
            elif not folder:
                self._file(fd, path)
            elif part == "data":
                self._rows(fd, path, "data", 0, strict=True)
                self._beside(fd, path)
            else:
                raise self.opener.refused(f"{path} is a folder", "name a file")

    def _file(self, fd: int, path: str) -> None:
        """A file of rows with its labels; if validation or test are named beside it, these files too."""
        above, _, base = path.rpartition("/")
        self._read(fd, path, f"{self.want.part}/{base}")
        labels = base.rpartition(".")[0] + _LABELS
        self._maybe(None, f"{above}/{labels}", f"{self.want.part}/{labels}")
        if self.want.beside:
            with self._at(above or "/") as folder:
                self._rows(folder, above, "data", MOST_DEPTH, strict=False, without=(base, labels))
                self._beside(folder, above)

    def _model(self, folder: int, path: str) -> None:
        names = self.opener.names(folder, path)
        for name in names:
            if name[0] == "." or name in _UNREAD or not name.endswith(_MODEL_SUFFIXES):
                continue
            with self._at(name, folder, f"{path}/{name}") as fd:
                if not stat.S_ISDIR(os.fstat(fd).st_mode):
                    leads = name.endswith(".index.json") or name in _LEADING
                    self._read(fd, f"{path}/{name}", f"model/{name}", looked_through=leads)
                    if leads:
                        self._look_through(name, f"{path}/{name}")
        if _TEMPLATES in names:
            where = f"{path}/{_TEMPLATES}"
            with self._at(_TEMPLATES, folder, where) as inner:
                for name in self.opener.names(inner, where):
                    if name.endswith(".jinja"):
                        self._maybe(inner, f"{where}/{name}", f"model/{_TEMPLATES}/{name}", name)

    def _look_through(self, name: str, path: str) -> None:
        """Replace the last opened file by a copy of its content. Raises InputError if it refers to another folder."""
        found = self.opened.pop()
        try:
            with os.fdopen(found.fd, "rb") as file:
                content = file.read(_LEADING_BYTES + 1)
        except OSError as e:
            raise self.opener.refused(f"{path} cannot be read: {e.strerror}", "fix that file") from e
        if len(content) > _LEADING_BYTES:
            raise self.opener.refused(f"{path} is larger than {_LEADING_BYTES >> 20} MiB", "fix that file")
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            document = None  # the trainer says what is wrong with it
        if isinstance(document, dict):
            content = self._leads_nowhere(name, path, document) or content
        self.opened.append(Input(found.name, copy=content))

    def _leads_nowhere(self, name: str, path: str, document: dict[str, Any]) -> bytes | None:
        """What to read instead; None: `document` unchanged. Raises InputError."""
        if (
            name == "tokenizer_config.json"
        ):  # often the paths of whoever saved it; transformers would read there
            kept = {key: value for key, value in document.items() if not _elsewhere(key, value)}
            return json.dumps(kept).encode() if len(kept) < len(document) else None
        if name == "adapter_config.json":
            base = document.get("base_model_name_or_path") or "none"
            if not isinstance(base, str) or not _HUB_ID.fullmatch(base):
                raise self.opener.refused(
                    f"{path} names its base model by a path, {base!r}",
                    "merge the adapter into it, and give that folder",
                )
            return None
        shards = document.get("weight_map")
        for shard in shards.values() if isinstance(shards, dict) else ():
            if not isinstance(shard, str) or "/" in shard:
                raise self.opener.refused(
                    f"{path} names weights outside of its folder: {shard!r}",
                    "give a folder that holds all of the model",
                )
        return None

    def _rows(
        self, folder: int, path: str, into: str, depth: int, *, strict: bool, without: tuple[str, ...] = ()
    ) -> None:
        """Files of rows in a folder and its subfolders. strict: refuse an unreadable one instead of skipping it."""
        names: list[str] = []
        with contextlib.suppress(*() if strict else (InputError,)):
            names = self.opener.names(folder, path)
        for name in names:
            if name[0] == "." or name in without:
                continue
            rows = name.lower().endswith((*self.suffixes, _LABELS))
            with (
                contextlib.suppress(*() if strict and rows else (InputError,)),
                self._at(name, folder, f"{path}/{name}") as fd,
            ):
                if not stat.S_ISDIR(os.fstat(fd).st_mode):
                    if rows:
                        self._read(fd, f"{path}/{name}", f"{into}/{name}")
                elif depth < MOST_DEPTH:
                    self._rows(fd, f"{path}/{name}", f"{into}/{name}", depth + 1, strict=False)

    def _beside(self, folder: int, path: str) -> None:
        """Validation and test in a subfolder of the data's; files in the folder itself are already included."""
        for name in self.want.beside:
            if "/" in name:
                self._maybe(folder, f"{path}/{name}", f"data/{name}", name)

    def _maybe(self, folder: int | None, path: str, into: str, name: str = "") -> None:
        """A file that is skipped if it is missing or unreadable."""
        with contextlib.suppress(InputError), self._at(name or path, folder, path) as fd:
            self._read(fd, path, into)

    def _read(self, fd: int, path: str, name: str, *, looked_through: bool = False) -> None:
        if len(self.opened) >= MOST_FILES:
            raise OSError(errno.EMFILE, f"more than {MOST_FILES} files")
        opened = self.opener.read(fd, path)
        if self.keep or looked_through:
            self.opened.append(Input(name, opened))
        else:
            os.close(opened)
            self.opened.append(Input(name))

    @contextlib.contextmanager
    def _at(self, way: str, folder: int | None = None, path: str | None = None) -> Iterator[int]:
        fd = self.opener.walk(way, folder, path)
        try:
            yield fd
        finally:
            os.close(fd)


def _elsewhere(key: str, value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return key.endswith(("_file", "_files")) and any(isinstance(name, str) and "/" in name for name in names)


def main(text: str) -> int:
    """The child that runs as the owner: opens and closes all. `text`: JSON of `[wants, suffixes]`; stdout: the problem found."""
    wants, suffixes = json.loads(text)
    try:
        open_all([Wanted(f, p, w, tuple(b)) for f, p, w, b in wants], None, tuple(suffixes), keep=False)
    except InputError as e:
        sys.stdout.write(json.dumps([e.field, e.problem, e.hint]))
        return 1
    return 0
