"""Runs packet scripts against a stack, in virtual time."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path
from typing import Any

from unikit.errors import InvalidArgument, Panic, UnikitError
from unikit.net.api import Stack
from unikit.testing.script import frames
from unikit.testing.script.calls import (
    Returned,
    Sockets,
    Steps,
    Unsupported,
    _Fails,
    _WrongData,
    number,
    same_error,
)
from unikit.testing.script.flow import Flow, pattern
from unikit.testing.script.judge import difference, lacking
from unikit.testing.script.lab import Lab, Seen, Unsettled
from unikit.testing.script.model import Call, Code, Command, Event, Packet, Script
from unikit.testing.script.parser import ScriptError, parse
from unikit.testing.script.result import STATE_NAMES, ScriptResult, tcp_names

_CALLER_PORT = 49153
_PATIENCE_NS = 300 * 10**9
_DEFAULTS = {4: ("192.168.0.1", 16, "192.168.0.2", "192.0.2.1"),
             6: ("fd3d:fa7b:d17d::1", 64, "fd3d:fa7b:d17d::2", "2001:db8::1")}


class _Failed(Exception):
    def __init__(self, reason: str, *lines: str) -> None:
        super().__init__(reason)
        self.reason, self.lines = reason, lines


def run_script(script: str | Path, *, net: Any = None, strict: bool = False,
               lenient: bool = False, ip_version: int | None = None, seed: int = 1,
               remote_base: int = 0x10000,
               defines: dict[str, str] | None = None) -> ScriptResult:
    """Run a packet script against a stack, in virtual time.

    The language is packetdrill's: packets that go to the stack (``<``) or must come from it
    (``>``), socket calls and what they must return, each at a time. Code in a script (``%{ }%``)
    is Python and is run in this process; shell commands are not run.

    :param script: a file, or the text of a script (it has a line break).
    :param net: a stack record or its name; ``net.mini`` by default.
    :param strict: whether a packet that the script does not mention is a failure at once, also
        behind the last event, and data must be cut into segments as the script says.
    :param lenient: whether to leave unjudged what a stack may choose: windows, the PSH flag, the
        order of TCP options, options of features that the stack does not claim.
    :param ip_version: 4 or 6; by default what the script's ``--ip_version`` says, or 4.
    :param remote_base: the number on the wire for the script's sequence number 0.
    :param defines: words and what they stand for; ``#ifdef`` finds them.
    :raises NotFound: there is no such stack.
    :raises OSError: the file cannot be read.

    >>> run_script('''
    ...     0 < S 0:0(0) win 1000
    ...    +0 > R. 0:0(0) ack 1
    ... ''').passed
    True
    """
    record = _stack(net)
    name, text = "script", str(script)
    if isinstance(script, Path) or "\n" not in text:
        name, text = str(script), Path(script).read_text(errors="replace")
    try:
        parsed = parse(text, name, defines)
    except ScriptError as error:
        status = "unsupported" if "not supported" in str(error) else "failed"
        return ScriptResult(name, status, f"language: {str(error).partition(': ')[2]}", str(error))
    return _Run(parsed, record, strict=strict, lenient=lenient, ip_version=ip_version, seed=seed,
                base=remote_base).result()


def _stack(net: Any) -> Stack:
    from unikit import registry
    found = registry.find(net, "net") if isinstance(net, str) else net
    if found is None:
        found = registry.find("mini", "net")
    found = found() if isinstance(found, type) else found
    if not isinstance(found, Stack):
        raise InvalidArgument(f"{net!r} is no TCP/IP stack")
    return found


class _Run:
    def __init__(self, script: Script, record: Stack, *, strict: bool, lenient: bool,
                 ip_version: int | None, seed: int, base: int) -> None:
        self._script, self._record, self._seed, self._base = script, record, seed, base
        self._lenient = frozenset({*record.features, ""}) if lenient else None
        self._strict = strict
        flags = script.flags
        said = 6 if flags.get("ip_version") == "ipv6" else 4
        self._version = ip_version or said
        self._tolerance_us = int(flags.get("tolerance_usecs", 4000))
        self._percent = float(flags.get("tolerance_percent", 0))
        self._tick_us = int(flags.get("tcp_ts_tick_usecs", 0))
        self._flows: dict[tuple[int, int], Flow] = {}
        self._flow: Flow | None = None
        self._notes: list[str] = []
        self._pending: tuple[Event, Call, Steps] | None = None
        self._done: tuple[int, Returned] | None = None
        self._last_us, self._base_us = 0, 0
        self._names: dict[str, Any] = {}
        self._event: Event | None = None

    # -- the whole ----------------------------------------------------------------------------

    def result(self) -> ScriptResult:
        status, reason, detail = "passed", "", ""
        name = self._script.name
        try:
            self._require()
            self._open()
        except Unsupported as error:
            return ScriptResult(name, "unsupported", str(error),
                                f"{name}: not supported: {error}")
        try:
            self._play()
            self._lab.close()
        except Unsupported as error:
            status, reason = "unsupported", str(error)
            detail = f"{self._where()}: not supported: {error}"
        except _Failed as error:
            status, reason = "failed", error.reason
            detail = "\n  ".join([f"{self._where()}: {error.reason}", *error.lines,
                                  *self._outstanding()])
        except (Panic, Unsettled, UnikitError) as error:
            status, reason = "failed", f"{type(error).__name__}: {error}"
            detail = f"{self._where()}: {reason}"
        finally:
            self._lab.abandon()
        notes = (*self._notes, *sorted(self._calls.notes))
        return ScriptResult(name, status, reason, detail, notes, self._lab_seconds)

    def _where(self) -> str:
        return f"{self._script.name}:{self._event.line if self._event else 1}"

    def _outstanding(self) -> list[str]:
        lines = [f"outstanding: {self._time(seen.at_ns)} {self._as_script(seen.packet)}"
                 for seen in self._lab.queue]
        if self._pending is not None:
            lines.append(f"outstanding: {self._pending[1]} (line {self._pending[0].line})")
        return lines

    def _time(self, at_ns: int) -> str:
        return f"{(at_ns - self._lab.start_ns) / 1e9:.6f}"

    def _require(self) -> None:
        heads = self._script.heads
        missing = {word for line in heads.get("requires", []) for word in line.replace(
            ",", " ").split()} - set(self._record.features)
        if f"ipv{self._version}" not in self._record.features:
            missing.add(f"ipv{self._version}")
        if missing:
            raise Unsupported(", ".join(sorted(missing)))
        wanted = dict(word.split("=", 1) for line in heads.get("options", [])
                      for word in line.split())
        known = {spec.name for spec in self._record.options}
        if set(wanted) - known:
            raise Unsupported(f"the option {sorted(set(wanted) - known)[0]}")
        if wanted:
            self._record = dataclasses.replace(self._record, **wanted)  # type: ignore[type-var]

    def _open(self) -> None:
        flags = self._script.flags
        local, prefix, gateway, remote = _DEFAULTS[self._version]
        for name in ("local_ip", "remote_ip", "gateway_ip"):
            if name in flags and (":" in flags[name]) != (self._version == 6):
                raise Unsupported(f"--{name} of the other family")
        local = flags.get("local_ip", local)
        gateway = flags.get("gateway_ip", _DEFAULTS[self._version][0] if local == gateway
                            else gateway)
        self._remote, self._local = flags.get("remote_ip", remote).partition("/")[0], local
        if flags.get("ip_version") == "ipv4-mapped-ipv6":
            self._notes.append("IPv4-mapped addresses are IPv4 ones here")
        self._bind_port = int(flags.get("bind_port", 8080))
        mtu = int(flags.get("mtu", 1500))
        if not 576 <= mtu <= 9000:
            raise Unsupported(f"an MTU of {mtu}")
        self._mtu = mtu
        self._lab = Lab(self._record, local, prefix, gateway, mtu=mtu, seed=self._seed)
        self._lab_seconds = 0.0
        self._calls = Sockets(self._lab.stack, self._remote, self._bind_port,
                              int(flags.get("connect_port", 8080)), self._opened, self._find,
                              self._lab.env.now_ns)

    def _play(self) -> None:
        for event in self._script.events:
            self._event = event
            self._at(event)
            try:
                self._act(event)
            except _WrongData as error:
                raise _Failed("wrong data", str(error)) from None
            self._base_us = self._last_us
            if self._lab.broken:
                raise _Failed("a frame that no receiver would take", *self._lab.broken)
        self._finish_call()
        if self._strict and self._lab.queue:
            raise _Failed("a packet that the script does not mention")
        self._lab_seconds = self._lab.now_us() / 1e6

    def _at(self, event: Event) -> None:
        """Let time pass until an event is due."""
        base = 0 if event.kind == "absolute" else self._base_us
        self._last_us = base + event.at_us
        if isinstance(event.action, Packet) and not event.action.inbound:
            return  # which waits for itself
        if isinstance(event.action, Call):
            self._finish_call()
        self._lab.advance_to(self._lab.start_ns + self._last_us * 1000)
        if self._strict and self._lab.queue:
            raise _Failed("a packet that the script does not mention",
                          f"before: {event.action}")

    def _act(self, event: Event) -> None:
        action = event.action
        if isinstance(action, Packet):
            if action.inbound:
                self._give(action)
            else:
                self._expect(event, action)
        elif isinstance(action, Call):
            self._call(event, action)
        elif isinstance(action, Code):
            self._code(action)
        elif isinstance(action, Command):
            self._notes.append(f"line {event.line}: not run: {action.text.splitlines()[0][:60]}"
                               if action.text.strip() else f"line {event.line}: not run")

    # -- connections ----------------------------------------------------------------------------

    def _find(self, remote_port: int, local_port: int) -> Flow:
        key = (remote_port, local_port)
        if remote_port == 0:  # a UDP port: whoever speaks first
            key = (_CALLER_PORT, local_port)
        if key not in self._flows:
            self._flows[key] = Flow(*key, self._base, self._remote)
        self._flow = self._flows[key]
        return self._flow

    def _opened(self, remote_port: int, local_port: int, remote: str) -> Flow:
        flow = self._find(remote_port, local_port)
        flow.remote = remote
        flow.restart()
        return flow

    def _flow_of(self, packet: Packet) -> Flow:
        if packet.ports is not None:
            return self._find(*(packet.ports if packet.inbound else packet.ports[::-1]))
        return self._flow or self._find(_CALLER_PORT, self._bind_port)

    # -- packets to the stack -------------------------------------------------------------------

    def _give(self, packet: Packet) -> None:
        flow = self._flow_of(packet)
        ports = (flow.remote_port, flow.local_port)
        tos, ttl = frames.tos_of(packet), packet.ttl or 64
        try:
            if packet.protocol == "tcp":
                raw = frames.tcp(flow.remote, self._local, flow.to_wire(packet), ports, tos=tos,
                                 ttl=ttl)
            elif packet.protocol == "udp":
                raw = frames.udp(flow.remote, self._local, ports, pattern(0, packet.length),
                                 tos=tos, ttl=ttl)
            else:
                raw = self._icmp(packet, flow)
        except (NotImplementedError, struct.error, ValueError) as error:
            raise Unsupported(str(error)) from None
        if len(raw) > self._mtu:
            raise Unsupported("packets to the stack that are larger than the MTU")
        self._lab.give(raw)

    def _icmp(self, packet: Packet, flow: Flow) -> bytes:
        kind, code = frames.icmp_numbers(packet, self._version)
        if packet.icmp[0].startswith("echo"):
            rest = struct.pack("!HH", packet.echo, 1) + pattern(0, 56)
        else:
            rest = struct.pack("!I", packet.mtu or 0) + self._quoted(packet.quoted, flow)
        return frames.icmp(flow.remote, self._local, kind, code, rest)

    def _quoted(self, inner: Packet | None, flow: Flow) -> bytes:
        ports = (flow.local_port, flow.remote_port)
        if inner is not None and inner.protocol == "udp":
            return frames.udp(self._local, flow.remote, ports, bytes(inner.length))[:28 + 20]
        said = inner or Packet(inbound=True)
        live = dataclasses.replace(
            said, seq=((said.seq or 0) + (flow.local_base or 0)) % 2**32, flags=".", ack=0,
            window=0, payload=bytes(said.length), options=())
        whole = frames.tcp(self._local, flow.remote, live, ports, tos=0, ttl=64)
        return whole[:(40 if self._version == 6 else 20) + 20]

    # -- packets from the stack -----------------------------------------------------------------

    def _as_script(self, packet: Packet, wanted: Packet | None = None) -> Packet:
        if packet.protocol != "tcp" or packet.ports is None:
            return packet
        key = (packet.ports[1], packet.ports[0])
        flow = self._flows.get(key)
        if flow is None:
            return packet
        plain = dataclasses.replace(flow.to_script(packet, wanted), ecn="", tos=None, ttl=None)
        return plain if flow is not self._flow else dataclasses.replace(plain, ports=None)

    def _expect(self, event: Event, wanted: Packet) -> None:
        low, high = self._last_us, self._last_us
        if event.until_us is not None:
            high = event.until_us + (self._last_us - event.at_us)
        limit = self._lab.start_ns + high * 1000 + self._slack_us(high) * 1000
        if event.kind == "any":
            limit = self._lab.env.now_ns() + _PATIENCE_NS
        if not self._lab.queue:
            self._lab.advance_to(limit, until_packet=True)
        if not self._lab.queue:
            self._missing(wanted, limit)
        seen = self._lab.queue[0]
        self._compare(seen, wanted)
        at_us = (seen.at_ns - self._lab.start_ns) // 1000
        slack = self._slack_us(high)
        if event.kind != "any" and not low - slack <= at_us <= high + slack:
            raise _Failed("a packet at another time",
                          f"expected: {low / 1e6:.6f}{f'~{high / 1e6:.6f}' if high > low else ''} "
                          f"{wanted}", f"seen:     {at_us / 1e6:.6f}")
        self._lab.queue.popleft()
        if event.kind == "any" or event.until_us is not None:
            self._last_us = at_us

    def _slack_us(self, at_us: int) -> int:
        return max(self._tolerance_us, int(at_us * self._percent / 100))

    def _missing(self, wanted: Packet, limit: int) -> None:
        why = lacking(wanted, None, self._record.features)
        if why:
            raise Unsupported(why)
        raise _Failed("no packet", f"expected: {wanted}", f"seen:     nothing until "
                                                          f"{self._time(limit)}")

    def _compare(self, seen: Seen, wanted: Packet) -> None:
        flow = self._flow_of(wanted)
        live = seen.packet
        if wanted.protocol == "udp" and live.protocol == "udp" and live.ports and \
                wanted.ports is None:
            flow = self._find(live.ports[1], live.ports[0])
        if live.ports is not None and live.ports != (flow.local_port, flow.remote_port):
            raise _Failed("a packet of another connection", f"expected: {wanted}",
                          f"seen:     {self._as_script(live)}")
        live = self._merged(seen, wanted, flow)
        shown = flow.to_script(live, wanted) if live.protocol == "tcp" else live
        why = difference(wanted, shown, lenient=self._lenient, tick_us=self._tick_us,
                         tolerance_us=self._tolerance_us,
                         push_free="psh" in " ".join(self._script.heads.get("unjudged", [])))
        if why:
            feature = lacking(wanted, shown, self._record.features)
            if feature:
                raise Unsupported(feature)
            raise _Failed(why, f"expected: {wanted}",
                          f"seen:     {self._show(shown, wanted)}")
        if live.protocol == "tcp" and not flow.sent_as_written(shown):
            raise _Failed("wrong data", f"in: {self._show(shown, wanted)}")

    @staticmethod
    def _show(shown: Packet, wanted: Packet) -> Packet:
        """Return a packet without what the script says nothing about."""
        return dataclasses.replace(
            shown, ports=shown.ports if wanted.ports else None,
            ecn=shown.ecn if wanted.ecn else "", ttl=shown.ttl if wanted.ttl else None,
            tos=shown.tos if wanted.tos is not None else None,
            mtu=shown.mtu if wanted.mtu else None, echo=shown.echo if wanted.echo else 0)

    def _merged(self, seen: Seen, wanted: Packet, flow: Flow) -> Packet:
        """Return consecutive segments as one, where the script shows one large one."""
        live = seen.packet
        if self._strict or "strict_segments" in self._script.flags or live.protocol != "tcp":
            return live
        queue = self._lab.queue
        while 0 < live.length < wanted.length and len(queue) > 1:
            following = queue[1].packet
            if following.protocol != "tcp" or following.ports != live.ports or \
                    following.seq != ((live.seq or 0) + live.length) % 2**32 or \
                    not following.length or following.ack != live.ack:
                break
            live = dataclasses.replace(following, seq=live.seq,
                                       length=live.length + following.length,
                                       payload=live.payload + following.payload)
            queue[1].packet = live
            queue.popleft()
        return live

    # -- calls ----------------------------------------------------------------------------------

    def _call(self, event: Event, call: Call) -> None:
        steps = self._calls.start(call)
        end = call.end_us
        if end is not None and event.kind == "relative":
            call = dataclasses.replace(call, end_us=end + self._base_us)
        self._pending, self._done = (event, call, steps), None
        self._lab.waiting = _Waiting(self)
        self._step()
        self._lab.settle()
        if call.end_us is None:
            self._finish_call()

    def _step(self) -> bool:
        """Let the call that waits try again; whether it returned."""
        if self._pending is None or self._done is not None:
            return False
        try:
            next(self._pending[2])
        except StopIteration as stop:
            self._done = (self._lab.now_us(), stop.value)
            return True
        except _Fails as error:
            self._done = (self._lab.now_us(), Returned(-1, str(error)))
            return True
        return False

    def _finish_call(self) -> None:
        """Wait for the call that blocks, and judge it."""
        if self._pending is None:
            return
        event, call, _ = self._pending
        self._event = event
        end_us = call.end_us if call.end_us is not None else self._lab.now_us()
        limit_ns = self._lab.start_ns + (end_us + self._slack_us(end_us)) * 1000
        while self._done is None and self._lab.env.now_ns() < limit_ns:
            self._lab.advance_to(min(limit_ns, self._lab.env.now_ns() + 10**6))
        if self._done is None:
            raise _Failed("a call that blocks", f"expected: {call}",
                          f"seen:     still waiting at {self._lab.now_us() / 1e6:.6f}")
        at_us, returned = self._done
        self._pending, self._lab.waiting = None, None
        if call.end_us is not None and abs(at_us - end_us) > self._slack_us(end_us):
            raise _Failed("a call that returned at another time",
                          f"expected: {call} at {end_us / 1e6:.6f}",
                          f"seen:     at {at_us / 1e6:.6f}")
        self._judge(call, returned)

    def _judge(self, call: Call, returned: Returned) -> None:
        if call.result is not ...:
            wanted = number(call.result)
            if returned.value != wanted or not same_error(returned.error, call.error):
                raise _Failed(f"{call.name}() gave something else", f"expected: {call}",
                              f"seen:     {returned.value} {returned.error}".rstrip())
        said: Any = None
        if call.name == "poll":
            said = [number(each.values.get("revents", 0)) for each in call.arguments[0]]
        elif call.name in ("getsockopt", "ioctl") and isinstance(call.arguments[-2 if
                           call.name == "getsockopt" else -1], list):
            said = [number(each) for each in
                    call.arguments[-2 if call.name == "getsockopt" else -1]]
        if said is not None and returned.out is not None and said != list(returned.out):
            raise _Failed(f"{call.name}() gave something else", f"expected: {said}",
                          f"seen:     {list(returned.out)}")

    # -- code -----------------------------------------------------------------------------------

    def _code(self, code: Code) -> None:
        self._names.update(STATE_NAMES)
        self._names.update(self._tcp_info())
        try:
            exec(compile(code.text, f"{self._script.name}", "exec"), self._names)
        except NameError as error:
            raise Unsupported(f"{error.name} in code") from None
        except AssertionError as error:
            raise _Failed("an assertion", f"code: {code.text}", f"seen: {error}") from None
        except Exception as error:
            raise _Failed("an exception in code", f"code: {code.text}",
                          f"{type(error).__name__}: {error}") from None

    def _tcp_info(self) -> dict[str, Any]:
        """Return what the stack tells of the connection."""
        sock = self._calls.current
        return {} if sock is None or sock.handle is None else \
            tcp_names(self._calls.info(sock))


class _Waiting:
    """Lets a blocked call try again whenever the stack did something."""

    def __init__(self, run: _Run) -> None:
        self._run = run

    def __call__(self) -> bool:
        return self._run._step()

    @property
    def wake_ns(self) -> int | None:
        return self._run._calls.wake_ns


__all__ = ["ScriptResult", "run_script"]
