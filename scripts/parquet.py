#!/usr/bin/env python3
"""Reads a triage's Parquet files with DuckDB and compares their counts with triage.json.

Usage: scripts/parquet.py FOLDER, the folder that `oomscope triage --results` wrote.
Needs the Python package duckdb.
"""

import json
import pathlib
import sys

import duckdb


def main() -> int:
    folder = pathlib.Path(sys.argv[1])
    triage = json.loads((folder / "triage.json").read_text("utf-8"))
    dumps = triage["dumps"]
    first = [it for it in dumps if it.get("facts") and not it.get("duplicate_of")]
    reports = [json.loads((folder / "store" / (it["key"] + ".json")).read_text("utf-8"))["report"] for it in first]

    def length(value) -> int:
        return len(value or [])

    expected = {
        "runs": len(dumps),
        "usage": sum(length(it.get("memory", {}).get("usage")) for it in reports),
        "heaps": sum(length(it.get("heaps")) for it in reports),
        "sizes": sum(length(heap.get("sizes")) for it in reports for heap in it.get("heaps") or []),
        "threads": sum(length(it.get("threads")) for it in reports),
        "stacks": sum(length(t.get("frames")) for it in reports for t in it.get("threads") or []),
        "findings": sum(length(it.get("findings")) for it in reports),
    }
    wrong = 0
    for table, count in expected.items():
        path = folder / f"{table}.parquet"
        found = duckdb.sql(f"select count(*) from read_parquet('{path}')").fetchall()[0][0]
        print(f"{table:10} {found:>8} rows")
        if found != count:
            print(f"  but triage.json and its reports have {count}")
            wrong += 1
    # Bytes survive the way, and tables join.
    total = sum(usage["committed_bytes"] for it in reports for usage in it["memory"]["usage"])
    joined = duckdb.sql(
        f"""select sum(committed_bytes) from read_parquet('{folder / "usage.parquet"}')
            join read_parquet('{folder / "runs.parquet"}') using (key) where duplicate_of is null"""
    ).fetchall()[0][0]
    if (joined or 0) != total:
        print(f"usage joined to runs has {joined} committed bytes, the reports have {total}")
        wrong += 1
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
