"""Asks questions of lakes in Spark, in turn, and prints the seconds of each as JSON.

Standard input: {"lakes": {name: statements}, "questions": {name: SQL}, "times": N}. Every question is first asked once
of each lake without being measured. The rows of all lakes must be equal.
"""

import json
import os
import sys
import time

os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
from pyspark.sql import SparkSession

asked = json.load(sys.stdin)
settings = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "4g",
    "spark.log.level": "OFF",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.warehouse.dir": sys.argv[1],
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
builder = SparkSession.builder.master("local[2]").appName("bench-read")
for name, value in settings.items():
    builder = builder.config(name, value)
spark = builder.getOrCreate()
seconds = {}
for lake, statements in asked["lakes"].items():
    spark.sql(f"CREATE DATABASE {lake}")
    spark.sql(f"USE {lake}")
    for statement in statements:
        spark.sql(statement)
for question, sql in asked["questions"].items():
    rows = {}
    for number in range(asked["times"] + 1):
        for lake in asked["lakes"]:
            spark.sql(f"USE {lake}")
            began = time.perf_counter()
            rows[lake] = sorted(map(str, spark.sql(sql).collect()))
            if number:
                seconds.setdefault(lake, {}).setdefault(question, []).append(time.perf_counter() - began)
    one, *others = rows
    for other in others:
        if rows[other] != rows[one]:
            sys.exit(f"{question}: {one} and {other} differ")
json.dump(seconds, sys.stdout)
