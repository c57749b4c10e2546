"""Runs a query of docs/audit.md as a log store would: run_query.py STORE FOLDER, the query on standard input.

The stores are the engines themselves, in this process: `duckdb`, `clickhouse` (chDB), and `opensearch`, whose search
bodies are run by Tantivy, the engine of Quickwit, which takes the same query strings and aggregations. In SQL, the first
statement makes `audit`. Prints each row, or each bucket, as an object of JSON."""

import gzip
import json
import sys
from datetime import datetime
from pathlib import Path

store, folder, query = sys.argv[1], Path(sys.argv[2]), sys.stdin.read()

made, _, asked = query.rstrip(";\n").partition(";\n")


def lines():
    """Every line of the log, whichever file it is in."""
    for path in sorted(folder.glob("audit.jsonl*")):
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            yield from file


def duckdb():
    import duckdb

    database = duckdb.connect(config={"file_search_path": str(folder)})
    database.execute(made)
    rows = database.execute(f"SELECT CAST(to_json(found) AS VARCHAR) FROM ({asked}) AS found").fetchall()
    return [json.loads(row) for row, in rows]


def clickhouse():
    from chdb import session

    database = session.Session()
    database.query("CREATE DATABASE logs; USE logs")
    database.query(made)
    database.query("INSERT INTO audit FORMAT JSONEachRow " + "".join(lines()))
    return [json.loads(row) for row in str(database.query(asked, "JSONEachRow")).splitlines()]


def opensearch():
    import tantivy

    records = [json.loads(line) for line in lines()]
    # text is a keyword: one term, as it stands
    texts = {key for record in records for key, value in record.items() if isinstance(value, str)} - {"ts"}
    builder = tantivy.SchemaBuilder().add_date_field("ts", fast=True, indexed=True)
    for key in texts:
        builder = builder.add_text_field(key, stored=True, tokenizer_name="raw", fast=True)
    index = tantivy.Index(builder.build())
    writer = index.writer(num_threads=1)
    for record in records:
        document = tantivy.Document(ts=datetime.fromisoformat(record["ts"]))
        for key in texts & record.keys():
            document.add_text(key, record[key])
        writer.add_document(document)
    writer.commit()
    index.reload()
    searcher, body = index.searcher(), json.loads(query)
    found = index.parse_query(body["query"]["query_string"]["query"])
    if "aggs" not in body:
        hits = searcher.search(found, limit=len(records)).hits
        return [{key: values[0] for key, values in searcher.doc(at).to_dict().items()} for _, at in hits]
    return list(buckets(body["aggs"], searcher.aggregate(found, body["aggs"]), {}))


def buckets(asked, answered, outer):
    """The innermost buckets, each with the keys of those around it."""
    (name, of), = asked.items()
    for bucket in answered[name]["buckets"]:
        keys = {**outer, name: bucket.get("key_as_string", bucket["key"])}
        if "aggs" in of:
            yield from buckets(of["aggs"], bucket, keys)
        else:
            yield {**keys, "count": bucket["doc_count"]}


for row in {"duckdb": duckdb, "clickhouse": clickhouse, "opensearch": opensearch}[store]():
    print(json.dumps(row))
