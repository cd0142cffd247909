"""Asks one question of a lake in DuckDB, as an analyst's script would.

ask.py DDL QUESTION [PORT]

DDL and QUESTION are files of SQL. With PORT, the lake is on the S3 server of `store.py`. Prints the rows as JSON.
"""

import glob
import json
import sys
import sysconfig

import duckdb

con = duckdb.connect()
con.execute("SET TimeZone = 'UTC'")
if len(sys.argv) > 3:
    folder = sysconfig.get_path("purelib")
    [extension] = glob.glob(f"{folder}/**/httpfs.duckdb_extension", recursive=True)
    con.execute(f"LOAD '{extension}'")
    con.execute(
        "CREATE SECRET (TYPE s3, KEY_ID 'key', SECRET 'secret', REGION 'us-east-1', "
        f"ENDPOINT '127.0.0.1:{sys.argv[3]}', USE_SSL false, URL_STYLE 'path')"
    )
with open(sys.argv[1]) as ddl:
    con.execute(ddl.read())
with open(sys.argv[2]) as question:
    rows = con.execute(question.read()).fetchall()
json.dump(rows, sys.stdout, default=str)
