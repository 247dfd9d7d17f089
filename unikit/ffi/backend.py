"""PEP 517 backend: setuptools, with the source tree importable while it builds itself."""

from setuptools.build_meta import *  # noqa: F403
from setuptools.build_meta import build_editable as build_editable
from setuptools.build_meta import build_wheel as build_wheel
