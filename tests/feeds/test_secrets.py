"""Tokens and passwords: read where they are kept, refused where others could read them, never shown."""

import os
from pathlib import Path

import pytest

from carbonsched.errors import FeedError, InputError
from carbonsched.feeds.http_settings import LoginSettings, TokenSettings
from carbonsched.feeds.secrets import Secret

SECRET = "s3cr3t-token"  # noqa: S105


def in_file(path: Path, text: str = SECRET + "\n", mode: int = 0o600) -> Secret:
    path.write_text(text)
    path.chmod(mode)
    return Secret.of("token", env=None, file=str(path), credential=None)


def test_each_place_is_read_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", SECRET)
    assert Secret.of("token", env="A_TOKEN", file=None, credential=None).read() == SECRET
    kept = in_file(tmp_path / "token")
    assert kept.read() == SECRET
    (tmp_path / "token").write_text("another")
    assert kept.read() == "another"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert Secret.of("token", env=None, file=None, credential="token").read() == "another"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "token_file: is missing; set one of token_env, token_file and token_credential"),
        ({"token_env": "A", "token_file": "b"}, "token_env: token_env and token_file are set"),
        ({"token_credential": "c"}, "token_credential: there are no credentials"),
    ],
)
def test_one_place_must_be_given(given: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(InputError) as caught:
        TokenSettings.model_validate({"provider": "x"} | given).token()
    assert str(caught.value).startswith(said)


def test_a_password_has_the_same_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_PASSWORD", SECRET)
    assert LoginSettings(provider="x", password_env="A_PASSWORD").password().read() == SECRET


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o666])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    kept = in_file(tmp_path / "token", mode=mode)
    os.chown(kept.path or "", 65534, -1) if os.geteuid() == 0 else None
    with pytest.raises(FeedError, match=f"is open to others .mode {mode:04o}.: chmod 600"):
        kept.read()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have a file of root's")
def test_root_may_share_a_file_with_the_daemons_group(tmp_path: Path) -> None:
    assert in_file(tmp_path / "token", mode=0o640).read() == SECRET


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        (f"{SECRET}\nx", "more than one line"),
        ("é", "ASCII"),
        ("x" * 9000, "longer than 8192 characters"),
    ],
)
def test_what_is_no_secret_is_refused_and_not_shown(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(FeedError, match=said) as caught:
        in_file(tmp_path / "token", text).read()
    assert SECRET not in str(caught.value)


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match=r"token_file: .* cannot be read: No such file"):
        Secret("token_file", path=tmp_path / "none").read()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FeedError, match=r"token_file: .* is no file"):
        Secret("token_file", path=tmp_path / "pipe").read()
    with pytest.raises(FeedError, match="token_env: the variable NOBODY_SET_THIS is not set"):
        Secret("token_env", env="NOBODY_SET_THIS").read()
