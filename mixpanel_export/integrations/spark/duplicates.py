"""Removes duplicates across partitions, by the rule of an events table (`_writer/winners.py`)."""

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as sf

_NUMBER = "_mixpanel_number"


def deduplicated(events: DataFrame) -> DataFrame:
    """Return *events* without duplicates. Of several versions of an event, the last that Mixpanel processed is kept.

    Events are versions of the same event if their name, `distinct_id`, `time` and `$insert_id` are equal. An event
    without `$insert_id` is never a duplicate. If Mixpanel processed several versions last, the version whose properties
    sort last as text is kept. *events* is read once and shuffled once.

    Example:
        deduplicated(spark.read.table("raw_events")).write.saveAsTable("events")
    """
    has_id = sf.coalesce(sf.col("insert_id"), sf.lit("")) != ""
    processed = sf.get_json_object("properties", "$.mp_processing_time_ms").try_cast("double")
    is_known = processed.isNotNull() & ~sf.isnan(processed) & (sf.abs(processed) != float("inf"))
    versions = Window.partitionBy(
        "event_name",
        "event_time",
        "distinct_id",
        "insert_id",
        sf.get_json_object("properties", "$.time"),
        # Otherwise, events without an id would be in a few large groups.
        sf.when(~has_id, sf.xxhash64("properties")),
    ).orderBy(
        is_known.desc(),
        sf.when(is_known, processed).desc(),
        sf.col("properties").desc(),
    )
    numbered = events.withColumn(_NUMBER, sf.row_number().over(versions))
    return numbered.where(~has_id | (sf.col(_NUMBER) == 1)).drop(_NUMBER)
