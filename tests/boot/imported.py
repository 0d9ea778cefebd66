"""Print the projects of which an amphora's commands import something; the arguments are for the script that imports.

Run with an interpreter that has the released octavia with all that it asks for.
"""

import importlib.metadata
import os
import runpy
import sys

script = sys.argv[1]
sys.argv = sys.argv[1:]
runpy.run_path(script)
files = {
    os.path.realpath(module.__file__) for module in list(sys.modules.values()) if getattr(module, "__file__", None)
}
for distribution in importlib.metadata.distributions():
    if any(os.path.realpath(distribution.locate_file(file)) in files for file in distribution.files or ()):
        sys.stdout.write(f"{distribution.metadata['Name']}\n")
