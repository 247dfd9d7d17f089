"""``python -m unikit`` is ``unikit``."""

import sys

from unikit.cli import main

sys.exit(main())
