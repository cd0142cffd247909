"""Exports the raw partitions of a lake as newline-delimited JSON, one file per date. Not measured."""

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq

COLUMNS = ["org_id", "project_id", "first_observed_ts", "observed_ts", "summary"]


def main(lake: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    rows = summary_bytes = longest = 0
    for path in sorted(lake.glob("_raw/v1/start_date=*/*.parquet")):
        with (out / f"{path.parent.name}-{path.stem}.ndjson").open("w") as file:
            for batch in pq.ParquetFile(path).iter_batches(1024, columns=COLUMNS):
                columns = [
                    batch.column(name).cast("int64") if name.endswith("_ts") else batch.column(name)
                    for name in COLUMNS
                ]
                for org, project, first, last, summary in zip(*(c.to_pylist() for c in columns), strict=True):
                    file.write(
                        f'{{"org_id":{json.dumps(org)},"project_id":{json.dumps(project)},'
                        f'"first_observed_us":{first},"observed_us":{last},"summary":{summary}}}\n'
                    )
                    rows += 1
                    n = len(summary.encode())
                    summary_bytes += n
                    longest = max(longest, n)
    json.dump({"rows": rows, "bytes": summary_bytes, "longest": longest}, sys.stdout)


main(Path(sys.argv[1]), Path(sys.argv[2]))
