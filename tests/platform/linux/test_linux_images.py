"""Composed images as Linux processes: run by a person, and by a machine."""

from __future__ import annotations

import subprocess
import urllib.request
from pathlib import Path

import pytest

from unikit.errors import CompositionError
from unikit.image import Image
from unikit.net.netif.user import User

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def hello() -> Path:
    """The smallest application, with its Linux entry alone."""
    return Image("hello", platforms=("linux",)).build()


def test_an_image_just_runs(hello: Path) -> None:
    """`./hello.elf` from a shell: no launcher, no option, nothing on standard error."""
    done = subprocess.run([hello, "--", "good", "morning"], capture_output=True, text=True,
                          check=True)
    assert done.stdout.splitlines()[0] == "hello from unikit"
    assert done.stdout.splitlines()[1].startswith("linux: alloc.tlsf")
    assert done.stdout.splitlines()[2] == "good morning"
    assert done.stderr == ""


def test_the_image_of_both_entries_is_the_same_file() -> None:
    """The entry for another platform is ballast here, never a different behaviour."""
    path = Image("hello", platforms=("kvm", "linux")).build()
    assert subprocess.run([path], capture_output=True, text=True,
                          check=True).stdout.startswith("hello from unikit\nlinux: ")


def test_hello_needs_little_memory(hello: Path) -> None:
    """As a process in all: image, stack and heap."""
    done = subprocess.run([hello, "memory=96K"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("hello from unikit")


def test_segments_are_never_writable_and_executable(hello: Path) -> None:
    """What the kernel maps: code, constants, data, and a stack that is not executable."""
    text = subprocess.run(["readelf", "-lW", hello], capture_output=True, text=True,
                          check=True).stdout
    flags = [line.split("0x")[-2].split(" ", 1)[1].strip() for line in text.splitlines()
             if line.strip().startswith(("LOAD", "GNU_STACK"))]
    assert flags == ["R E", "R", "RW", "RW"]


def test_missing_network_is_said(tmp_path: Path) -> None:
    """An image with a stack but no network ends with a sentence, not a crash."""
    path = Image("echo", platforms=("linux",)).build()
    done = subprocess.run([path], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "network" in done.stdout


def test_boot_options_reach_the_components() -> None:
    """Checked by the launcher when it knows the image, by the image itself otherwise."""
    image = Image("echo", platforms=("linux",))
    with pytest.raises(CompositionError, match="nonsense"):
        image.boot("linux", options={"net.mini.address": "nonsense"})
    done = subprocess.run([image.build(), "net.mini.address=nonsense"], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 2
    assert "net.mini.address" in done.stdout


def test_http_without_privileges() -> None:
    """The main job: a page from the web server, over forwarded ports and a bridge."""
    with User(forward="127.0.0.1:0:80").open() as net, \
            Image("http", platforms=("linux",)).boot("linux", netif=net) as machine:
        machine.console.expect("listening on 80")
        port = net.ports[0].port
        for _ in range(3):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                assert answer.status == 200
                assert b"<html" in answer.read()
        assert machine.stats()["frames_out"] > 10
