"""The grammar of ``unikit sched``: one function per verb, arguments and their help only."""

from __future__ import annotations

import argparse
from typing import Any

_SIMULATE = """examples:
  unikit sched simulate taskset.json --sched edf
  unikit sched simulate taskset.json --sched edf,prio,fair --until 2s
  unikit sched simulate taskset.json --sched edf --set sched.edf.limit=100 --gantt out.svg
  unikit sched simulate taskset.json --sched fair:slice=1ms,fair:slice=4ms --switch 2us
  unikit sched simulate taskset.json --sched ./shortest.py:Shortest

The file is JSON as rt-app reads it; times are microseconds:
  {"tasks": {"video": {"run": 4000, "timer": {"period": 10000}},
             "audio": {"run": 1000, "timer": {"period": 4000}, "deadline": 3000}}}
"""

_BENCH = """examples:
  unikit sched bench
  unikit sched bench --only yield,spawn,wakeup
  unikit sched bench --sched fair:slice=1ms,fair:slice=4ms --only cyclic,fairness --rounds 9
  unikit sched bench --json > bench.json

what is measured (--only):
  switch     between two stacks, without a scheduler
  yield      through the run queue
  spawn      spawn, run and join a task
  wakeup     wake-up latency under load, as schbench defines it
  cyclic     latency of a periodic timer under load, as cyclictest defines it
  messages   message passing, as hackbench defines it
  fairness   distance from the ideal shares
  deadlines  jobs that miss their deadline at 50 to 100 % utilisation
  timers     arming and cancelling with 1 to 100,000 sleepers

exit status: 0; 1: something could not be measured; 130: Ctrl-C
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of ``unikit sched`` to its parser."""
    verbs = parser.add_subparsers(dest="tool", metavar="VERB", required=True)
    _list(verbs)
    _simulate(verbs)
    _bench(verbs)


def _verb(verbs: Any, name: str, summary: str, epilog: str = "") -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = verbs.add_parser(
        name, help=summary, description=summary[:1].upper() + summary[1:] + ".", epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    return made


def _schedulers(one: argparse.ArgumentParser) -> None:
    one.add_argument("--sched", metavar="NAME[,NAME]", action="append", default=[],
                     help="only these; options may follow colons (fair:slice=1ms); default: all "
                          "that can")
    one.add_argument("--set", metavar="ID.OPTION=VALUE", action="append", default=[],
                     help="set an option; may be given several times")


def _list(verbs: Any) -> None:
    one = _verb(verbs, "list", "list schedulers: what each knows of tasks, and does for them")
    one.add_argument("--json", action="store_true", help="as JSON")


def _simulate(verbs: Any) -> None:
    one = _verb(verbs, "simulate", "run a task set under schedulers in virtual time", _SIMULATE)
    one.add_argument("taskset", metavar="FILE", help="the task set; - for standard input")
    _schedulers(one)
    one.add_argument("--until", metavar="TIME",
                     help="end of the simulation (2s, 500ms); default: the file's duration, else "
                          "two hyperperiods, 10 s at most")
    one.add_argument("--switch", metavar="TIME", default="0ns",
                     help="what each change of the running task costs; default: nothing")
    one.add_argument("--call", metavar="TIME", default="0ns",
                     help="what the scheduler takes between two of its readings of the clock; "
                          "default: nothing")
    one.add_argument("--tick", metavar="TIME", default="0ns",
                     help="stop tasks at multiples of this only; default: exactly in time")
    one.add_argument("--priorities", choices=("file", "rate", "deadline"), default="file",
                     help="take them from the file, or give the shorter period (rate monotonic) or "
                          "deadline the higher one")
    one.add_argument("--cooperative", action="store_true", help="never stop a task within a job")
    one.add_argument("--gantt", metavar="FILE",
                     help="draw the schedule: .svg, with matplotlib also .png; of several "
                          "schedulers, one file each")
    one.add_argument("--from", metavar="TIME", dest="start", default="0ns",
                     help="where the picture begins")
    one.add_argument("--to", metavar="TIME", help="where the picture ends; default: so that some "
                                                  "jobs of each task can be told apart")
    one.add_argument("--json", action="store_true", help="the result as JSON")
    one.add_argument("--check", action="store_true",
                     help="exit with 3 if a deadline was missed or a task set refused")


def _bench(verbs: Any) -> None:
    one = _verb(verbs, "bench", "measure schedulers beside threads, contexts and event loops",
                _BENCH)
    _schedulers(one)
    one.add_argument("--only", metavar="WHAT[,WHAT]", action="append", default=[],
                     help="measure only this; default: all, in a minute or two")
    one.add_argument("--rounds", metavar="N", type=int, default=5, help="default: 5")
    one.add_argument("--json", action="store_true", help="every value as JSON")
