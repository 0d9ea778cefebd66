#!/bin/sh
# External check of the PING health monitor. HAProxy passes the member's address in the environment
# (HAProxy configuration manual, "external-check command").
case "$HAPROXY_SERVER_ADDR" in
    *:*) exec ping6 -q -n -w 1 -c 1 "$HAPROXY_SERVER_ADDR" >/dev/null 2>&1 ;;
    *) exec ping -q -n -w 1 -c 1 "$HAPROXY_SERVER_ADDR" >/dev/null 2>&1 ;;
esac
