"""Asks the Hugging Face hub for nothing that it cannot give: looks once whether it can be reached, and else reads its cache alone.

The hub's own library asks again for every file, with pauses of half a minute, before it turns to the cache or says that there is no network.
"""

import os
import socket
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from carbonsched.errors import InputError

WAIT_S = 10.0
"""Seconds that a connection may take to begin, as the hub's library allows a request (HF_HUB_ETAG_TIMEOUT): a slow network has them."""
PAUSES_S = (0.5, 1.5)
"""Between the tries where the answer is no at once: a name server may fail for a moment."""
_HUB = "https://huggingface.co"
_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_unreached: str | None = None
"""Why this process reads the cache alone."""


def prepare(name: str) -> None:
    """To be called before the hub is asked for `name`; a local path asks nothing. Where the hub cannot be reached, this process and those
    that it starts read its cache alone from now on (HF_HUB_OFFLINE)."""
    global _unreached
    if _is_local(name) or is_offline():
        return
    problem = _problem()
    if problem is not None:
        _unreached = problem
        os.environ["HF_HUB_OFFLINE"] = "1"
        for module in (
            "huggingface_hub.constants",
            "datasets.config",
        ):  # which read it when they are imported
            if module in sys.modules:
                sys.modules[module].HF_HUB_OFFLINE = True  # type: ignore[attr-defined]


def is_offline() -> bool:
    """Whether the hub's library is told to ask nothing of the network."""
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None and constants.HF_HUB_OFFLINE:
        return True
    said = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return said.upper() in ("1", "ON", "YES", "TRUE")


def refusal(field: str, name: str, kind: str) -> InputError | None:
    """Why `name` cannot be had where the hub is not asked; None: it is local, or the hub was asked. kind: `a model`, `a data set`.

    Example::

        raise refusal("model.name_or_path", "org/model", "a model") or other from error
    """
    if _is_local(name) or not is_offline():
        return None
    what = f"{name} is no folder here and not in the hub's cache ({_cache()})"
    if _unreached is None:
        hint = f"unset HF_HUB_OFFLINE to have it fetched, or give the folder of {kind}"
        return InputError(field, f"{what}, and HF_HUB_OFFLINE is set", hint)
    hint = f"give the folder of {kind}, or fetch it where there is a network: hf download {name}"
    if kind != "a model":
        hint = f"give a file or a folder, or fetch it where there is a network: hf download --repo-type dataset {name}"
    return InputError(field, f"{what}, and {_unreached}", hint)


def _is_local(name: str) -> bool:
    try:
        return Path(name).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False


def _cache() -> str:
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    return os.environ.get("HF_HUB_CACHE") or f"{home}/hub"


def _problem() -> str | None:
    """Why the hub, or the proxy before it, cannot be reached; None: it can."""
    hub = urlsplit(os.environ.get("HF_ENDPOINT") or _HUB)
    proxies = getproxies()
    proxy = proxies.get(hub.scheme) or proxies.get("all")
    if proxy and not proxy_bypass(hub.netloc):
        before = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        what = f"the proxy {before.hostname}, by which the hub is asked,"
    else:
        before, what = hub, f"the hub ({hub.hostname})"
    try:
        host, port = before.hostname, before.port or _PORTS.get(before.scheme, 443)
    except ValueError:
        return None  # the library says what is wrong with such an address
    if not host:
        return None
    why = _connect(host, port)
    return None if why is None else f"{what} cannot be reached: {why}"


def _connect(host: str, port: int) -> str | None:
    """Why no connection begins within `WAIT_S`; None: one does."""
    answers: list[str | None] = []

    def connect() -> None:
        for pause_s in (*PAUSES_S, None):
            try:
                socket.create_connection((host, port), timeout=WAIT_S).close()
            except OSError as e:
                why = e.strerror or str(e) or type(e).__name__
            else:
                answers.append(None)
                return
            if pause_s is None:
                answers.append(why)
            else:
                time.sleep(pause_s)

    # in a thread: a name server that says nothing holds the lookup for as long as it likes
    thread = threading.Thread(target=connect, name="hub", daemon=True)
    thread.start()
    thread.join(WAIT_S)
    return answers[0] if answers else f"no answer in {WAIT_S:g} s"
