"""``unikit run``: build if need be, boot, stay until the end (or detach)."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from unikit import registry
from unikit.cli import complain, control
from unikit.cli.images import is_file, loaded, settings
from unikit.errors import CompositionError, UnikitError
from unikit.image.boot import boot, choose_platform
from unikit.platform.api import BootImage, Machine

_READY = "UNIKIT_READY_FD"
_PATIENCE_MS = 100  # between two looks whether the run has ended


def do_run(choice: argparse.Namespace) -> int:
    """Boot an image; returns its exit code."""
    if choice.name is not None:
        control.check_name(choice.name)
    if choice.detach:
        return _detach(choice)
    try:
        with _signals():
            return _run(choice)
    except _Stopped as stopped:
        return stopped.status


def _run(choice: argparse.Namespace) -> int:
    outside = _host_settings(choice)
    at_build, at_boot = _split(choice, {
        key: value for key, value in settings(choice.set).items()
        if key.rpartition(".")[0] not in outside})
    found = loaded(choice, at_build)
    if choice.trace and "alloc.trace" not in found.plan.get("components", {}):
        raise CompositionError([f"--trace: {found.plan['name']} records nothing; compose it with "
                                "--alloc trace,tlsf"])
    platform, why = _platform(choice, found)
    name = control.free_name(choice.name or found.plan["name"], exact=choice.name is not None)
    netif = _netif(choice, found)
    say = (lambda line: None) if choice.quiet else _say
    say(why)
    ended = threading.Event()
    with contextlib.ExitStack() as undo:
        machine = boot(found, platform, memory=choice.memory, netif=netif, options=at_boot,
                       args=" ".join(choice.args), name=name, sink=_Output(ended),
                       cpus=choice.cpus)
        undo.callback(machine.close)
        if choice.trace:
            undo.callback(_leave_trace, machine, Path(choice.trace), say)
        undo.callback(ended.set)  # before that: closing waits for the output
        undo.callback(control.Server(name, machine, {
            "image": str(found.path), "platform": platform.stem(),
            "memory": choice.memory}, stopping=ended.set).close)
        _announce(machine, _wanted(netif), say)
        _ready()
        _feed(machine, ended)
        code = machine.wait()
        return code if 0 <= code <= 255 else (code & 0xFF or 1)


def _split(choice: argparse.Namespace, given: dict[str, str]
           ) -> tuple[dict[str, str], dict[str, str]]:
    """Return the settings that go into the image and those of this boot.

    A boot option does not cause a new build; a finished image takes nothing else.
    """
    if is_file(choice.target):
        return {}, given
    at_boot = {key: value for key, value in given.items() if _is_boot(choice.target, key)}
    return {key: value for key, value in given.items() if key not in at_boot}, at_boot


def _is_boot(target: str, key: str) -> bool:
    owner, _, name = key.rpartition(".")
    try:
        if owner.startswith("app."):
            from unikit import apps
            options = apps.find(target).options
        else:
            options = registry.find(owner).options
    except (CompositionError, LookupError):
        return False  # the resolver says what is wrong with it
    return any(spec.name == name and spec.when == "boot" for spec in options)


def _platform(choice: argparse.Namespace, found: BootImage) -> tuple[Any, str]:
    if choice.platform == "auto":
        return choose_platform(tuple(found.entries))
    record = registry.find(choice.platform, "platform")
    return record(), f"platform {choice.platform}: as asked for"


def _netif(choice: argparse.Namespace, found: BootImage) -> Any:
    """Return the record of the network interface to open, or ``None``."""
    components = found.plan.get("components", {})
    inside = any(key.startswith("netif.") and not _is_layer(key) for key in components)
    needs = any(key.startswith("net.") for key in components) and not inside
    *layers, last = (choice.netif or ("user" if needs else "none")).split(",")
    netif = _outermost(choice, found, needs, last)
    if choice.pcap:
        layers.append("pcap")
    if layers and netif is None:
        raise CompositionError([f"{'--pcap' if choice.pcap else choice.netif}: "
                                f"{found.plan['name']} runs without a network"])
    for name in reversed(layers):
        netif = _layer(choice, name, netif)
    return netif


def _is_layer(key: str) -> bool:
    try:
        return "layer" in registry.find(key).features
    except (CompositionError, LookupError):
        return False


def _layer(choice: argparse.Namespace, name: str, inner: Any) -> Any:
    """Return a layer over a record, with what --set says of it."""
    kind = registry.find(name, "netif")
    if "layer" not in kind.features:
        raise CompositionError([f"--netif {choice.netif}: {kind.id} stands on nothing; write what "
                                "stands on others first: fault,tap"])
    options = {key.rpartition(".")[2]: value for key, value in settings(choice.set).items()
               if key.rpartition(".")[0] == kind.id}
    if choice.pcap and kind.id == "netif.pcap":
        options["file"] = choice.pcap
    unknown = set(options) - {spec.name for spec in kind.options}
    if unknown:
        raise CompositionError([f"--set {kind.id}.{word}: there is no such option"
                                for word in sorted(unknown)])
    return kind(inner, **options)


def _host_settings(choice: argparse.Namespace) -> set[str]:
    """Return the ids of layers outside the image, whose settings are not the image's."""
    return {f"netif.{name}" for name in (choice.netif or "").split(",")[:-1]}


def _outermost(choice: argparse.Namespace, found: BootImage, needs: bool, word: str) -> Any:
    """Return the record of what the host has, under all layers; or ``None``."""
    kind, _, name = word.partition(":")
    if kind == "none":
        return None
    if not needs:
        raise CompositionError([f"--netif {choice.netif}: {found.plan['name']} has no network "
                                "stack that could use it"])
    if kind == "user":
        from unikit.net.netif.user import User
        forward = choice.forward if choice.forward is not None else found.plan.get("forward", [])
        return User(forward=",".join(forward))
    if choice.forward:
        raise CompositionError([f"--forward goes with --netif user, not with {kind}"])
    if kind == "tap":
        from unikit.net.netif.tap import Tap
        return Tap(name=name)
    raise CompositionError([f"--netif {choice.netif}: allowed are user, tap, tap:NAME and none, "
                            "with layers before them: fault,tap"])


def _leave_trace(machine: Machine, path: Path, say: Callable[[str], None]) -> None:
    """Write the trace that the image's allocator recorded, with the names of its call sites."""
    from unikit.alloc.lab import inside
    try:
        data = inside.in_memory(machine.memory())
        inside.named(data, machine.image.symbolise, program=machine.image.plan["name"]).save(
            path, names=True)
    except (UnikitError, OSError) as error:
        complain(f"no trace was written: {error}")
        return
    lost = inside.lost(data)
    say(f"the trace is in {path}" + (f"; {lost} later events found no room in it: give more by "
                                     "--set alloc.trace.size=..." if lost else ""))


def _wanted(netif: Any) -> dict[tuple[str, int], int]:
    """Return the host ports that were asked for, by protocol and port of the image."""
    found = {}
    while getattr(netif, "inner", None) is not None:
        netif = netif.inner
    for text in getattr(netif, "forward", "").split(","):
        words = text.strip().split(":")
        if len(words) > 1:
            found["udp" if words[0] == "udp" else "tcp", int(words[-1])] = int(words[-2])
    return found


def _announce(machine: Machine, wanted: dict[tuple[str, int], int],
              say: Callable[[str], None]) -> None:
    """Say where the image can be reached."""
    for protocol, host, guest in getattr(machine.netif, "forwards", ()):
        if wanted.get((protocol, guest), host) not in (0, host):
            say(f"port {wanted[protocol, guest]} is in use, {host} is taken instead")
        where = (f"http://127.0.0.1:{host}" if protocol == "tcp" and guest in (80, 8080)
                 else f"{protocol} 127.0.0.1:{host} -> {guest}")
        say(where)


def _say(line: str) -> None:
    if line.startswith("http"):
        with contextlib.suppress(OSError):
            print(line, flush=True)
    else:
        complain(line)


class _Output:
    """Standard output as a console's sink: it waits for a slow reader, but not beyond the end.

    A reader that went away ends the run, as it ends other programs in a pipe.
    """

    def __init__(self, ended: threading.Event) -> None:
        self._ended = ended
        self._poll = select.poll()
        self._poll.register(1, select.POLLOUT)

    def __call__(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            if not self._poll.poll(0 if self._ended.is_set() else _PATIENCE_MS):
                if self._ended.is_set():
                    return
                continue
            try:  # no more than a pipe that is ready takes without blocking
                left = left[os.write(1, left[:select.PIPE_BUF]):]
            except BrokenPipeError:
                if not self._ended.is_set():
                    self._ended.set()
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
                return
            except OSError:  # a full disk, a closed stream: not the image's fault
                return


def _feed(machine: Machine, ended: threading.Event) -> None:
    """Give standard input to the guest, unless that would stop us as a background job."""
    try:
        if os.isatty(0) and os.tcgetpgrp(0) != os.getpgrp():
            return
    except OSError:
        return

    def pump() -> None:
        with contextlib.suppress(OSError):
            while not ended.is_set() and (data := os.read(0, 4096)):
                while data and machine.running:
                    taken = machine.console.write(data)
                    data = data[taken:]
                    if data:
                        time.sleep(0.01)

    threading.Thread(target=pump, name="stdin", daemon=True).start()


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Make Ctrl-C, SIGTERM and SIGHUP end the run in good order, at any moment of it.

    A signal that our parent ignores (``nohup``, a job in the background) stays ignored. SIGUSR1 is
    ours: nobody reads standard output any more.
    """
    heard = [number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
             if signal.getsignal(number) != signal.SIG_IGN] + [signal.SIGUSR1]

    def stop(number: int, frame: object) -> None:
        for each in heard:  # one is enough, cleaning up goes on
            signal.signal(each, signal.SIG_IGN)
        raise _Stopped(128 + (signal.SIGPIPE if number == signal.SIGUSR1 else number))

    before = [(number, signal.signal(number, stop)) for number in heard]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


class _Stopped(BaseException):
    """A signal asked for the end; carries the exit status."""

    def __init__(self, status: int) -> None:
        self.status = status


def _ready() -> None:
    """Tell the command that detached us that the machine runs."""
    fd = os.environ.pop(_READY, "")
    if fd:
        with os.fdopen(int(fd), "w") as writer:
            writer.write("up\n")


def _detach(choice: argparse.Namespace) -> int:
    """Start the same command in a session of its own and wait until it is up or has failed."""
    import subprocess
    wish = choice.name or Path(choice.target).stem
    name = control.free_name(wish, exact=choice.name is not None)
    kept = _attached(choice.words)
    command = [sys.executable, "-m", "unikit", kept[0], "--name", name, *kept[1:]]
    ready, theirs = os.pipe()
    log = control.log_path(name)
    with log.open("wb") as output, os.fdopen(ready, "rb") as reader:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=(theirs,),
            start_new_session=True, env={**os.environ, _READY: str(theirs)})
        os.close(theirs)
        up = reader.readline()
    text = log.read_text(errors="replace")
    if up:
        sys.stderr.write(text)
        print(f"{name} runs as process {process.pid}; unikit logs {name}, unikit stop {name}")
        return 0
    status = process.wait()
    sys.stderr.write(text)
    log.unlink()
    return status if status >= 0 else 128 - status


def _attached(words: list[str]) -> list[str]:
    """Return the words of a command without ``--detach`` and ``--name NAME``."""
    kept: list[str] = []
    skip = False
    for index, word in enumerate(words):
        if word == "--":
            return kept + words[index:]
        if skip or word == "--detach" or word.startswith("--name="):
            skip = False
        elif word == "--name":
            skip = True
        else:
            kept.append(word)
    return kept
