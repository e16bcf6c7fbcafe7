#!/usr/bin/env bash
# Installs crowdmask from this checkout into the conda environment that Snakemake has just made.
#
# Why a script: Snakemake copies the environment file to .snakemake/conda/HASH.yaml, so that a path in it (`-e ..`) would
# point elsewhere, and it unsets PYTHONPATH in conda jobs. It runs this script inside the new environment, in the working
# directory of the run (snakemake/deployment/conda.py 9.27, Env.execute_deployment_script). That is the checkout unless
# --directory is given; then CROWDMASK_SOURCE names the checkout.
#
# Editable, so that the environment follows the sources as a virtual environment does. An environment folder shared by
# several checkouts (--conda-prefix) therefore serves the checkout that made it: give each its own.
#
# Checked: the script itself against a stand-in for python (tests/workflow/test_envs.py). Not checked: a whole run with
# --sdm conda; no conda was at hand.
set -euo pipefail

source_dir="${CROWDMASK_SOURCE:-$PWD}"
if ! grep -qs '^name = "crowdmask"$' "$source_dir/pyproject.toml"; then
  echo "crowdmask.post-deploy.sh: $source_dir is no checkout of crowdmask." >&2
  echo "Run Snakemake in the checkout, or set CROWDMASK_SOURCE to its folder." >&2
  exit 1
fi
cd "$source_dir"
python -m pip install --constraint constraints.txt --editable .
