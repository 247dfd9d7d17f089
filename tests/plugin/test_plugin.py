"""A third party's distribution: installed from wheels, found, checked, composed and booted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = Path(__file__).resolve().parent / "stack2"

if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
    pytest.skip("needs pip", allow_module_level=True)


def call(*command: object, cwd: Path, **environment: str) -> str:
    """Run a command that must succeed; what it printed."""
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True,
                          env=clean | environment, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def copy_of(source: Path, target: Path) -> Path:
    """Copy a source tree without what building and testing left in it."""
    return shutil.copytree(source, target, ignore=shutil.ignore_patterns(
        ".*", "*.so", "build", "dist", "__pycache__", "*.egg-info", "_build"))


class Installation:
    """A virtual environment with both distributions, apart from this checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "venv/bin/python"

    def run(self, *arguments: object) -> str:
        """Run its Python, with a cache of its own."""
        return call(self.python, *arguments, cwd=self.folder,
                    XDG_CACHE_HOME=str(self.folder / "cache"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Build both wheels and install them without any index."""
    folder = tmp_path_factory.mktemp("plugin")
    there = Installation(folder)
    venv.create(folder / "venv", with_pip=False)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder / "venv")}))
    # What unikit depends on, and pytest, come from the environment that runs this test.
    paths = [path for path in sys.path if path.endswith("-packages")]
    (site / "outer.pth").write_text("\n".join(paths) + "\n")
    pip = (sys.executable, "-m", "pip", "-q", "--disable-pip-version-check")
    install = (*pip, "--python", there.python, "install", "--no-index", "--no-deps",
               "--force-reinstall", "--find-links", folder / "wheels")
    build = ("-m", "pip", "-q", "--disable-pip-version-check", "wheel", "--no-index", "--no-deps",
             "--no-build-isolation", "-w", folder / "wheels")
    own, theirs = copy_of(ROOT, folder / "unikit-source"), copy_of(PLUGIN, folder / "stack2")
    call(sys.executable, *build, own, cwd=folder)
    call(*install, "unikit-os", cwd=folder)
    there.run(*build, theirs)
    call(*install, "unikit-stack2", cwd=folder)
    shutil.rmtree(own)  # nothing may depend on the checkout any more
    yield there


def test_it_is_found_through_the_front_door(installed: Installation) -> None:
    """The registry lists it beside the built-in ones, with the distribution that brought it."""
    out = installed.run("-c", "from unikit import registry; import unikit\n"
                        "e = registry.entries()['alloc.stack2']\n"
                        "print(e.distribution, registry.broken(), unikit.__file__)")
    assert out.startswith("unikit-stack2 {} ")
    assert str(installed.folder) in out


def test_it_passes_the_conformance_suite(installed: Installation) -> None:
    """The same suite as for every allocator of ours, through the public function."""
    out = installed.run("-c", "from unikit_stack2 import Stack2\n"
                        "from unikit.testing import check_allocator\n"
                        "print(check_allocator(Stack2()).checks > 100_000)")
    assert out == "True\n"


def test_its_own_tests_pass(installed: Installation) -> None:
    """A third party tests with what is installed."""
    out = installed.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir",
                        installed.folder / "stack2", installed.folder / "stack2/tests")
    assert "passed" in out


def test_it_can_be_left_out(installed: Installation) -> None:
    """UNIKIT_NO_PLUGINS=1 shows what unikit alone does."""
    out = installed.run("-c", "import os; os.environ['UNIKIT_NO_PLUGINS'] = '1'\n"
                        "from unikit import registry\nprint('alloc.stack2' in registry.entries())")
    assert out == "False\n"


def test_an_image_is_composed_and_booted_with_it(installed: Installation) -> None:
    """From choice to console line: the foreign allocator serves the image's memory."""
    out = installed.run("-c", """
import unikit
from unikit_stack2 import Stack2
image = unikit.Image("hello", alloc=Stack2(large="1K"), platforms=["linux"])
print(image.plan.alloc.id)
with image.boot("linux") as machine:
    print(machine.wait())
    print(machine.console.text)
""")
    lines = out.splitlines()
    assert lines[:2] == ["alloc.stack2", "0"]
    assert any("alloc.stack2" in line for line in lines[2:])


@pytest.mark.kvm
def test_the_image_boots_on_kvm_too(installed: Installation) -> None:
    """The command line takes it by name."""
    out = installed.run("-m", "unikit", "run", "hello", "--platform", "kvm", "--set",
                        "alloc.stack2.large=2K", "--alloc", "stack2")
    assert "alloc.stack2" in out
