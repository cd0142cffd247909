"""Runs the statements of `schema ddl duckdb` on standard input over a lake in Azurite, and counts the executions."""

import glob
import os
import sys

readers = os.path.join(sys.prefix, "readers")
sys.path.insert(0, readers)
import duckdb

con = duckdb.connect(config={"allow_unsigned_extensions": "true", "threads": 1})
for name in ("azure", "delta"):
    [extension] = glob.glob(f"{readers}/**/{name}.duckdb_extension", recursive=True)
    con.execute(f"LOAD '{extension}'")
# Azurite has no TLS, so the secret holds a connection string instead of an account.
settings = {
    "DefaultEndpointsProtocol": "http",
    "AccountName": os.environ["AZURE_STORAGE_ACCOUNT_NAME"],
    "AccountKey": os.environ["AZURE_STORAGE_ACCOUNT_KEY"],
    "BlobEndpoint": os.environ["AZURE_STORAGE_ENDPOINT"],
}
connection = ";".join(f"{name}={value}" for name, value in settings.items())
con.execute(f"CREATE SECRET (TYPE azure, CONNECTION_STRING '{connection}')")
# The extension of Delta takes Azurite for an emulator on its usual port.
os.environ["AZURITE_BLOB_STORAGE_URL"] = settings["BlobEndpoint"].rpartition("/")[0]
con.execute(sys.stdin.read())
print(con.execute("SELECT count(*) FROM executions").fetchone()[0])
