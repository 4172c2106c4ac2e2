"""GitHub Actions: a workflow that exports every night.

Save this file as `.github/workflows/mixpanel.yml` in a private repository that contains a copy of this project. The
database is stored in the repository's cache, so everyone who can read the repository can read it. GitHub deletes a
cache that has not been used for seven days, and deletes the oldest caches if their total size exceeds the repository's
limit. The next run then exports everything again.

```yaml
name: mixpanel

on:
  schedule:
    - cron: "0 6 * * *"
  workflow_dispatch:

permissions:
  contents: read

concurrency:
  group: mixpanel

jobs:
  export:
    runs-on: ubuntu-latest
    timeout-minutes: 350
    env:
      MP_USERNAME: ${{ secrets.MP_USERNAME }}
      MP_SECRET: ${{ secrets.MP_SECRET }}
      MP_PROJECT_ID: ${{ secrets.MP_PROJECT_ID }}
      MP_REGION: us
      MPX_DB: mixpanel.duckdb
    steps:
      - uses: actions/checkout@v5
      - uses: actions/setup-python@v6
        with:
          python-version: "3.13"
      - run: pip install .
      - uses: actions/cache/restore@v5
        with:
          path: mixpanel.duckdb*
          key: mixpanel-${{ github.run_id }}-${{ github.run_attempt }}
          restore-keys: mixpanel-
      - run: mpx sync --since 2024-01-01
      - if: always()
        uses: actions/cache/save@v5
        with:
          path: mixpanel.duckdb*
          key: mixpanel-${{ github.run_id }}-${{ github.run_attempt }}
```

The database is saved even if some days failed, and the next run fetches only the missing days. The schedule is in UTC.
Each run uses a new machine, where the quota file is empty. So do not run other exports in the hour before a run.
"""
