"""The suite for several processors, hosted: on POSIX threads, and under ThreadSanitizer."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from compiled import HERE, ROOT, build, conforms, run

from unikit.sched import Steal

RECORDS = {
    "steal": Steal(stack="64K"),
    "steal, small": Steal(stack="64K", slots=2, spin=0, cached=3, seed=7),
}
SUITE = [HERE / "main_sched_cpus.c", *sorted((ROOT / "unikit/testing").glob("suite_sched_cpus*.c")),
         ROOT / "unikit/sched/sync.c"]
FLAGS = {"threads": ["-pthread"],
         "raced": ["-pthread", "-O1", "-fsanitize=thread", "-Wno-tsan"]}

# (processors, file, right, wrong): each a mistake somebody could make.
MUTATIONS = [
    (2, "run.c", "kit_switch_then(&task->context, context, steal_settle, cpu);",
     "steal_settle(cpu); kit_switch(&task->context, context);"),  # runs before it is saved
    (2, "run.c", "        inbox_put(&home->inbox, &task->letter);", ""),
    (2, "run.c", "        idle_ring(home);", ""),
    (2, "run.c", "    } else if (KIT_LIKELY(home == cpu)) {", "    } else if (true) {"),
    (2, "run.c", "        idle_notify(cpu);\n    } else", "    } else"),
    (2, "signal.h", "    while (!STEAL_CAS(word, &old, (old | event) & ~waits, ACQ_REL)) {\n    }\n"
     "    return (old & waits) != 0;", "    STEAL_CAS(word, &old, old | event, ACQ_REL);\n"
     "    return (old & waits) != 0;"),  # two find it waiting
    (2, "signal.h", "if (old & (event | SIGNAL_EXPIRED))", "if (0)"),  # a wake is lost
    (2, "deque.h", "if (top == bottom && !STEAL_CAS(&deque->top, &top, top + 1, SEQ_CST))",
     "if (0)"),
    (2, "idle.c", "            cpu->searching = true;\n            return;",
     "            cpu->searching = false;\n            return;"),  # counted as searching for ever
    (4, "idle.c", "        idle_wake_one(steal, IDLE_RESTING, true);\n    else",
     "        (void)0;\n    else"),  # who relied on a search is forgotten
    (2, "life.c", "if (STEAL_CAS(&task->joiner, &joiner, NULL, ACQ_REL))\n        return false;",
     "if (true)\n        return false;"),
    (2, "life.c", "if (signal_send(&joiner->signal, SIGNAL_WAKE))", "if (false)"),
    (2, "life.c", "    if (task->home == cpu)\n        steal_keep",
     "    if (true)\n        steal_keep"),
    (2, "sleepers.c", "        if (signal_expire(&task->signal))\n            kit_list",
     "        if (signal_expire(&task->signal), true)\n            kit_list"),
]


def program(name: str, how: str) -> Path:
    """Compile the suite with the scheduler of that record."""
    record = RECORDS[name]
    return build([*SUITE, *record.source_files()], variant="optimised", flags=FLAGS[how],
                 defines={"COMPONENT": record.symbol()})


@pytest.mark.parametrize(("name", "cpus"), [("steal", 2), ("steal, small", 4)])
def test_conforms_on_threads(name: str, cpus: int) -> None:
    """Real threads reorder, interrupt and outrun each other; nothing may be lost or run twice."""
    conforms(program(name, "threads"), cpus, 1, *RECORDS[name].encoded())


@pytest.mark.parametrize(("name", "cpus"), [
    ("steal", 2), pytest.param("steal, small", 3, marks=pytest.mark.slow)])
def test_nothing_shared_is_raced_for(name: str, cpus: int) -> None:
    """ThreadSanitizer, which is told of each switch, must find all that is shared ordered."""
    conforms(program(name, "raced"), cpus, 1, *RECORDS[name].encoded())


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(MUTATIONS)),
                         ids=[f"{file}-{number}" for number, (_, file, *_) in enumerate(MUTATIONS)])
def test_a_broken_scheduler_is_noticed(number: int, tmp_path: Path) -> None:
    """What is wrong between processors must end in a failed check, a crash, or a hang."""
    cpus, file, right, wrong = MUTATIONS[number]
    record = RECORDS["steal, small"]
    folder = tmp_path / "unikit/sched/steal"
    folder.mkdir(parents=True)
    for path in (ROOT / "unikit/sched/steal").glob("*.[ch]"):
        text = path.read_text()
        if path.name == file:
            assert text.count(right) == 1, "the mutation no longer fits the source"
            text = text.replace(right, wrong)
        (folder / path.name).write_text(text)
    # Guards make a header that comes first the only one of its name.
    headers = ["-include", str(folder / file)] if file.endswith(".h") else []
    defines = {"COMPONENT": record.symbol()}
    suite = build(SUITE, variant="optimised", whole=False, defines=defines)
    switch = build([path for path in record.source_files() if path.suffix == ".S"],
                   variant="optimised", whole=False)
    sources = [folder / path.name if path.parent.name == "steal" else path
               for path in record.source_files() if path.suffix == ".c"]
    broken = build([suite, switch, *sources], variant="optimised",
                   flags=["-pthread", "-Wno-error", *headers])
    try:
        done = run(broken, cpus, 1, *record.encoded(), timeout=6)
    except subprocess.TimeoutExpired:
        return
    assert done.returncode not in (0, 2), f"passed without noticing: {right} -> {wrong}"
