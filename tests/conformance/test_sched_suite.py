"""The scheduler suite in both hosted harnesses, and proof that it notices broken schedulers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from compiled import HERE, ROOT, VARIANTS, build, conforms, run

from unikit.sched import Coop, Edf, Fair, Loop, Prio, Scheduler, Steal

RECORDS: dict[str, Scheduler] = {  # frames are large under AddressSanitizer, hence 64K
    "loop": Loop(),
    "coop": Coop(stack="64K"),
    "coop, canaries, nothing kept": Coop(stack="64K", guard=False, cached=0),
    "prio": Prio(stack="64K"),
    "fair": Fair(stack="64K"),
    "edf": Edf(stack="64K"),
    "coop, measured": Coop(stack="64K", measure=True, cached=3),
    "steal": Steal(stack="64K"),
    "steal, canaries, measured": Steal(stack="64K", guard=False, cached=3, measure=True),
}
SUITE = [HERE / "main_sched.c", "unikit/testing/virtual.c",
         *sorted((ROOT / "unikit/testing").glob("suite_sched*.c"))]
SYNC = ROOT / "unikit/sched/sync.c"

# (component, file, right, wrong): each a mistake somebody could make.
MUTATIONS = [
    ("coop", "thread.c", "task->woken = true;\n    if", "if"),  # no permit for a later block
    ("coop", "thread.c", "    task->woken = false;\n    return rc", "    return rc"),
    ("coop", "thread.c", "if (!task->woken)\n        thread_sleep", "thread_sleep"),
    ("coop", "thread.c", "t->asleep--;\n    t->events.stats", "t->events.stats"),
    ("coop", "thread.c", "if (task->state == THREAD_BLOCKED)\n", "if (task->state >= 2)\n"),
    ("coop", "thread.c", "        task->joiner = NULL;\n", ""),
    ("coop", "thread.c", "    task->woken = false;\n    kit_context", "    kit_context"),
    ("coop", "thread.c", "    t->spares--;\n    thread_clean", "    thread_clean"),
    ("coop", "thread.c", "if (!task->standard || t->spares", "if (t->spares"),
    ("coop", "thread.c", "t->events.stats.timers--;", ""),
    ("coop", "thread.c", "        kit_control_write(task->control);", "        ;"),
    ("coop", "thread.c", "        kit_control_write(t->control);\n    }", "    }"),
    ("coop", "thread.c", "    if (timer_queue_cancel(&t->events.timers, &task->timer))\n"
                         "        t->asleep--;", ""),  # the timer of a woken task stays
    ("coop", "coop.c", "push_back(&coop_of(threads)->ready", "push_front(&coop_of(threads)->ready"),
    ("coop", "coop.c", "push_back(&coop_of(threads)->ready", "push_back(&coop_of(threads)->batch"),
    ("coop", "events.c", "push_back(&events->work", "push_back(&events->batch"),
    ("coop", "events.c", "push_back(&events->work", "push_front(&events->work"),
    ("coop", "events.c", "events->queued != 0 ? 0 :", ""),
    ("coop", "timer.c", "deadline_ns > queue->now_ns ? deadline_ns : queue->now_ns", "deadline_ns"),
    ("coop", "timer.c", "slot->last = timer;", ""),
    ("coop", "timer.c", "timer_begins(queue, index) > now_ns)",
     "timer_begins(queue, index) >= now_ns)"),
    ("coop", "timer.c", "if (slot->last == timer)\n", "if (0)\n"),
    ("coop", "timer.c", "        slot->first_ns = 0;", "        ;"),
    ("coop", "timer.c", "timer == last && timer->deadline_ns <= now_ns", "timer == last"),
    ("coop", "timer.c", "bool any = timer_queue_first(queue) <= now_ns", "bool any = true"),
    ("coop", "timer.c", "    queue->count--;\n    return true;", "    return true;"),
    ("coop", "sync.c", "while (wait_is_open(wait) && rc == 0)", "if (wait_is_open(wait))"),
    ("coop", "sync.c", "if (choice->waiter.queued)\n", "if (0)\n"),
    ("coop", "sync.c", "if (waiters_serve(s, &semaphore->waiters, 0) == NULL)",
     "waiters_serve(s, &semaphore->waiters, 0);"),  # counts what it gave away
    ("coop", "sync.c", "        if (waiter_claim(waiters, waiter))",
     "        if (waiter_claim(waiters, waiter) || 1)"),  # serves who has been served
    ("coop", "sync.c", "event->set = !event->automatic;", ";"),
    ("coop", "sync.c", "else if (waiters_serve(s, &event->waiters, 0) == NULL)", "else"),
    ("coop", "sync.c", "    queue_put(queue, sender->item);", ";"),
    ("coop", "sync.c", "queue->count < queue->capacity || queue->closed", "true"),
    ("coop", "sync.c", "&queue->senders, KIT_ECLOSED", "&queue->senders, 0"),
    ("coop", "sync.c", "        memcpy(receiver->item", "        memcpy(choice->item"),
    ("coop", "sync.c", "if (writes && lock->readers > 0)", "if (0)"),
    ("coop", "sync.c", "lock->writer != NULL || lock->waiters.first", "lock->writer"),
    ("coop", "sync.c", "        rwlock_admit(s, lock);\n", ""),
    ("coop", "sync.c", "        wait_look_at_tasks(s, wait);", ""),
    ("coop", "sync.c", "once->state == ONCE_RUNS && self", "0 && self"),
    ("coop", "sync.c", "mutex->owner = next;", "mutex->owner = NULL;"),
    ("prio", "sync.c", "    kit_sched_depend(s, self, mutex->owner);", ""),
    ("prio", "sync.c", "        kit_sched_depend(s, self, NULL);", "        ;"),
    ("prio", "sync.c", "    kit_sched_depend(s, next, NULL);", ""),
    ("prio", "sync.c", "        kit_sched_depend(s, waiter->wait->task, next);", "        ;"),
    ("prio", "prio.c", "kit_fls64(prio->levels)", "kit_ctz64(prio->levels)"),
    ("prio", "prio.c", "push_back(&prio->ready[level]", "push_front(&prio->ready[level]"),
    ("prio", "prio.c", "prio->left--;", ""),
    ("prio", "prio.c", "        prio->levels &= ~(UINT64_C(1) << level);", "        ;"),
    ("prio", "prio.c", "task = task->on)", "task = NULL)"),  # no chain
    ("prio", "prio.c", "level = lent > level ? lent : level;", ""),
    ("prio", "prio.c", "task->own < PRIO_LEVELS ? 0 : KIT_EINVAL", "0"),
    ("coop", "sync.c", "kit_mutex_lock(s, mutex, KIT_NEVER)",
     "kit_mutex_lock(s, mutex, deadline_ns)"),
    ("fair", "fair.c", "task->lag = lag > limit ? limit : lag < -limit ? -limit : (int64_t)lag;",
     "task->lag = 0;"),
    ("fair", "fair.c", "tree_first_upto(&fair->tree, fair_now(fair))", "fair->tree.first"),
    ("fair", "fair.c", "fair->moment += (__int128)advance * task->weight;", ""),
    ("fair", "fair.c", "if (task->node.key == deadline && !threads->preempted)", "if (0)"),
    ("fair", "fair.c", "task->node.value += advance;", "task->node.value += ran_ns;"),
    ("fair", "fair.c", "task->node.key = task->node.value + fair", "task->node.key = fair"),
    ("fair", "tree.c", "node->least = node->child[side]->least;", ";"),
    ("edf", "edf.c", "task->budget_ns < 0 ? task->budget_ns + slice_ns : slice_ns", "slice_ns"),
    ("edf", "edf.c", "budget_ns -= (int64_t)(now_ns - edf->since_ns);", "budget_ns -= 0;"),
    ("edf", "edf.c", "if (edf->use - task->use + use > edf->limit)", "if (0)"),
    ("edf", "edf.c", "edf->use -= edf_task_of(which)->use;", ""),
    ("edf", "edf.c", "(task->budget_ns <= 0 && !task->strict);", "false;"),
    ("edf", "edf.c", "(unsigned __int128)left_ns * task->slice_ns)", "(unsigned __int128)-1)"),
    ("edf", "edf.c", "return first != NULL && first->release_ns < deadline_ns ?", "return 0 ?"),
    ("edf", "edf.c", "(edf->ran && timer_queue", "(0 && timer_queue"),
    ("edf", "edf.c", "budget_ns > 0 ? task->deadline_ns", "budget_ns > 0 ? task->slice_ns"),
    ("coop", "thread.c", "    if (task == NULL)\n        return KIT_ENOMEM;\n    task->state",
     "    t->alive += task == NULL;\n    if (task == NULL)\n        return KIT_ENOMEM;\n"
     "    task->state"),  # counts a task that did not come about
    ("coop", "thread.c", "    if (events_reserve(&t->events) != 0)\n        return NULL;\n",
     "    events_reserve(&t->events);\n"),  # a task that cannot sleep
    ("steal", "steal/life.c", "        stack_put(&cpu->stacks, task->stack);\n    return rc;",
     "        ;\n    return rc;"),  # a stack that nobody has
    ("steal", "steal/life.c", "        steal_keep(cpu, task);\n        return rc;",
     "        return rc;"),  # stays in the list of all
    ("loop", "loop.c", "loop->runnable--;", ""),
    ("loop", "loop.c", "push_back(&loop->ready", "push_front(&loop->ready"),
    ("loop", "loop.c", "push_back(&loop->ready", "push_back(&loop->batch"),
    ("loop", "loop.c", "    loop_drop(loop, &loop->finished);\n", ""),
    ("loop", "loop.c", "loop->current = NULL;", ""),
]


@pytest.mark.parametrize("variant", [pytest.param(each, marks=pytest.mark.fast)
                                     if each == "optimised" else each for each in VARIANTS])
@pytest.mark.parametrize("name", RECORDS)
def test_conforms(name: str, variant: str) -> None:
    """One source must behave alike under sanitizers, which follow each switch, and as a release."""
    record = RECORDS[name]
    program = build([*SUITE, SYNC, *record.source_files()], variant=variant,
                    defines={"COMPONENT": record.symbol()})
    conforms(program, *record.encoded())


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(MUTATIONS)),
                         ids=[f"{file}-{number}" for number, (_, file, *_) in enumerate(MUTATIONS)])
def test_a_broken_scheduler_is_noticed(number: int, tmp_path: Path) -> None:
    """A suite that passes everything is worth nothing: each of these mistakes must be found."""
    name, file, right, wrong = MUTATIONS[number]
    record = RECORDS[name]
    text = (ROOT / "unikit/sched" / file).read_text()
    assert text.count(right) >= 1, "the mutation no longer fits the source"
    broken = tmp_path / Path(file).name
    broken.write_text(text.replace(right, wrong, 1))
    defines = {"COMPONENT": record.symbol()}
    suite = build(SUITE, variant="optimised", whole=False, defines=defines)
    others = [path for path in (SYNC, *record.source_files()) if path.name != broken.name]
    program = build([suite, *others, broken], variant="optimised", flags=["-Wno-error"])
    try:
        done = run(program, *record.encoded(), timeout=5)
    except subprocess.TimeoutExpired:
        return
    assert done.returncode not in (0, 2), f"passed without noticing: {right} -> {wrong}"
