"""The packet scripts find mistakes: net.mini with one line changed fails at least one of them."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from unikit.ffi import load
from unikit.net import Mini
from unikit.testing.script import run_script

pytestmark = pytest.mark.fast

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(__file__).parent / "scripts"
FLAGS = ("-std=gnu11", "-O0", "-fPIC", "-w")
PANIC = "#include <stdlib.h>\nvoid kit_panic(const char *why) { (void)why; abort(); }\n"

MUTATIONS = {
    "a RST anywhere in the window counts":
        ("tcp_in.c", "if (offset != 0) {", "if (offset >= t->rcv_adv - t->rcv_nxt) {"),
    "a SYN in the window is ignored":
        ("tcp_in.c", "mini_tcp_challenge(m, t); /* RFC 5961, section 4 */", ""),
    "an ACK of what was not sent counts":
        ("tcp_in.c", "if (kit_seq_lt(t->snd_max, s->ack) ||", "if ("),
    "an ancient ACK counts":
        ("tcp_in.c", "|| kit_seq_lt(s->ack, t->snd_una - t->max_wnd)", ""),
    "overlapping data is not trimmed":
        ("tcp_in.c", "s->data += mini_min(old, s->length);", ""),
    "data beyond the window is not answered":
        ("tcp_in.c", "mini_tcp_ack_now(m, t); /* a probe of our closed window: its ACK counts */",
         ""),
    "a listener ignores ACKs":
        ("tcp_in.c", "        mini_tcp_refuse(m, s);\n        return;\n    }\n"
         "    if ((s->flags & (KIT_TCP_SYN | KIT_TCP_FIN))",
         "        return;\n    }\n    if ((s->flags & (KIT_TCP_SYN | KIT_TCP_FIN))"),
    "SYN-SENT believes any RST":
        ("tcp_in.c", "        if (acked) {\n            m->stats.resets_in++;",
         "        if (true) {\n            m->stats.resets_in++;"),
    "a FIN does not count as a number":
        ("tcp_in.c", "    t->rcv_nxt++;\n    mini_event", "    mini_event"),
    "TIME-WAIT does not answer a FIN":
        ("tcp_in.c", "(s->flags & (KIT_TCP_SYN | KIT_TCP_FIN)) != 0 || s->length != 0",
         "s->length != 0"),
    "TIME-WAIT does not begin anew":
        ("tcp_in.c", "w->deadline_ns = m->now_ns + m->time_wait_ns;", ""),
    "a slow ACK": ("mini.h", "(40 * KIT_NS_PER_MS)", "(900 * KIT_NS_PER_MS)"),
    "no ACK for every second segment": ("tcp_in.c", "if (++t->unacked >= 2)",
                                        "if (++t->unacked >= 5)"),
    "a larger initial window": ("tcp_ack.c", "return mini_min(10u * t->mss,",
                                "return mini_max(20u * t->mss,"),
    "the window grows without bound": ("tcp_ack.c", "mini_min(acked, 2u * t->mss)", "acked"),
    "four duplicates": ("tcp_ack.c", "t->dupacks != 3", "t->dupacks != 4"),
    "partial ACKs are waited out":
        ("tcp_ack.c", "mini_tcp_retransmit(m, t); /* a partial one: the next hole */", ""),
    "old segments update the window":
        ("tcp_ack.c", "if (kit_seq_lt(t->snd_wl1, s->seq) ||", "if (true || "),
    "no restart after a silence":
        ("tcp_out.c", "mini_tcp_restart(t); /* RFC 5681, 4.1 */", ";"),
    "silly segments": ("tcp_out.c", "    return length == t->mss || kit_seq_lt",
                       "    return true || kit_seq_lt"),
    "Nagle's algorithm is not there": ("tcp_out.c", "(!m->nagle ||", "(true ||"),
    "the peer's MSS is not heeded": ("mini.h", "MINI_MSS_DEFAULT = 536", "MINI_MSS_DEFAULT = 700"),
    "windows are not scaled":
        ("tcp_in.c", "s->window <<= t->snd_shift;", ";"),
    "challenges without end": ("mini.h", "MINI_CHALLENGES = 10", "MINI_CHALLENGES = 200"),
    "an ICMP error kills": ("tcp_in.c", "} else if (t->socket.state == KIT_TCP_SYN_SENT && code",
                            "} else if (code"),
    "ICMP about anything is believed":
        ("tcp_in.c", "if (t == NULL || seq - t->snd_una >= mini_flight(t)) {",
         "if (t == NULL) {"),
}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that builds net.mini with one text replaced and returns the component."""
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc")
    folder = tmp_path_factory.mktemp("mutants")
    source = folder / "unikit/net/mini"
    shutil.copytree(ROOT / "unikit/net/mini", source)
    (folder / "panic.c").write_text(PANIC)
    objects: dict[str, Path] = {}

    def compile(path: Path) -> Path:
        target = path.with_suffix(".o")
        subprocess.run(["gcc", *FLAGS, f"-I{folder}", f"-I{ROOT}", "-c", str(path), "-o",
                        str(target)], check=True)  # the copy's headers come first
        return target

    def make(file: str, old: str, new: str) -> Any:
        text = (source / file).read_text()
        assert text.count(old) >= 1, f"{file} has changed: {old!r} is not in it"
        for path in sorted(source.glob("*.c")) + [folder / "panic.c"]:
            if path.name not in objects:
                objects[path.name] = compile(path)
        (source / file).write_text(text.replace(old, new, 1))
        changed = dict(objects)
        try:
            names = [file] if file.endswith(".c") else \
                [path.name for path in source.glob("*.c")]
            for name in names:
                mutant = source / f"mutant-{name}"
                mutant.write_text((source / name).read_text())
                changed[name] = compile(mutant)
                mutant.unlink()
        finally:
            (source / file).write_text(text)
        library = folder / f"mutant{len(list(folder.glob('*.so')))}.so"
        subprocess.run(["gcc", "-shared", "-o", str(library), *map(str, changed.values())],
                       check=True)
        symbol = ctypes.c_char.in_dll(ctypes.CDLL(str(library)), "kit_net_mini")
        ffi, _ = load.abi()
        return ffi.cast("const struct kit_net_component *", ctypes.addressof(symbol))

    return make


def broken(monkeypatch: pytest.MonkeyPatch, component: Any) -> Iterator[str]:
    """Yield the scripts that fail on a component in the place of net.mini."""
    original = load.component
    monkeypatch.setattr(load, "component", lambda record: component if record.id == "net.mini"
                        else original(record))
    for path in sorted(SCRIPTS.rglob("*.pkt")):
        if "deviates: net.mini" not in path.read_text() and \
                run_script(path, net=Mini, strict=True).status == "failed":
            yield path.relative_to(SCRIPTS).as_posix()


def test_nothing_fails_without_a_mistake(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of building alone breaks nothing."""
    assert list(broken(monkeypatch, build("tcp_in.c", "in_reset", "in_reset"))) == []


@pytest.mark.parametrize("what", MUTATIONS)
def test_a_mistake_is_found(what: str, build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line changed in the stack: some script says so."""
    assert next(broken(monkeypatch, build(*MUTATIONS[what])), None) is not None
