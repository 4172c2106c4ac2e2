"""Apache Spark 4: events as a DataFrame or a stream, fetched by the executors.

**Each action reads again.** Spark calls the data source for every action, so `df.count()` followed by `df.show()` sends
all requests twice, and Mixpanel allows 60 an hour. Write the DataFrame to a table first, call `df.cache()`, or pass the
option `keep`, a folder that all machines share: complete days are then kept there as Parquet files, and are not
requested again.

```python
from mixpanel_export.integrations.spark import MixpanelEvents, deduplicated

spark.dataSource.register(MixpanelEvents)
events = spark.read.format("mixpanel").option("from_date", "2024-01-01").option("to_date", "2024-03-30").load()
deduplicated(events).write.saveAsTable("events")
```

The driver divides the days into partitions, one request each. An executor fetches a partition, proves it complete, removes
duplicates within it and returns the first five columns of an events table. `event_time` is in UTC, without a zone. If a
partition cannot be proven complete, its task fails, Spark tries it again, and nothing of it is in the result. `deduplicated`
removes duplicates across partitions, by the rule of the table.

**Install** `mpx-export[spark]` on the driver and on all executors. Spark 4 needs Java 17.

**Credentials** come from the environment or a file of each machine, never from options, which Spark writes into plans and
logs. Use `MP_CONFIG_PATH` with the option `account`, or `MP_USERNAME`, `MP_PROJECT_ID` and `MP_SECRET_FILE`.

**Options**: `from_date` and `to_date` (required, in the forms of `export_events`), `account`, `events` (a JSON list), `where`,
`project_timezone`, `chunk_days`, `max_workers` (the number of tasks that run at a time, 10), `dedupe` (`true`), `retries`
(5), `max_wait` (seconds), `per_second`, `per_hour`, `api_url`, `folder` (for temporary files), `keep` and `wait_for_quota`
(`true`). A filter on `event_time` does not reduce the requests, because a few events are not sent with the day of their
time. A filter on `event_name` does, if `spark.sql.python.filterPushdown.enabled` is true.

**Quota.** The driver gives each partition its earliest start: 3 in a second, and at most 50 in an hour. Executors on one
machine also share the limits, and every executor obeys 429 and `Retry-After`. If there are more partitions than an hour
allows, the rest wait, or the read is refused if `wait_for_quota` is `false`. The clocks of all machines must agree.

**Streams.** An offset is a day, and a micro-batch has the days that have become final: 48 hours after their end. Spark's
checkpoints make a stream into Parquet, Delta or Iceberg exactly-once. Events that arrive later are not in the stream.

```python
stream = spark.readStream.format("mixpanel").option("from_date", "2024-01-01").load()
stream.writeStream.option("checkpointLocation", "/lake/checkpoint").trigger(availableNow=True).toTable("events")
```

**How long does it take?** With 1 kB an event, compressed to 150 bytes, 40 MB/s a connection, 100,000 events/s a core, and
100 days a request at most:

| events, in 1000 days | to transfer | 10 connections | cores for that pace | requests |
|---|---|---|---|---|
| 1 billion | 150 GB | 375 s | 27 | 50, no wait |
| 10 billion | 1.5 TB | 63 min | 27 | 50, no wait |
| 100 billion | 15 TB | 10.4 h | 27 | 1000 of a day each: 20 hours of quota |

So the quota does not matter up to about 10 billion events. Beyond that, a response for 20 days would take hours, so
`chunk_days` should be 1, and the quota of 50 requests an hour is the limit.
"""

from mixpanel_export.integrations.spark.duplicates import deduplicated
from mixpanel_export.integrations.spark.source import MixpanelEvents

__all__ = ["MixpanelEvents", "deduplicated"]
