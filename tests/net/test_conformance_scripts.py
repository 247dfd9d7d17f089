"""TCP and its neighbours by clause: every packet script, on every stack there is.

The scripts stand in ``scripts/<area>``; each cites the clause that it shows. Each runs twice, the
second time with sequence numbers that wrap (RFC 9293, 3.4), and on IPv6 where the stack has it.
"""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from unikit import registry
from unikit.testing.script import ScriptResult, parse, run_script

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs/ext"))
import conformance

pytestmark = pytest.mark.fast
SCRIPTS = Path(__file__).parent / "scripts"
AREAS = sorted({path.parent.relative_to(SCRIPTS).as_posix() for path in SCRIPTS.rglob("*.pkt")})
STACKS = [record for record in registry.components("net")
          if registry.entries()[record.id].distribution == registry.DISTRIBUTION]
BASES = (0x10000, 0xFFFFFFF0)


def outcomes(area: str, stack: type) -> Iterator[tuple[Path, ScriptResult, str]]:
    """Yield (script, result, why it may deviate) of an area's scripts on a stack."""
    for path in sorted((SCRIPTS / area).glob("*.pkt")):
        heads = parse(path.read_text(), str(path)).heads
        excuse = next((line.partition(" ")[2] for line in heads.get("deviates", [])
                       if line.split()[0] == stack.id), "")  # type: ignore[attr-defined]
        families = heads.get("families", ["ipv4 ipv6"])[0].split()
        for base, version in itertools.product(BASES, (4, 6)):
            if f"ipv{version}" in families and \
                    f"ipv{version}" in stack.features:  # type: ignore[attr-defined]
                yield path, run_script(path, net=stack, strict=True, ip_version=version,
                                       remote_base=base), excuse


@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: stack.id)
@pytest.mark.parametrize("area", AREAS)
def test_scripts(area: str, stack: type) -> None:
    """What a stack claims it does as the clauses say, unless the script says why it does not."""
    wrong, judged = [], 0
    for path, result, excuse in outcomes(area, stack):
        judged += result.status != "unsupported"
        if result.status == "failed" and not excuse:
            wrong.append(str(result))
        elif result.passed and excuse:
            warnings.warn(f"{path}: {stack.id} does not deviate any more: {excuse}", stacklevel=1)
    assert not wrong, "\n".join(wrong)
    if not judged:
        pytest.skip(f"nothing of {area} is claimed by {stack.id}")


def test_every_state_meets_every_event() -> None:
    """RFC 9293, 3.10: each state has scripts for segments, calls and time."""
    for state, events in {
            "closed": {"syn", "syn-ack", "ack", "fin", "rst", "data"},
            "listen": {"syn", "syn-ack", "ack", "fin", "rst", "data", "close", "send", "receive"},
            "syn-sent": {"syn", "syn-ack", "ack", "fin", "rst", "data", "close", "receive",
                         "timeout"},
            "syn-received": {"syn", "ack", "fin", "rst", "data", "close", "timeout"},
            "established": {"syn", "syn-ack", "ack", "fin", "rst", "data", "close", "abort",
                            "send", "receive", "timeout"},
            "fin-wait-1": {"syn", "syn-ack", "ack", "fin", "rst", "data", "abort", "send",
                           "timeout"},
            "fin-wait-2": {"syn", "syn-ack", "ack", "fin", "rst", "data", "abort", "send"},
            "close-wait": {"syn", "syn-ack", "ack", "fin", "rst", "data", "abort", "close",
                           "send"},
            "closing": {"syn", "syn-ack", "ack", "fin", "rst", "data", "send", "receive",
                        "timeout"},
            "last-ack": {"syn", "syn-ack", "ack", "fin", "rst", "data", "timeout"},
            "time-wait": {"syn", "ack", "fin", "rst", "send", "receive", "timeout"}}.items():
        names = {path.stem for path in (SCRIPTS / "state" / state).glob("*.pkt")}
        missing = {event for event in events
                   if not any(name == event or name.startswith(event + "-") for name in names)}
        assert not missing, f"{state}: nothing for {missing}"


def test_the_matrix_is_whole() -> None:
    """Each script cites a clause, each clause that the code cites has a test or is on the list."""
    assert not conformance.problems(), "\n".join(conformance.problems())


def test_the_matrix_sees_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The law above must be able to fail: a script without a clause, a clause without a test."""
    (tmp_path / "x.pkt").write_text("// no clause\n   0 < S 0:0(0)\n")
    (tmp_path / "y.pkt").write_text("// RFC 9293 3.10.7.4 MUST-1\n   0 < S 0:0(0)\n")
    assert list(conformance.script_cites(tmp_path).values()) == [[], [(9293, "3.10.7.4")]]
    monkeypatch.setattr(conformance, "code_cites", lambda: {
        (4711, "1.2"): [conformance.Place("unikit/net/x.c", 3)]})
    assert any(f"unikit/net/x.c:3: RFC {4711}, 1.2 has no test" in line
               for line in conformance.problems())
    assert conformance.covers((9293, "3.10.7.4"), (9293, "3.10"))
    assert not conformance.covers((9293, "3.1"), (9293, "3.10"))
