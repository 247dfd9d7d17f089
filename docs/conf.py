"""Sphinx configuration. Build with ``unikit/bootstrap docs``."""

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "ext"), str(HERE.parent)]

from unikit import __version__  # noqa: E402

project = "unikit"
author = "the unikit developers"
copyright = "the unikit developers"
version = release = __version__

extensions = ["sphinx.ext.autodoc", "conformance", "headers", "records", "results", "alloc_results",
              "sched_results"]
exclude_patterns = ["_build", "ext"]
templates_path: list[str] = []
html_static_path = ["_static"]
html_css_files = ["unikit.css"]
html_theme = "furo" if importlib.util.find_spec("furo") else "alabaster"
html_title = f"unikit {version}"
html_copy_source = False
html_theme_options = (
    {"sidebar_hide_name": False, "navigation_with_keys": True} if html_theme == "furo" else
    {"description": "Choose an operating system the way you choose Python packages",
     "page_width": "1100px", "fixed_sidebar": True})

autodoc_typehints = "signature"
autodoc_default_options = {"exclude-members": "options"}
autodoc_class_signature = "mixed"
c_id_attributes = ["KIT_HIDDEN", "_Noreturn"]
c_extra_keywords: list[str] = []
highlight_language = "none"
# Annotations name classes by their last word, and two domains may have a class of the same name.
suppress_warnings = ["ref.python"]
toc_object_entries = False
