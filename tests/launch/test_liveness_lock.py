"""The lock that says that a command lives: held by whoever has it open, and let go by the kernel with the last of them."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from carbonsched.launch import liveness_lock


def test_it_is_held_until_the_last_holder_is_gone_killed_or_not(tmp_path: Path) -> None:
    assert not liveness_lock.held(tmp_path), "no file, no holder"
    liveness_lock.make(tmp_path)
    assert not liveness_lock.held(tmp_path)
    first, second = (liveness_lock.hold(str(tmp_path / liveness_lock.NAME)) for _ in range(2))
    assert min(first, second) >= 100
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=(second,))
    os.close(second)
    assert liveness_lock.held(tmp_path)
    os.close(first)
    assert liveness_lock.held(tmp_path), "the child has it open"
    child.kill()
    child.wait()
    assert not liveness_lock.held(tmp_path)


def test_with_few_descriptors_it_takes_the_next(tmp_path: Path) -> None:
    liveness_lock.make(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (90, hard))
    try:
        fd = liveness_lock.hold(str(tmp_path / liveness_lock.NAME))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert fd < 90
    assert liveness_lock.held(tmp_path)
    os.close(fd)
    assert not liveness_lock.held(tmp_path)


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / liveness_lock.NAME).symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic links"):
        liveness_lock.held(tmp_path)
    with pytest.raises(OSError, match="symbolic links"):
        liveness_lock.hold(str(tmp_path / liveness_lock.NAME))
