"""asyncio on unikit's schedulers: real programs, and what CPython's own tests say."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aio_policies import each_policy

from unikit.aio import run
from unikit.sched import Fair, Loop

pytestmark = pytest.mark.fast

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


@each_policy
def test_streams_and_subprocesses(policy: type) -> None:
    """A thousand lines through a server, several clients at once, and a child process."""
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()

    async def client(address: tuple[str, int], n: int) -> int:
        reader, writer = await asyncio.open_connection(*address[:2])
        for i in range(50):
            writer.write(f"line {n} {i}\n".encode())
            assert await reader.readline() == f"LINE {n} {i}\n".encode()
        writer.close()
        return n

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            address = server.sockets[0].getsockname()
            assert await asyncio.gather(*(client(address, n) for n in range(20))) == [*range(20)]
        child = await asyncio.create_subprocess_exec("cat", stdin=subprocess.PIPE,
                                                     stdout=subprocess.PIPE)
        assert (await child.communicate(b"through"))[0] == b"through"
        assert child.returncode == 0

    run(main(), policy)


def test_many_tasks_on_stacks() -> None:
    """Two thousand tasks of a scheduler with threads, waiting for each other in a chain."""
    async def main() -> int:
        async def link(before: asyncio.Task[int] | None) -> int:
            return 1 + (await before if before is not None else 0)

        task = None
        for _ in range(2000):
            task = asyncio.create_task(link(task))
        assert task is not None
        return await task

    assert run(main(), Fair) == 2000


def test_http_with_aiohttp() -> None:
    """A real server and a real client."""
    if importlib.util.find_spec("aiohttp") is None:
        pytest.skip("aiohttp is not installed")
    from aiohttp import ClientSession, web

    async def main() -> None:
        async def answer(request: Any) -> Any:
            return web.json_response({"path": request.path, "body": await request.text()})

        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        async with ClientSession(f"http://127.0.0.1:{port}") as session:
            async def ask(n: int) -> Any:
                async with session.post(f"/{n}", data="x" * n) as response:
                    return json.loads(await response.text())
            answers = await asyncio.gather(*(ask(n) for n in range(50)))
        assert answers == [{"path": f"/{n}", "body": "x" * n} for n in range(50)]
        await runner.cleanup()

    for policy in (Loop, Fair):
        run(main(), policy)


def test_http_with_httpx() -> None:
    """anyio stands between it and the loop, and looks into tasks."""
    if importlib.util.find_spec("httpx") is None:
        pytest.skip("httpx is not installed")
    import httpx

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, httpx.AsyncClient(trust_env=False) as client:
            answers = await asyncio.gather(*(client.get(f"http://127.0.0.1:{port}/")
                                             for _ in range(10)))
        assert {each.text for each in answers} == {"hello"}

    run(main())


CPYTHON = ("test_taskgroups", "test_timeouts", "test_locks", "test_queues", "test_waitfor",
           "test_threads", "test_pep492", "test_context", "test_futures2")
CPYTHON_LONG = ("test_runners", "test_sock_lowlevel", "test_streams", "test_server",
                "test_sendfile",
                "test_subprocess", "test_events", "test_ssl", "test_buffered_proto")


def cpythons_own(names: tuple[str, ...]) -> None:
    """Run test modules of CPython on our loop; none may fail."""
    if importlib.util.find_spec("test.test_asyncio") is None:
        pytest.skip("this Python comes without its own tests")
    found = subprocess.run([sys.executable, HERE / "aio_cpython.py", *names], cwd=ROOT,
                           capture_output=True, text=True, timeout=900)
    failed = [line for line in found.stdout.splitlines() if line.startswith("FAILED")]
    assert failed == [] and "RAN " in found.stdout, found.stderr[-3000:]


def test_cpythons_own_tests() -> None:
    """Written by those who wrote asyncio."""
    cpythons_own(CPYTHON)


@pytest.mark.slow
def test_cpythons_own_tests_of_transports() -> None:
    """Sockets, TLS, signals, subprocesses: minutes."""
    cpythons_own(CPYTHON_LONG)
