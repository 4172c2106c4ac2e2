"""Apache Spark 4: events as a DataFrame or a stream, fetched by the executors.

**Each action reads again.** Spark calls the data source for every action, so `df.count()` followed by `df.show()` sends
all requests twice, but Mixpanel allows only 60 requests an hour. To avoid this, write the DataFrame to a table first,
call `df.cache()`, or pass the option `keep`, a folder that all machines share. Complete days are then stored in this
folder as Parquet files, and are not requested again.

```python
from mixpanel_export.integrations.spark import MixpanelEvents, deduplicated

spark.dataSource.register(MixpanelEvents)
events = spark.read.format("mixpanel").option("from_date", "2024-01-01").option("to_date", "2024-03-30").load()
deduplicated(events).write.saveAsTable("events")
```

The driver divides the days into partitions. For each partition, an executor sends one request, checks that the response
is complete, removes duplicates, and returns the first five columns of an events table. `event_time` is in UTC, without
a zone. If a response cannot be proven complete, the task fails, and Spark tries it again. None of this response is in
the result. `deduplicated` removes duplicates across partitions, by the same rule as an export.

**Install** `mpx-export[spark]` on the driver and on all executors. Spark 4 needs Java 17.

**Credentials** come from the environment or a file on each machine. They are never options, because Spark writes
options into plans and logs. Use `MP_CONFIG_PATH` with the option `account`, or use `MP_USERNAME`, `MP_PROJECT_ID` and
`MP_SECRET_FILE`.

**Options.** `from_date` and `to_date` are required, and have the same forms as in `export_events`. The other options
are `account`, `events` (a JSON list), `where`, `project_timezone`, `chunk_days`, `max_workers` (the number of tasks
that run at a time; default 10), `dedupe` (default `true`), `retries` (default 5), `max_wait` (in seconds),
`per_second`, `per_hour`, `api_url`, `folder` (for temporary files; by default, a folder that Spark deletes with the
application), `keep` and `wait_for_quota` (default `true`).

If `spark.sql.python.filterPushdown.enabled` is true, a filter on `event_name` reduces the events that are requested. A
filter on `event_time` does not, because Mixpanel returns a few events with another day than the day of their time.

**Quota.** The driver sets the earliest start of each partition, so that at most 3 start in a second and at most 50 in
an hour. Executors on one machine also share the limits, and every executor obeys 429 responses and `Retry-After`. If
there are more partitions than an hour allows, the others wait. If `wait_for_quota` is `false`, the read fails instead.
The clocks of all machines must agree.

**Streams.** An offset is a day. A micro-batch contains the days that have become final, 48 hours after their end.
With Spark's checkpoints, each event is written exactly once to Parquet, Delta or Iceberg. Events that arrive later are
not in the stream.

```python
stream = spark.readStream.format("mixpanel").option("from_date", "2024-01-01").load()
stream.writeStream.option("checkpointLocation", "/lake/checkpoint").trigger(availableNow=True).toTable("events")
```

**How long does it take?** The times in this table are computed, not measured. They assume events of 1 kB (150 bytes
compressed), equally many on each day, ten requests at a time, 40 MB/s for each connection, 50 planned requests of the 60
that an hour allows, and 20,000 events/s for each core (`benchmarks/spark.py` measures 22,000, without constant costs):

| events in 1000 days | data to transfer | time with 10 connections | cores for this speed | requests |
|---|---|---|---|---|
| 1 billion | 150 GB | 375 s | 133 | 50, for 20 days each: the quota of one hour |
| 10 billion | 1.5 TB | 63 min | 133 | 50, for 20 days each: the quota of one hour |
| 100 billion | 15 TB | 10.4 h | 133 | 500, for 2 days each: the quota of 10 hours |

For 100 billion events, set `chunk_days` to 2. A response then takes 13 minutes; a response for 20 days would take 2
hours. With `chunk_days` 1, the quota makes the read take 20 hours. Fewer cores need more time, in proportion: 10 cores
take 83 minutes for 1 billion events.
"""

from mixpanel_export.integrations.spark.duplicates import deduplicated
from mixpanel_export.integrations.spark.source import MixpanelEvents

__all__ = ["MixpanelEvents", "deduplicated"]
