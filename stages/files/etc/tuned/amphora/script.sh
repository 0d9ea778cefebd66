#!/bin/sh
# Run by tuned with "start" or "stop": keep unbound kernel work off the isolated CPUs.
[ "$1" = start ] || exit 0
echo 1 >/sys/devices/virtual/workqueue/cpumask 2>/dev/null
echo 1 >/sys/devices/virtual/workqueue/writeback/cpumask 2>/dev/null
# The statistics worker wakes every CPU each second (kernel documentation, sysctl/vm, "stat_interval"): less often.
sysctl -q -w vm.stat_interval=10
exit 0
