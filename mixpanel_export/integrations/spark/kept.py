"""Parquet files with the events of complete days, in a folder that the driver and the executors share."""

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from mixpanel_export._model import Chunk
from mixpanel_export.batches import BatchStream
from mixpanel_export.integrations.spark.settings import Settings

_NAME = re.compile(r"(\d{4}-\d\d-\d\d)_(\d{4}-\d\d-\d\d)\.parquet")


def kept_days(settings: Settings, days: Chunk) -> list[Chunk]:
    """Return the chunks within *days* whose events are in the folder, in order and without overlaps."""
    chunks: list[Chunk] = []
    for file in sorted(_folder(settings).glob("*.parquet")):
        if match := _NAME.fullmatch(file.name):
            chunk = Chunk(date.fromisoformat(match[1]), date.fromisoformat(match[2]))
            inside = days.first <= chunk.first and chunk.last <= days.last
            if inside and not any(chunk.overlaps(other) for other in chunks):
                chunks.append(chunk)
    return chunks


def read_kept(settings: Settings, days: Chunk) -> Iterator[pa.RecordBatch]:
    """Yield the events of *days* from the folder. *days* must be one of the chunks that `kept_days` returned."""
    with pq.ParquetFile(_file(settings, days)) as file:
        yield from file.iter_batches()


def keep(
    settings: Settings, days: Chunk, batches: BatchStream, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """Write all events of *batches* to a file, then yield them. The file stays in the folder if all days are final.

    The file gets its final name once it is complete. If two tasks write the same days, both files are correct.
    """
    file = _file(settings, days)
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{uuid4().hex}")
    is_final = True
    try:
        with pq.ParquetWriter(new, schema, compression="zstd") as writer:
            for batch in batches:
                is_final = is_final and batch.is_final
                for arrays in batch.to_arrow():
                    writer.write_batch(arrays)
        if is_final:
            new.replace(file)
        with pq.ParquetFile(file if is_final else new) as parquet:
            yield from parquet.iter_batches()
    finally:
        new.unlink(missing_ok=True)


def _folder(settings: Settings) -> Path:
    return Path(settings.keep or "", settings.fingerprint())


def _file(settings: Settings, days: Chunk) -> Path:
    return _folder(settings) / f"{days.first}_{days.last}.parquet"
