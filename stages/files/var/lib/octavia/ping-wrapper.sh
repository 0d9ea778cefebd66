#!/bin/sh
# External check of the PING health monitor. HAProxy passes the member's address in the environment, and an empty PATH:
# Octavia's configuration sets no other (HAProxy configuration manual, "external-check command", "external-check path").
PATH=/usr/sbin:/usr/bin:/sbin:/bin
exec ping -q -n -w 1 -c 1 "$HAPROXY_SERVER_ADDR" >/dev/null 2>&1 # of either family (iputils)
