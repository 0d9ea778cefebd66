"""``python -m amphora_mkimage``."""

from __future__ import annotations

import sys

from amphora_mkimage.cli import main

sys.exit(main())
