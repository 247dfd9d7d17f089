"""net.mini: the conformance suite in three harnesses, and proof that it notices broken stacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "conformance"))
from compiled import HERE, ROOT, VARIANTS, build, conforms, run

from unikit.net import Mini
from unikit.testing import check_stack

SUITE = [HERE / "main_net.c", *(f"unikit/testing/{name}.c" for name in (
    "suite_net", "suite_net_tcp", "suite_net_udp", "suite_net_faults", "wire", "virtual"))]
MINI = [f"unikit/net/mini/{name}" for name in Mini.sources]
RECORDS = [
    Mini(),
    Mini(connections=8, send_buffer="2K", receive_buffer="2K", nagle=True, udp_sockets=3,
         udp_buffer=2000, arp_entries=1),
    Mini(connections=1000, send_buffer="1M", receive_buffer="1M", time_wait="1s"),
    Mini(send_buffer="4K", receive_buffer="256K"),
]

# (file, right, wrong): each a mistake somebody could make.
MUTATIONS = [
    ("tcp_ack.c", "t->snd_nxt = ack;", ";"),
    ("tcp_ack.c", "t->want_write = false;\n        mini_event(m, &t->socket, KIT_NET_WRITABLE);",
     ";"),
    ("tcp_in.c", "mini_ring_put(&t->rx, t->rx.length + offset,", "mini_ring_put(&t->rx, offset,"),
    ("tcp_in.c", "if (kit_checksum_end(mini_sum(sum, tcp, length)) != 0)", "if (0)"),
    ("tcp_in.c", "t->fin_queued ? KIT_TCP_FIN_WAIT_1 : KIT_TCP_ESTABLISHED",
     "KIT_TCP_ESTABLISHED"),
    ("tcp_in.c", "mini_tcp_send_ack(m, t);\n        mini_tcp_time_wait(m, t);",
     "mini_tcp_time_wait(m, t);"),
    ("tcp_in.c", "if (t->listener != NULL && t->listener->full_count >= t->listener->backlog) {",
     "if (0) {"),
    ("tcp_out.c", "t->snd_nxt += length + fin;", "t->snd_nxt += length;"),
    ("tcp_out.c", "t->fin_sent |= fin;", ";"),
    ("timer.c", "t->snd_nxt = t->snd_una;", ";"),
    ("timer.c", "t->retries++;", ";"),  # a peer that vanished is asked for ever
    ("table.c", "mini_ring_free(m, &t->rx);", ";"),
    ("table.c", "kit_list_remove(&t->output_link);", ";"),
    ("ring.c", "memcpy(data + first, r->data, length - first);", ";"),
    ("ring.c", "memcpy(data + first, r->data, r->head);", ";"),
    ("socket.c", "if (t->socket.events != 0)", "if (0)"),
    ("socket.c", "opened >= mini_min(m->receive_buffer / 2, 2u * t->mss)", "false"),
    ("udp.c", "u->queued + cost > m->udp_buffer ? NULL", "0 ? NULL"),
    ("udp.c", "if (port == 0) {", "if (0) {"),
    ("arp.c", "} else if (a->tries >= ARP_TRIES) {", "} else if (0) {"),
    ("arp.c", "if (a->waiting == MINI_ARP_QUEUE) {", "if (0) {"),
    ("mini.c", "prefix < 31 &&", "0 &&"),
]


def arguments(record: Mini, connections: int) -> list[int]:
    """Return the arguments of the suite's program."""
    return [connections, *record.encoded()]


@pytest.mark.parametrize("number", range(len(RECORDS)))
@pytest.mark.parametrize("variant", [pytest.param(each, marks=pytest.mark.fast)
                                     if each == "optimised" else each for each in VARIANTS])
def test_conforms(number: int, variant: str) -> None:
    """One source must behave alike under sanitizers and as a release, with small and large
    buffers, with and without Nagle."""
    program = build([*SUITE, *MINI], variant=variant, defines={"COMPONENT": "kit_net_mini"})
    conforms(program, *arguments(RECORDS[number], 10_000 if number == 0 else 500))


@pytest.fixture(scope="module")
def fuzzer() -> Path:
    """The program that plays hostile network and restless application, with sanitizers."""
    return build(["tests/fuzz/mini_network.c", *MINI, "unikit/net/netif/pipe.c",
                  "unikit/testing/virtual.c"])


@pytest.mark.parametrize("seed", range(4))
def test_hostile_network(fuzzer: Path, seed: int) -> None:
    """Frames made to fit and then damaged, misbehaving callers, failing memory: nothing breaks."""
    conforms(fuzzer, seed, 4000)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1020))
def test_hostile_network_for_long(fuzzer: Path, seed: int) -> None:
    """The same, some twenty million frames of it."""
    done = run(fuzzer, seed, 100_000, timeout=900)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


@pytest.mark.fast
def test_conforms_in_process() -> None:
    """The same suite on the very extension that Python programs use, 10,000 connections in it."""
    assert check_stack(Mini).checks > 10_000


@pytest.mark.parametrize("number", range(len(MUTATIONS)),
                         ids=[f"{name}-{number}" for number, (name, *_) in enumerate(MUTATIONS)])
def test_a_broken_stack_is_noticed(number: int, tmp_path: Path) -> None:
    """A suite that passes everything is worth nothing: each of these mistakes must be found."""
    name, right, wrong = MUTATIONS[number]
    text = (ROOT / "unikit/net/mini" / name).read_text()
    assert text.count(right) >= 1, "the mutation no longer fits the source"
    (tmp_path / name).write_text(text.replace(right, wrong))
    defines = {"COMPONENT": "kit_net_mini"}
    parts = [build([path], variant="optimised", whole=False, defines=defines)
             for path in [*SUITE, *MINI] if not str(path).endswith(f"/{name}")]
    program = build([*parts, tmp_path / name], variant="optimised", flags=["-Wno-error"])
    try:
        done = run(program, *arguments(RECORDS[0], 300), timeout=5)
    except subprocess.TimeoutExpired:
        return
    assert done.returncode not in (0, 2), f"passed without noticing: {right} -> {wrong}"
