"""``python -m geodl.cli``."""

from __future__ import annotations

import sys

from geodl.cli.main import main

sys.exit(main())
