"""Every interleaving, under x86's store buffers, of what the processors of sched.steal share."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from compiled import HERE, ROOT, build, run

STEAL = ROOT / "unikit/sched/steal"
EXPLORER = [HERE / "explore/explore.c", HERE / "explore/main_explore.c",
            "unikit/rt/x86_64/switch.S"]
DEFINES = {"KIT_STEAL_ATOMICS": '"tests/conformance/explore/explore.h"'}

# (file, right, wrong): fences left out, exchanges taken apart, stores in the wrong order.
MUTATIONS = [
    ("deque.h", "(void)STEAL_SWAP(&deque->bottom, bottom, SEQ_CST);",
     "STEAL_STORE(&deque->bottom, bottom, RELAXED);"),
    ("deque.h", "    STEAL_STORE(&deque->slots[bottom & deque->mask], task, RELAXED);\n"
     "    STEAL_STORE(&deque->bottom, bottom + 1, RELEASE);",
     "    STEAL_STORE(&deque->bottom, bottom + 1, RELEASE);\n"
     "    STEAL_STORE(&deque->slots[bottom & deque->mask], task, RELAXED);"),
    ("deque.h", "return STEAL_CAS(&deque->top, &top, top + 1, SEQ_CST) ? 1 : -1;",
     "STEAL_STORE(&deque->top, top + 1, SEQ_CST); return 1;"),
    ("deque.h", "if (top == bottom && !STEAL_CAS(&deque->top, &top, top + 1, SEQ_CST))", "if (0)"),
    ("deque.h", "    *out = STEAL_LOAD(&deque->slots[top & deque->mask], RELAXED);\n"
     "    return STEAL_CAS(&deque->top, &top, top + 1, SEQ_CST) ? 1 : -1;",
     "    if (!STEAL_CAS(&deque->top, &top, top + 1, SEQ_CST))\n        return -1;\n"
     "    *out = STEAL_LOAD(&deque->slots[top & deque->mask], RELAXED);\n    return 1;"),
    ("deque.h", "if (bottom - top > deque->mask)", "if (bottom - top > deque->mask + 1)"),
    ("inbox.h", "while (!STEAL_CAS(&inbox->last, &last, letter, ACQ_REL));",
     "while (STEAL_STORE(&inbox->last, letter, SEQ_CST), 0);"),
    ("inbox.h", "*at = STEAL_SWAP(&inbox->last, NULL, ACQ_REL), *next; at; at = next) {",
     "*at = STEAL_LOAD(&inbox->last, ACQUIRE), *next; at; at = next) {\n"
     "        STEAL_STORE(&inbox->last, NULL, SEQ_CST);"),
    ("signal.h", "    while (!STEAL_CAS(word, &old, (old | event) & ~waits, ACQ_REL)) {",
     "    if (old & event)\n        return false;\n"
     "    while (!STEAL_CAS(word, &old, (old | event) & ~waits, ACQ_REL)) {"),
    ("signal.h", "    while (!STEAL_CAS(word, &old, (old | event) & ~waits, ACQ_REL)) {\n    }",
     "    STEAL_STORE(word, (old | event) & ~waits, SEQ_CST);"),
    ("signal.h", "    while (!STEAL_CAS(word, &old, (old | SIGNAL_EXPIRED) & ~waits, ACQ_REL)) {",
     "    while (!STEAL_CAS(word, &old, old | SIGNAL_EXPIRED, ACQ_REL)) {"),
    ("signal.h", "if (old & (event | SIGNAL_EXPIRED))", "if (0)"),
    ("idle.c", "    STEAL_FENCE();\n    idle_wake_one(cpu", "    idle_wake_one(cpu"),
    ("idle.c", "    if (!idle_something(cpu, deadline_ns)) /*", "    if (true) /*"),
    ("idle.c", "        idle_wake_one(steal, IDLE_RESTING, true);\n    else",
     "        (void)0;\n    else"),
    ("idle.c", "    else\n        idle_watch_again(cpu);", ""),
    ("idle.c", "            cpu->searching = true;\n            return;",
     "            cpu->searching = false;\n            return;"),
    ("idle.c", "    STEAL_FENCE();\n    uint64_t resting", "    uint64_t resting"),
    ("idle.c", "        idle_wake_one(steal, resting, true);", "        (void)0;"),
]


def explorer(folder: Path, file: str = "", right: str = "", wrong: str = "") -> Path:
    """Compile the explorer with the component's own code, one file of it changed."""
    idle, headers = STEAL / "idle.c", list[str]()
    if file:
        text = (STEAL / file).read_text()
        assert text.count(right) == 1, "the mutation no longer fits the source"
        (folder / file).write_text(text.replace(right, wrong))
        idle = folder / file if file == "idle.c" else idle
        headers = [] if file == "idle.c" else ["-include", str(folder / file)]
    switch = build([EXPLORER[2]], variant="optimised", whole=False)
    return build([*EXPLORER[:2], idle, switch], variant="optimised", defines=DEFINES,
                 flags=["-Wno-error", *headers])


def test_every_interleaving_is_right(tmp_path: Path) -> None:
    """Real runs meet few of the orders that are possible; these are all of them, for few steps."""
    done = run(explorer(tmp_path), timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"^(\d+) states in all$", done.stdout, re.MULTILINE)
    print(done.stdout)
    assert found and int(found[1]) > 100_000


@pytest.mark.parametrize("number", range(len(MUTATIONS)),
                         ids=[f"{file}-{number}" for number, (file, *_) in enumerate(MUTATIONS)])
def test_a_race_is_found(number: int, tmp_path: Path) -> None:
    """A missing fence fails once in years on a machine; the explorer must show how, each time."""
    done = run(explorer(tmp_path, *MUTATIONS[number]), timeout=120)
    assert done.returncode == 1, f"not found: {MUTATIONS[number][1]}\n{done.stdout}{done.stderr}"
    assert ", after " in done.stdout
