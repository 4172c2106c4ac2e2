"""dbt: sources, and a model built on the flat tables, with the dbt-duckdb adapter.

`mpx flatten --auto` creates the `events_flat` table, and every later sync updates it. dbt writes into a separate file,
and attaches the exported file read-only. `profiles.yml`:

```yaml
mixpanel:
  target: main
  outputs:
    main:
      type: duckdb
      path: analytics.duckdb
      attach:
        - path: mixpanel.duckdb
          alias: mixpanel
          read_only: true
```

`dbt_project.yml`:

```yaml
name: mixpanel
version: "1.0"
profile: mixpanel
```

`models/sources.yml`:

```yaml
version: 2
sources:
  - name: mixpanel
    database: mixpanel
    schema: main
    tables:
      - name: events_flat
        description: One row for each event, with one typed column for each property.
        config:
          freshness:
            warn_after: {count: 3, period: day}
          loaded_at_field: event_time
        columns:
          - name: event_name
            data_tests: [not_null]
          - name: event_time
            description: In UTC.
```

`models/daily_events.sql`:

```sql
{{ config(materialized='table') }}

SELECT event_time::DATE AS day, event_name, count(*) AS events, count(DISTINCT distinct_id) AS users
FROM {{ source('mixpanel', 'events_flat') }}
WHERE event_time IS NOT NULL
GROUP BY ALL
```

DuckDB locks the file during a sync, so run dbt afterwards:

```bash
mpx sync && dbt build && dbt source freshness
```
"""
