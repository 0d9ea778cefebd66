#!/bin/sh
# No service is started while packages are installed (invoke-rc.d(8): 101, forbidden by policy).
exit 101
