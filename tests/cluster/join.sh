#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# join.sh GROUP... -- COMMAND...
# Enters the cgroups, one of each hierarchy, and becomes the command. A shell of its own, because a process that forks
# into its cgroup would have to do so between fork and exec.
set -eu
while [ "$1" != -- ]; do
    echo $$ >"$1/cgroup.procs"
    shift
done
shift
exec "$@"
