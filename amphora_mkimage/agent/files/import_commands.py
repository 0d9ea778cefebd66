"""Import all that the amphora's commands import when they start; runs in the image, with the agent's interpreter.

Its arguments are the names of the commands. What is loaded by name only later, at the first request, is loaded too.
"""

import importlib
import importlib.metadata
import sys

LATER_GROUPS = ("octavia.amphora.udp_api_server", "octavia.amphora.health_daemon")
LATER = (
    "gunicorn.workers.sync",
    "gunicorn.glogging",
    "werkzeug.serving",
    # The default transport of oslo.messaging, which octavia makes ready in every program (octavia/common/rpc.py).
    "oslo_messaging._drivers.impl_rabbit",
)

points = importlib.metadata.entry_points()
# Python 3.9 has a dictionary of them.
select = points.select if hasattr(points, "select") else lambda group: points.get(group, ())
commands = {point.name: point for point in select(group="console_scripts")}
for name in sys.argv[1:]:
    commands[name].load()
for group in LATER_GROUPS:
    for point in select(group=group):
        point.load()
for name in LATER:
    importlib.import_module(name)
