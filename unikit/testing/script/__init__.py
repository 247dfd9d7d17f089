"""Packet scripts: what must go over the wire, and when, checked in virtual time."""

from unikit.testing.script.parser import ScriptError, parse
from unikit.testing.script.run import ScriptResult, run_script

__all__ = ["ScriptError", "ScriptResult", "parse", "run_script"]
