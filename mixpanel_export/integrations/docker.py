"""Docker: an image that exports as a user without privileges.

Save this file as `Dockerfile` in a copy of this project:

```dockerfile
FROM python:3.13-slim AS build
COPY pyproject.toml README.md LICENSE /src/
COPY mixpanel_export /src/mixpanel_export
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir /src

FROM python:3.13-slim
COPY --from=build /venv /venv
RUN useradd --uid 10001 --create-home --home-dir /data mixpanel
USER 10001
WORKDIR /data
VOLUME /data
ENTRYPOINT ["/venv/bin/mpx"]
CMD ["sync"]
```

Build the image and run the first sync. Run the last line every night, for example from cron:

```bash
docker build --tag mpx .
docker run --rm --env-file mpx.env --volume mixpanel:/data mpx sync --since 2024-01-01
docker run --rm --env-file mpx.env --volume mixpanel:/data mpx
```

`mpx.env` contains the credentials. Make sure that only you can read it:

```text
MP_USERNAME=svc.ab12cd.mp-service-account
MP_SECRET=...
MP_PROJECT_ID=12345
MP_REGION=us
```

The volume contains the `mixpanel.duckdb` database and the quota file. To use a folder on the host instead, add
`--user "$(id -u):$(id -g)" --env HOME=/data` and `--volume /srv/mixpanel:/data`. After `docker stop`, all complete
batches are in the database. DuckDB uses only a part of the container's memory, so an export respects `--memory`.
"""
