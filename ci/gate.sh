#!/usr/bin/env bash
# The EdgeNAS gate for any CI: fails when a change makes a model larger, slower or worse.
#
#   ci/gate.sh MODEL.onnx [MODEL.onnx ...]     exit 0: passed, 3: did not pass, 1 or 2: could not tell
#
# Accept a change on purpose, then commit the file: edgenas check MODEL.onnx --baseline ci/baseline.json --update
set -euo pipefail
results="${EDGENAS_RESULTS:-gate-results}"
mkdir -p "$results"
status=0
edgenas check "$@" --baseline "${EDGENAS_BASELINE:-ci/baseline.json}" \
    --markdown "$results/summary.md" --junit "$results/junit.xml" --history "$results/history.jsonl" || status=$?
if [ -n "${GITHUB_STEP_SUMMARY:-}" ] && [ -f "$results/summary.md" ]; then
    cat "$results/summary.md" >>"$GITHUB_STEP_SUMMARY"
fi
exit "$status"
