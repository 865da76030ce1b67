"""Entry points of other distributions: found without an import, loaded alone, refused in one line."""

import logging
import sys
from pathlib import Path

import pytest
from support.plugins import install

from carbonsched import plugins
from carbonsched.errors import InputError

GROUP = "carbonsched.feeds"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def text(thing: object) -> str:
    if not isinstance(thing, str):
        raise TypeError(f"is a {type(thing).__name__}; it must be a str")
    return thing


def test_names_are_listed_without_an_import(site: Path) -> None:
    install(site, "sun", {GROUP: {"sun": "sun_plugin:SUN"}}, sun_plugin="raise SystemExit(3)")
    install(
        site, "moon", {GROUP: {"moon": "moon_plugin:MOON"}, "carbonsched.power": {"tide": "moon_plugin:T"}}
    )
    assert plugins.names(GROUP) == ("moon", "sun")
    assert plugins.names(plugins.POWER) == ("tide",)
    assert "sun_plugin" not in sys.modules


def test_one_is_loaded_and_checked(site: Path) -> None:
    install(site, "sun", {GROUP: {"sun": "sun_loads:SUN"}}, sun_loads="SUN = 'shines'")
    assert plugins.load(GROUP, "sun", text) == "shines"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        (
            "import no_such_module",
            "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("def broken(:", "cannot be imported: SyntaxError"),
        ("OTHER = 1", "cannot be imported: AttributeError"),
        ("SUN = 7", "bad_sun:SUN is a int; it must be a str"),
    ],
)
def test_a_broken_plugin_is_one_line_and_hurts_nobody_else(
    site: Path, monkeypatch: pytest.MonkeyPatch, source: str, words: str
) -> None:
    install(site, "broken-sun", {GROUP: {"sun": "bad_sun:SUN"}}, bad_sun=source)
    install(site, "moon", {GROUP: {"moon": "good_moon:MOON"}}, good_moon="MOON = 'pale'")
    monkeypatch.delitem(sys.modules, "bad_sun", raising=False)
    with pytest.raises(InputError) as caught:
        plugins.load(GROUP, "sun", text)
    line = str(caught.value)
    assert line.startswith(f"plugin 'sun' of broken-sun ({GROUP}): ")
    assert words in line
    assert line.endswith("; fix or uninstall broken-sun")
    assert "\n" not in line
    assert plugins.load(GROUP, "moon", text) == "pale"
    sys.modules.pop("bad_sun", None)


def test_a_name_that_nobody_installed(site: Path) -> None:
    install(site, "moon", {GROUP: {"moon": "m:M"}})
    with pytest.raises(InputError, match=r"no installed plugin is called 'sun'; .* this group: moon"):
        plugins.load(GROUP, "sun", text)


def test_the_name_of_a_built_in_is_refused(site: Path, caplog: pytest.LogCaptureFixture) -> None:
    install(site, "pirate", {GROUP: {"neso": "pirate:NESO", "moon": "pirate:MOON"}})
    with caplog.at_level(logging.WARNING):
        assert plugins.names(GROUP, ("neso", "static")) == ("moon",)
    assert caplog.messages == [
        f"plugin 'neso' of pirate ({GROUP}) is not used: this name is a built-in's; "
        "rename the entry point or uninstall pirate"
    ]
    with pytest.raises(InputError, match="no installed plugin is called 'neso'"):
        plugins.load(GROUP, "neso", text, ("neso", "static"))


def test_a_name_that_several_claim_is_nobodys(site: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("one", "two", "three"):
        install(site, name, {GROUP: {"sun": "x:X"}})
    assert plugins.names(GROUP) == ()
    assert len(caplog.messages) == 3
    assert "plugin 'sun' of one" in caplog.messages[0]
