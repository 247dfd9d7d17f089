"""The life of an image: order, ends, refusals, and what ``app.h`` promises beyond components."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from unikit.component import Option
from unikit.errors import CompositionError, GuestExit
from unikit.image import Image, elf
from unikit.platform.linux import Linux

PLATFORMS = ["linux", pytest.param("kvm", marks=pytest.mark.kvm)]
Boot = Callable[..., Any]


@pytest.fixture(params=PLATFORMS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Boot:
    """Return a function that boots C text on each platform."""
    platform = request.param

    @contextmanager
    def boot(text: str, *, args: str = "", options: dict[str, str] | None = None,
             memory: str = "4M", **more: Any) -> Iterator[Any]:
        source = tmp_path / "main.c"
        source.write_text("#include <unikit/app.h>\n" + text)
        image = Image("probe", [source], platforms=(platform,), **more)
        with image.boot(platform, memory=memory, args=args, options=options) as machine:
            yield machine

    return boot


def ends(run: Boot, text: str, **more: Any) -> tuple[int, list[str]]:
    """Run to the end: exit code and console lines."""
    with run(text, **more) as machine:
        code = machine.wait(10)
        return code, machine.console.lines()


def test_an_application_with_nothing_left_to_do_has_finished(run: Boot) -> None:
    """No task, no timer, no network, no reader: code 0, by itself."""
    assert ends(run, 'int init_application(void) { kit_log("hi %d", 7); return 0; }') == (
        0, ["hi 7"])


@pytest.mark.parametrize("code", [0, 3])
def test_without_events_an_image_ends_when_the_application_returns(run: Boot, code: int) -> None:
    """No main loop is entered: what the logic would print is never seen."""
    assert ends(run, f"""
int init_application(void) {{ kit_log("once"); return {code}; }}
void process_application_logic(void) {{ kit_log("logic"); }}
""", events=False) == (code, ["once"])


@pytest.mark.parametrize(("how", "code"), [("return 3;", 3), ("kit_exit(42);", 42),
                                           ("kit_exit(0);", 0)])
def test_the_exit_code_is_the_application_s(run: Boot, how: str, code: int) -> None:
    """By a nonzero result of init_application or by kit_exit."""
    assert ends(run, f"int init_application(void) {{ {how} }}")[0] == code


def test_timers_and_work_keep_an_image_alive_until_they_ran(run: Boot) -> None:
    """In order of deadlines, the work before them; then it ends."""
    assert ends(run, """
static void say(struct kit_timer *t);
static struct kit_timer late = {.run = say}, early = {.run = say};
static void say(struct kit_timer *t) { kit_log(t == &late ? "late" : "early"); }
static void soon(struct kit_work *w) { (void)w; kit_log("work"); }
static struct kit_work work = {.run = soon};
int init_application(void)
{
    uint64_t before = kit_clock_now();
    kit_timer_start(&late, 20 * KIT_NS_PER_MS);
    kit_timer_start(&early, 10 * KIT_NS_PER_MS);
    kit_task_post(&work);
    kit_log(kit_clock_now() >= before && kit_uptime() < 10 * KIT_NS_PER_S ? "start" : "clock");
    return 0;
}
""") == (0, ["start", "work", "early", "late"])


def test_the_logic_runs_every_turn_while_work_is_pending(run: Boot) -> None:
    """process_application_logic and has_pending_work, as in the basic framework."""
    assert ends(run, """
static int turns;
int init_application(void) { return 0; }
void process_application_logic(void) { turns++; }
bool has_pending_work(void) { if (turns == 5) kit_log("five"); return turns < 5; }
""") == (0, ["five"])


def test_blocked_tasks_that_nothing_can_wake_are_a_deadlock(run: Boot) -> None:
    """Said at once, instead of an image that sleeps for ever."""
    with run("""
static struct kit_semaphore never;
static void wait(void *argument)
{
    (void)argument;
    kit_semaphore_wait(kit_task_scheduler(), &never, KIT_NEVER);
}
int init_application(void)
{
    struct kit_task_spec spec = {.entry = wait, .flags = KIT_TASK_DETACHED};
    return kit_task_spawn(&spec, NULL);
}
""", sched="coop") as machine, pytest.raises(GuestExit, match="deadlock") as caught:
        machine.wait(10)
    assert caught.value.reason == "panic"


def test_a_task_that_sleeps_is_no_deadlock(run: Boot) -> None:
    """Its deadline is an event; joined or detached, the image ends after the last task."""
    assert ends(run, """
static struct kit_task *first;
static void nap(void *argument)
{
    (void)argument;
    uint64_t until = kit_clock_now() + 5 * KIT_NS_PER_MS;
    int rc = kit_task_sleep_until(until);
    kit_log("slept %d %d", rc, kit_clock_now() >= until);
}
static void join(void *argument)
{
    (void)argument;
    kit_task_yield();
    kit_log("joined %d", kit_task_join(first, KIT_NEVER));
}
int init_application(void)
{
    struct kit_task_spec spec = {.entry = nap};
    kit_task_spawn(&spec, &first);
    spec = (struct kit_task_spec){.entry = join, .flags = KIT_TASK_DETACHED};
    kit_task_spawn(&spec, NULL);
    kit_log("outside %d", kit_task_sleep_until(0) == KIT_ENOTSUP);
    return 0;
}
""", sched="coop") == (0, ["outside 1", "slept 0 1", "joined 0"])


READER = """
static unsigned turns;
int init_application(void) { char c; kit_console_read(&c, 0); return 0; }
void process_application_logic(void)
{
    char text[8];
    size_t got = kit_console_read(text, sizeof text);
    turns++;
    if (got != 0) {
        kit_print(text, got);
        kit_log(" after %s", turns < 100 ? "few turns" : "spinning");
        if (text[0] == 'q')
            kit_exit(0);
    }
}
"""


def test_a_reader_sleeps_until_there_is_input(run: Boot) -> None:
    """Console input is an event; waiting for it costs no turns of the loop."""
    with run(READER) as machine:
        for word in ("one", "two", "q"):
            time.sleep(0.05)
            machine.console.write(word)
            machine.console.expect(f"{word} after few turns")
        assert machine.wait(5) == 0


def test_a_panic_says_what_was_wrong(run: Boot) -> None:
    """kit_panic reaches whoever started the image."""
    with run('int init_application(void) { kit_panic("no luck today"); }') as machine, \
            pytest.raises(GuestExit, match="no luck today"):
        machine.wait(10)


def test_a_stack_that_is_overwritten_is_noticed(run: Boot) -> None:
    """The stack protector of the whole image."""
    with run("""
static void copy(char *to, size_t size) { for (size_t i = 0; i < size; i++) to[i] = 'x'; }
__attribute__((noinline)) static void overflow(volatile size_t size)
{
    char small[16];
    copy(small, size);
    kit_print(small, 1);
}
int init_application(void) { overflow(40); return 0; }
""") as machine, pytest.raises(GuestExit, match="stack frame was overwritten"):
        machine.wait(10)


def test_what_is_missing_is_said_in_words(run: Boot) -> None:
    """A call the composition does not serve is refused at build time with the remedy."""
    with pytest.raises(CompositionError, match=r"kit_tcp_listen.*net=\"mini\""):
        ends(run, "int init_application(void) { return kit_tcp_listen(1, NULL, NULL, NULL); }",
             net=None)
    with pytest.raises(CompositionError, match=r"kit_task_yield.*sched=\"coop\""):
        ends(run, "int init_application(void) { kit_task_yield(); return 0; }", sched="loop")


OPTIONS = (
    Option("number", 5, "a number", minimum=2, maximum=300, when="boot"),
    Option("bytes", "1K", "a size", kind="size", when="boot"),
    Option("pause", "2ms", "a time", kind="duration", when="boot"),
    Option("loud", False, "a switch", kind="bool", when="boot"),
    Option("colour", "red", "a choice", kind="choice", choices=("red", "green", "blue"),
           when="boot"),
    Option("peer", "10.0.0.1", "an address", kind="address", when="boot"),
    Option("own", "", "a prefix", kind="prefix", when="boot"),
    Option("fixed", 77, "a number fixed when built"),
)
SHOW = """
int init_application(void)
{
    static const char *const names[] = {"number", "bytes", "pause", "loud", "colour", "peer",
                                        "own", "fixed"};
    for (unsigned i = 0; i < 8; i++)
        kit_log("%s %llx", names[i], (unsigned long long)kit_app_option(names[i]));
    return 0;
}
"""
DEFAULTS = ["number 5", "bytes 400", "pause 1e8480", "loud 0", "colour 0", "peer a000001", "own 0",
            "fixed 4d"]


@pytest.fixture
def raw(tmp_path: Path) -> Callable[[dict[str, str]], Any]:
    """Return a function that boots the option reader with raw texts, unchecked by the host."""
    source = tmp_path / "main.c"
    source.write_text("#include <unikit/app.h>\n" + SHOW)
    image = Image("probe", [source], platforms=("linux",), options=OPTIONS)
    built = elf.load(image.build())

    def boot(given: dict[str, str]) -> tuple[int, list[str]]:
        with Linux().boot(built, memory=1 << 21, options={
                f"app.probe.{name}": value for name, value in given.items()}) as machine:
            return machine.wait(10), machine.console.lines()

    return boot


def test_without_boot_options_the_built_values_hold(raw: Any) -> None:
    """In the form of rt/opt.h."""
    assert raw({}) == (0, DEFAULTS)


TEXTS = {
    "number": ["2", "300", "0x10", "007", "00", "1", "301", "-5", "", "5x", "0x",
               "18446744073709551616", "99999999999999999999999"],
    "bytes": ["0", "64K", "64k", "16M", "1GiB", "2tb", "3B", "1KK", "K", "20000000000000000000",
              "18446744073709551615", "16777216T", "1.5K"],
    "pause": ["250us", "2ms", "1.5s", "0.000000001s", "10ns", "1.", "5", "3m", "ms",
              "18446744074s", "4000000s", ".5s", "1.5.5s"],
    "loud": ["true", "FALSE", "yes", "no", "On", "off", "1", "0", "2", "", "tru", "truee"],
    "colour": ["red", "blue", "Blue", "", "re", "redd"],
    "peer": ["10.0.0.255", "0.0.0.0", "255.255.255.255", "1.2.3", "1.2.3.4.5", "1.2.3.256",
             "01.2.3.4", "1.2.3.4 ", "a.b.c.d", "1..2.3", ""],
    "own": ["10.0.0.2/24", "1.2.3.4/0", "1.2.3.4/32", "1.2.3.4/33", "1.2.3.4", "1.2.3.4/", "",
            "1.2.3.4/-1", "/24"],
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_mean_the_same_in_the_image_as_on_the_host(raw: Any, name: str) -> None:
    """One language, two readers: the record's parser is the reference, refusals included."""
    spec = next(each for each in OPTIONS if each.name == name)
    position = OPTIONS.index(spec)
    for text in TEXTS[name]:
        try:
            wanted = spec.encode(spec.parse(text))
            if wanted >= 2**64:
                raise ValueError
        except ValueError:
            if text == "5" and name == "pause":  # the host passes normal forms: whole ns
                assert raw({name: text})[1][position] == "pause 5"
                continue
            code, lines = raw({name: text})
            assert code == 2, text
            assert lines == [f"app.probe.{name}: '{text}' is not allowed; give {spec.allowed()}"]
        else:
            assert raw({name: text}) == (0, [
                *DEFAULTS[:position], f"{name} {wanted:x}", *DEFAULTS[position + 1:]]), text


def test_every_wrong_option_is_named(raw: Any) -> None:
    """A person mends them all at once."""
    code, lines = raw({"number": "1", "loud": "maybe", "colour": "green"})
    assert code == 2
    assert [line.split(":")[0] for line in lines] == ["app.probe.number", "app.probe.loud"]


def test_too_little_memory_is_said(run: Boot) -> None:
    """The allocator's refusal reaches the console, with the code for a refused boot."""
    code, lines = ends(run, "int init_application(void) { return 0; }", memory="2M",
                       alloc="tlsf", settings={"alloc.tlsf.pool": "1G"})
    assert (code, lines) in [(2, ["cannot start alloc.tlsf: too little memory"]),
                             (2, ["cannot start alloc.tlsf: an option is out of range"])]


def test_a_stack_without_interface_is_said(run: Boot) -> None:
    """An image with a network that was started without one."""
    code, lines = ends(run, "int init_application(void) { return kit_tcp_listen(0, 0, 0, 0); }",
                       net="mini")
    assert code == 2
    assert lines == ["cannot start the network: no interface was given: a part it needs is "
                     "missing"]
