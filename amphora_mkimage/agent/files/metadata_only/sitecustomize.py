"""Puts :mod:`from_pkg_info` in the place of whatever build backend a source distribution names.

Python reads this when it starts (the module site). Where pip has started it to call a backend, the environment names
that and, if it is the project's own (``backend-path``, PEP 517), where in the project it is. What the variables are
called changes with the versions of pip: PEP517_BUILD_BACKEND, then _PYPROJECT_HOOKS_BUILD_BACKEND.
"""

import os
import sys

_replaced = False
for _name in tuple(os.environ):
    if "_BUILD_BACKEND" in _name:
        os.environ[_name] = "from_pkg_info"
        _replaced = True
    elif "_BACKEND_PATH" in _name:
        del os.environ[_name]
if not _replaced and any(_word.endswith("_in_process.py") for _word in sys.orig_argv):
    sys.exit("this pip names the build backend in a way that amphora-mkimage does not know")
