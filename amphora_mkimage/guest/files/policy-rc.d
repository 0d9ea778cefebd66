#!/bin/sh
# While packages are installed, no service starts (invoke-rc.d(8), policy-rc.d): 101 forbids.
exit 101
