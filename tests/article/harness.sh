# SPDX-License-Identifier: Apache-2.0
# How a block of commands is run as a reader would run it, and how its outcome is judged. Read by run.sh.

PASSED=0
FAILED=0
WORK=$(mktemp -d)
OUT=$WORK/output   # of the last block
STATUS=0           # of its last command
TITLE=
TEXT=

say() { printf '%s\n' "$*" >&2; }

# as_typed TITLE [NAME=VALUE...] <<'EOT': shows what will be run, and leaves it in TEXT. NAME is a word that the article
# leaves to its reader, VALUE what stands in its place.
as_typed() {
	local word
	TITLE=$1
	shift
	TEXT=$(cat)
	for word; do
		TEXT=${TEXT//${word%%=*}/${word#*=}}
	done
	say "==> $TITLE"
	say "$(sed 's/^/    $ /' <<<"$TEXT")"
}

# printed LINES: shows the beginning of what came out.
printed() { sed 's/^/    /' "$OUT" | cut -c1-240 | head -n "$1" >&2; }

# block TITLE [NAME=VALUE...] <<'EOT': runs what is typed in this shell, so that variables last from block to block.
block() {
	as_typed "$@"
	STATUS=0
	eval "$TEXT" >"$OUT" 2>&1 </dev/null || STATUS=$?
	printed 40
}

# watch TITLE SECONDS TRAFFIC [NAME=VALUE...] <<'EOT': the same for a command that ends by Ctrl-C alone, with traffic to
# be seen. Ends as soon as the pattern LOOK_FOR is in its output, after SECONDS at the latest.
watch() {
	local title=$1 seconds=$2 traffic=$3 end watcher
	shift 3
	as_typed "$title" "$@"
	: >"$OUT"
	# Job control gives the command a process group, so that all of it can be ended.
	set -m
	(eval "$TEXT") >"$OUT" 2>&1 </dev/null &
	watcher=$!
	set +m
	until_so 20 grep -q Listening "$OUT"
	end=$((SECONDS + seconds))
	while ! grep -qE "$LOOK_FOR" "$OUT" && [ $SECONDS -lt $end ]; do
		"$traffic" >/dev/null 2>&1
	done
	kill -INT -- "-$watcher" 2>/dev/null
	kill -TERM -- "-$watcher" 2>/dev/null
	wait "$watcher" 2>/dev/null
	printed 12
}

# check WHAT COMMAND...: one promise of the text.
check() {
	local what=$1
	shift
	if "$@" >"$WORK/check" 2>&1; then
		PASSED=$((PASSED + 1))
		say "  ok: $what"
	else
		FAILED=$((FAILED + 1))
		say "  FAILED: $what"
		sed 's/^/    | /' "$OUT" >&2
		sed 's/^/    / ' "$WORK/check" >&2
		printf 'FAILED  article: %s: %s\n' "$TITLE" "$what"
	fi
}

succeeded() { [ "$STATUS" = 0 ]; }
shows() { grep -qE -- "$1" "$OUT"; }
lacks() { ! grep -qE -- "$1" "$OUT"; }

# until_so SECONDS COMMAND...: waits for a condition.
until_so() {
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || return 1
		read -rt 0.2 <>"$WORK/never" || true
	done
}
mkfifo "$WORK/never"

closing_line() { printf '%d passed, %d failed, 0 skipped\n' "$PASSED" "$FAILED"; }
