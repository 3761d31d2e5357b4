# Source this (`source activate.sh`, bash or zsh) to get one environment for the command line, the UI and every other process:
# the packages, MOLMO2_HOME, MOLMO2_PROFILE, DAGSTER_HOME, and where `dagster asset …` finds the definitions.
# shellcheck shell=bash

_molmo2_root="$(cd "$(dirname "${BASH_SOURCE[0]:-${(%):-%x}}")" && pwd)"
if [ -f "$_molmo2_root/.venv/bin/activate" ]; then
    . "$_molmo2_root/.venv/bin/activate"
fi

export MOLMO2_HOME="${MOLMO2_HOME:-$_molmo2_root/.molmo2}"
export MOLMO2_PROFILE="${MOLMO2_PROFILE:-demo}"
# One history per profile, on this host's own disk. Follows MOLMO2_PROFILE when this file is sourced again.
export DAGSTER_HOME="$MOLMO2_HOME/$MOLMO2_PROFILE/dagster"
export DAGSTER_CLI_ASSET_MATERIALIZE_MODULE_NAME=definitions
export DAGSTER_CLI_ASSET_MATERIALIZE_WORKING_DIRECTORY="$_molmo2_root"
export DAGSTER_CLI_ASSET_LIST_MODULE_NAME=definitions
export DAGSTER_CLI_ASSET_LIST_WORKING_DIRECTORY="$_molmo2_root"

if ! mkdir -p "$DAGSTER_HOME" 2>/dev/null; then
    echo "activate.sh: cannot create $DAGSTER_HOME; set MOLMO2_HOME to a folder that you may write." >&2
elif [ ! -f "$DAGSTER_HOME/dagster.yaml" ]; then
    cat > "$DAGSTER_HOME/dagster.yaml" <<'YAML'
# Written by activate.sh; yours to change.
telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  pools:
    default_limit: 1
    granularity: op
run_monitoring:
  enabled: true
  free_slots_after_run_end_seconds: 60
YAML
fi
unset _molmo2_root
