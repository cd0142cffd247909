#!/usr/bin/env python3
# /// script
# requires-python = ">=3.10"
# dependencies = ["duckdb>=1.5.5"]
# ///
"""Renders a lake as one self-contained HTML page: `uv run analytics/report.py ./lake -o report.html`.

A local lake is opened with the statements in its `_views/duckdb.sql`. For a lake in an object store, write them to a file with
`harness-lake schema ddl duckdb --lake s3://bucket/prefix > views.sql` and pass `--views views.sql`.
"""

import argparse
import datetime as dt
import html
import math
import re
import sys
from pathlib import Path

import duckdb

# The maximum number of rows in a chart or table.
SHOWN = 12

# The maximum number of weeks in a chart.
WEEKS = 53

# The tiles compare the last days with as many days before.
TILE_DAYS = 30

# The performance levels of DORA's report of 2023: the worst value of each.
DAY_MS = 86_400_000
LEVELS = ("elite", "high", "medium")
LEAD_TIME = (DAY_MS, 7 * DAY_MS, 30 * DAY_MS)
RESTORE = (DAY_MS / 24, DAY_MS, 7 * DAY_MS)
FAILURE_RATE = (0.05, 0.10, 0.15)
FREQUENCY = (1, 1 / 7, 1 / 30)

# A project whose watermark is so much older than the newest is listed apart.
LATE_MS = 2 * DAY_MS

# Deleted projects are never read again.
VISIBLE = "NOT EXISTS (FROM projects p WHERE p.org_id = s.org_id AND p.project_id = s.project_id AND p.not_visible_since_ts IS NOT NULL)"

# The views. The first comment of each says what it counts.
SQL = Path(__file__).parent / "sql"

STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#57606a;--line:#d5dae0;--ok:#2563a8;--bad:#b4500b;--other:#7a828c}
@media (prefers-color-scheme:dark){:root{--bg:#14181d;--fg:#e6e9ed;--dim:#a2abb6;--line:#39414b;--ok:#6aa9e8;--bad:#f0925a;--other:#8a94a0}}
*{box-sizing:border-box}body{margin:0 auto;max-width:60rem;padding:1.5rem 1rem;background:var(--bg);color:var(--fg);font:1rem/1.5 system-ui,sans-serif}
h1{font-size:1.6rem;line-height:1.2;margin:0}h2{font-size:1.2rem;margin:2.5rem 0 .25rem}p{margin:.25rem 0 .75rem}
.dim,figcaption{color:var(--dim);font-size:.9rem}a{color:var(--ok)}nav ul{display:flex;flex-wrap:wrap;gap:.25rem 1rem;padding:0;list-style:none}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.75rem;margin:1.5rem 0}
dl div{border:1px solid var(--line);border-radius:.4rem;padding:.6rem .8rem}dt{color:var(--dim);font-size:.9rem}dd{margin:0;font-size:1.4rem}
figure{margin:1rem 0}.scroll{overflow-x:auto}svg{display:block;width:100%;min-width:36rem;height:auto}
svg text{fill:var(--fg);font-size:12px}svg .aside{fill:var(--dim)}.grid{stroke:var(--line)}
.ok{fill:var(--ok)}.bad{fill:url(#hatch);stroke:var(--bad)}.other{fill:var(--bg);stroke:var(--other)}
.key{display:inline-block;width:1em;height:.8em;margin:0 .3em 0 1em;border:1px solid var(--ok);background:var(--ok)}
.key.bad{border-color:var(--bad);background:repeating-linear-gradient(135deg,var(--bad) 0 2px,transparent 2px 5px)}.key.other{border-color:var(--other);background:none}
table{border-collapse:collapse;width:100%;font-size:.9rem}caption{text-align:left;color:var(--dim);padding:.3rem 0}
th,td{padding:.25rem .6rem .25rem 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
details{margin:.25rem 0}summary{cursor:pointer;color:var(--dim);font-size:.9rem}:focus-visible{outline:2px solid var(--ok);outline-offset:2px}
@media print{nav,summary{display:none}svg{min-width:0}section{break-inside:avoid}}
"""


def esc(value):
    return html.escape(str(value), quote=True)


def number(value):
    return "–" if value is None else f"{value:,}"


def share(part, whole):
    return f"{part / whole:.1%}" if whole else "–"


def duration(ms):
    if ms is None:
        return "–"
    s = max(0, round(ms / 1000))
    for unit, size, part, per in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if s >= size:
            rest = s % size // per
            return f"{s // size} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{s} s"


def ago(ms, now):
    return "–" if ms is None else f"{duration(now.timestamp() * 1000 - ms)} ago"


def level(value, worst):
    """Returns DORA's level of a value: at most, or for a frequency at least, the worst value of the level."""
    if value is None:
        return None
    reached = (lambda one: value >= one) if worst is FREQUENCY else (lambda one: value <= one)
    return next((name for name, one in zip(LEVELS, worst) if reached(one)), "low")


def shorten(text, most=38):
    """Returns the end of a long text: names differ there."""
    return text if len(text) <= most else "…" + text[1 - most :]


def counts(view):
    """Returns the first sentence after `Counts:` in the comment of a view."""
    lines = (SQL / f"{view}.sql").read_text().splitlines()
    comment = " ".join(line[3:] for line in lines if line.startswith("-- "))
    match = re.search(r"Counts: (.*?\.)(?: |$)", comment)
    # The readers of the page know no names of views.
    text = re.sub(r" ?\(rows of \w+\)", "", match.group(1)).replace("`", "") if match else ""
    return text[:1].upper() + text[1:]


def fail(message, hint=None):
    sys.exit(f"error: {message}" + (f"\nhint: {hint}" if hint else ""))


def read_file(path):
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"failed to read {path}: {getattr(error, 'strerror', None) or error}")


class Page:
    def __init__(self):
        self.parts, self.names, self.ids = [], [], 0

    def section(self, name, description, *body):
        self.ids += 1
        self.names.append((f"s{self.ids}", name))
        head = f'<h2 id="s{self.ids}-h">{esc(name)}</h2><p class="dim">{esc(description)}</p>'
        self.parts.append(f'<section id="s{self.ids}" aria-labelledby="s{self.ids}-h">{head}{"".join(body)}</section>')

    def figure(self, title, summary, width, height, drawn, rows, keys=()):
        """Returns a chart with its text alternative and a table of the same numbers."""
        self.ids += 1
        at = self.ids
        legend = "".join(f'<span class="key {kind}" aria-hidden="true"></span>{esc(name)}' for name, kind in keys)
        return (
            f'<figure><figcaption>{esc(title)}{legend}</figcaption><div class="scroll" tabindex="0" role="group" aria-label="{esc(title)}">'
            f'<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="f{at}-t f{at}-d"><title id="f{at}-t">{esc(title)}</title>'
            f'<desc id="f{at}-d">{esc(summary)}</desc>{drawn}</svg></div><details><summary>Numbers: {esc(title)}</summary>{rows}</details></figure>'
        )

    def columns(self, title, labels, series):
        """Returns stacked vertical bars by day or hour; `series` are (name, class, values)."""
        if not labels:
            return "<p>No data in this period.</p>"
        width, height, left, bottom, top = 720, 210, 48, 24, 10
        totals = [sum(values) for values in zip(*(values for _, _, values in series))]
        step = nice(max(totals + [1]) / 3)
        most = step * math.ceil(max(totals + [1]) / step)
        pitch, tall = (width - left) / len(labels), height - bottom - top
        drawn = []
        for tick in range(0, most + 1, step):
            y = top + tall * (1 - tick / most)
            drawn.append(f'<line class="grid" x1="{left}" x2="{width}" y1="{y:.1f}" y2="{y:.1f}"/><text class="aside" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:,}</text>')
        every = max(1, math.ceil(len(labels) / 8))
        for at, label in enumerate(labels):
            x, y = left + at * pitch, top + tall
            for name, kind, values in series:
                h = tall * values[at] / most
                y -= h
                if values[at]:
                    drawn.append(f'<rect class="{kind}" x="{x + pitch * 0.12:.1f}" y="{y:.1f}" width="{pitch * 0.76:.1f}" height="{h:.1f}"><title>{esc(label)}: {values[at]:,} {esc(name)}</title></rect>')
            if at % every == 0:
                drawn.append(f'<text class="aside" x="{x + pitch / 2:.1f}" y="{height - 6}" text-anchor="middle">{esc(label)}</text>')
        peak = max(range(len(labels)), key=lambda at: totals[at])
        summary = f"Total {sum(totals):,}, maximum {totals[peak]:,} ({labels[peak]})."
        head = ["", *(name for name, _, _ in series)]
        rows = [[label, *(number(values[at]) for _, _, values in series)] for at, label in enumerate(labels)]
        keys = [(name, kind) for name, kind, _ in series] if len(series) > 1 else ()
        return self.figure(title, summary, width, height, "".join(drawn), table(title, head, rows), keys)

    def bars(self, title, kind, items, head):
        """Returns horizontal bars; `items` are (label, value, text beside the bar, table cells)."""
        if not items:
            return "<p>No data in this period.</p>"
        width, row, left, right = 720, 24, 260, 175
        most = max(value for _, value, _, _ in items) or 1
        drawn = []
        for at, (label, value, text, _) in enumerate(items):
            y, long = at * row, (width - left - right) * value / most
            drawn.append(
                f'<text x="{left - 8}" y="{y + 16}" text-anchor="end">{esc(shorten(label))}<title>{esc(label)}</title></text>'
                f'<rect class="{kind}" x="{left}" y="{y + 5}" width="{max(long, 1):.1f}" height="{row - 10}"/>'
                f'<text class="aside" x="{left + long + 6:.1f}" y="{y + 16}">{esc(text)}</text>'
            )
        summary = "; ".join(f"{label}: {text}" for label, _, text, _ in items[:3]) + "."
        rows = [[label, *cells] for label, _, _, cells in items]
        return self.figure(title, summary, width, len(items) * row + 4, "".join(drawn), table(title, head, rows))


def nice(step):
    """Rounds up to the next of 1, 2, 5, 10, 20 and so on."""
    size = 10 ** math.floor(math.log10(max(step, 1)))
    return int(next(size * by for by in (1, 2, 5, 10) if size * by >= step))


def table(caption, head, rows):
    cells = lambda row: "".join(
        (f'<th scope="row">{esc(cell)}</th>' if at == 0 else f'<td class="n">{esc(cell)}</td>') for at, cell in enumerate(row)
    )
    heads = "".join(f'<th scope="col"{" class=n" if at else ""}>{esc(name)}</th>' for at, name in enumerate(head))
    body = "".join(f"<tr>{cells(row)}</tr>" for row in rows)
    return f'<div class="scroll" tabindex="0" role="group" aria-label="{esc(caption)}"><table><caption>{esc(caption)}</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


class Lake:
    """The views of a lake and the filters of the report."""

    def __init__(self, statements, args):
        self.con = duckdb.connect()
        if args.init:
            self.con.execute(read_file(args.init))
        self.con.execute("SET TimeZone = 'UTC'")
        self.con.execute(statements)
        self.scope = "org_id GLOB $org AND project_id GLOB $project"
        self.where = f"{self.scope} AND start_date >= $from AND start_date < $to"
        self.values = {"org": args.org, "project": args.project}
        first, last = self.con.execute(f"SELECT min(start_date), max(start_date) FROM executions WHERE {self.scope}", self.values).fetchone()
        self.data_from = first
        day = dt.timedelta(days=1)
        self.first = args.start or first
        self.end = args.end or (last and last + day)
        self.values |= {"from": self.first, "to": self.end}
        self.environment_type = args.environment_type
        # Every view over deployments reads much of the lake: read each once.
        for name in ("change_failures", "changes", "outages"):
            self.query(f"CREATE TEMP TABLE of_{name} AS SELECT * FROM {name} WHERE {{scope}}")

    def query(self, sql, **more):
        """Returns the rows of a query with the filters of the report, and more values by name."""
        sql = sql.replace("{where}", self.where).replace("{scope}", self.scope)
        values = {name: value for name, value in (self.values | more).items() if f"${name}" in sql}
        return self.con.execute(sql, values).fetchall()

    def by_day(self, view, *sums):
        """Returns sums of a view for each day of the period, including days without rows."""
        found = {row[0]: row[1:] for row in self.query(f"SELECT start_date, {', '.join(sums)} FROM {view} WHERE {{where}} GROUP BY 1")}
        days = [self.first + dt.timedelta(days=at) for at in range((self.end - self.first).days)]
        return [f"{day:%b} {day.day}" for day in days], [[int(found.get(day, [0] * len(sums))[at] or 0) for day in days] for at in range(len(sums))]


def tiles(lake, begin, end):
    """Returns the five figures of a period. A figure is None if nothing is known, as before the first day of the lake."""
    days = (end - begin).days
    if begin < lake.data_from or not days:
        return [None] * 5
    one = lambda sql: lake.query(sql, begin=begin, end=end, kind=lake.environment_type)[0]
    time = "start_date >= $begin AND start_date < $end"
    here = f"{time} AND ($kind = 'all' OR environment_type = $kind)"
    good, bad, all_ = one(f"SELECT count(*) FILTER (WHERE status_category = 'success'), count(*) FILTER (WHERE is_failed_change), count(*) FROM of_change_failures WHERE {here}")
    known, lead = one(f"SELECT count(DISTINCT plan_execution_id) FILTER (WHERE lead_time_ms IS NOT NULL) / nullif(count(DISTINCT plan_execution_id), 0), median(lead_time_ms) FROM of_changes WHERE {here}")
    (restore,) = one(f"SELECT median(restore_ms) FROM of_outages WHERE {here}")
    (waiting,) = one(f"SELECT sum(waiting_ms) / nullif(sum(duration_ms), 0) FROM queue_and_wait_time WHERE {{scope}} AND {time}")
    return [good / days, lead if known and known >= 0.5 else None, bad / all_ if all_ else None, restore, waiting]


def key_figures(page, lake, now):
    days = min(TILE_DAYS, (lake.end - lake.first).days)
    begin = lake.end - dt.timedelta(days=days)
    found, before = tiles(lake, begin, lake.end), tiles(lake, begin - dt.timedelta(days=days), begin)
    percent = lambda value: share(value, 1)
    names = [
        ("Deployments a day", lambda value: f"{value:.1f}", FREQUENCY),
        ("Lead time from commit", duration, LEAD_TIME),
        ("Change failure rate", percent, FAILURE_RATE),
        ("Time to recover", duration, RESTORE),
        ("Share of time waiting", percent, None),
    ]
    cells = []
    for (name, text, worst), value, old in zip(names, found, before):
        show = lambda of: "–" if of is None else text(of)
        band = level(value, worst) if worst else None
        more = f"before: {show(old)}" + (f"; DORA: {band}" if band else "")
        cells.append(f'<div><dt>{esc(name)}</dt><dd>{esc(show(value))}</dd><dt>{esc(more)}</dt></div>')
    kind = "all environments" if lake.environment_type == "all" else f"environments of type {lake.environment_type}"
    page.parts.append(f'<p>The last {days} days, {esc(kind)}, compared with the {days} days before.</p><dl>{"".join(cells)}</dl>')
    # Times are fetched as numbers: DuckDB needs pytz to return a timestamp with a time zone.
    read = lake.query(f"SELECT org_id || '/' || project_id, epoch_ms(watermark_ts) FROM scopes s WHERE {{scope}} AND {VISIBLE} AND watermark_ts IS NOT NULL ORDER BY 2")
    newest_ms = read[-1][1] if read else None
    late = [f"{name} ({ago(ms, now)})" for name, ms in read if ms < newest_ms - LATE_MS]
    others = [ms for _, ms in read if ms >= newest_ms - LATE_MS]
    page.parts.append(f'<dl><div><dt>Every project is read up to</dt><dd>{esc(ago(min(others, default=None), now))}</dd></div></dl>')
    if late:
        page.parts.append(f"<p>Not read for longer, maybe deleted: {esc(', '.join(late[:SHOWN]))}.</p>")


def executions(page, lake):
    kinds = ["status_category = 'success'", "status_category IN ('failure', 'expired')", "status_category NOT IN ('success', 'failure', 'expired')"]
    days, (good, bad, rest) = lake.by_day("executions", *(f"count(*) FILTER (WHERE {kind})" for kind in kinds))
    series = [("succeeded", "ok", good), ("failed", "bad", bad), ("aborted, rejected, skipped or not finished", "other", rest)]
    description = f"{number(sum(good) + sum(bad) + sum(rest))} pipeline executions by UTC start date, {share(sum(good), sum(good) + sum(bad))} of those that succeeded or failed were successful. Each attempt of a retry counts as one execution."
    page.section("Executions", description, page.columns("Executions by day", days, series))


def deployments(page, lake):
    days, (good, bad, stopped) = lake.by_day("deployment_frequency", "sum(successful_deployments)", "sum(failed_deployments)", "sum(stopped_deployments)")
    frequency = page.columns("Deployments by day", days, [("succeeded", "ok", good), ("failed", "bad", bad), ("aborted or rejected", "other", stopped)])
    page.section("Deployment frequency", counts("deployment_frequency"), frequency)
    found = lake.query("SELECT coalesce(service_id, 'unknown'), count(*), count(*) FILTER (WHERE is_failed_change) FROM of_change_failures WHERE {where} GROUP BY 1 HAVING count(*) FILTER (WHERE is_failed_change) > 0 ORDER BY 3 DESC, 1 LIMIT %d" % SHOWN)
    items = [(service, bad, f"{bad} of {all_} ({share(bad, all_)})", [number(all_), number(bad), share(bad, all_)]) for service, all_, bad in found]
    restored = lake.query("SELECT coalesce(service_id, 'unknown'), count(*), count(restore_ms), median(restore_ms), max(restore_ms) FROM of_outages WHERE {where} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT %d" % SHOWN)
    rows = [[service, number(outages), number(over), duration(half), duration(longest)] for service, outages, over, half, longest in restored]
    weekly = lake.query("SELECT CAST(date_trunc('week', start_date) AS DATE), count(*), count(*) FILTER (WHERE is_failed_change) FROM of_change_failures WHERE {where} GROUP BY 1 ORDER BY 1 DESC")
    open_ = lambda week: " (not over)" if week + dt.timedelta(days=7) > lake.end else ""
    weeks = [(f"week of {week}{open_(week)}", bad / all_, f"{share(bad, all_)}, {bad} of {all_}", [number(all_), number(bad), share(bad, all_)]) for week, all_, bad in reversed(weekly[:WEEKS])]
    title = "Change failure rate by week" + (f", last {WEEKS} weeks" if len(weekly) > WEEKS else "")
    body = page.bars(title, "bad", weeks, ["week", "deployments", "failed", "share"])
    body += page.bars("Failed changes by service", "bad", items, ["service", "deployments", "failed", "share"])
    page.section("Change failure rate", counts("change_failure_rate"), body)
    page.section("Time to restore", counts("outages"), table("Outages by service", ["service", "outages", "restored", "median", "longest"], rows) if rows else "<p>No outages in this period.</p>")
    undone = lake.query("SELECT kind, count(*), count(*) FILTER (WHERE status_category = 'success') FROM rollbacks WHERE {where} GROUP BY 1 ORDER BY 2 DESC, 1")
    words = {"stage": "by the stage that failed", "pipeline": "by the pipeline that failed", "post_deployment": "started by somebody", "revert": "by a pipeline that names what it reverts"}
    rows = [[words[kind], number(all_), number(good)] for kind, all_, good in undone]
    page.section("Rollbacks", "Deployments that were rolled back or reverted.", table("Rollbacks", ["rollback", "number", "succeeded"], rows) if rows else "<p>No rollbacks in this period.</p>")
    led = lake.query("SELECT coalesce(service_id, 'unknown'), count(DISTINCT (plan_execution_id, stage_node_id)), count(DISTINCT (plan_execution_id, stage_node_id)) FILTER (WHERE lead_time_ms IS NOT NULL), median(lead_time_ms) FROM of_changes WHERE {where} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT %d" % SHOWN)
    rows = [[service, number(all_), share(known, all_), duration(half) if known * 2 >= all_ else "too few known"] for service, all_, known, half in led]
    page.section("Lead time for changes", counts("changes"), table("Median time from commit to deployment by service, where the commits of at least half of the deployments are known.", ["service", "deployments", "commits known", "median"], rows) if rows else "<p>No deployments in this period.</p>")


def pipelines(page, lake):
    slow = lake.query("SELECT org_id || '/' || project_id || '/' || pipeline_id, count(*), quantile_cont(duration_ms, 0.5), quantile_cont(duration_ms, 0.95) FROM executions WHERE {where} AND status_category = 'success' AND duration_ms IS NOT NULL GROUP BY 1 HAVING count(*) >= 5 ORDER BY 3 DESC, 1 LIMIT %d" % SHOWN)
    items = [(name, half, f"{duration(half)}, p95: {duration(most)}", [number(runs), duration(half), duration(most)]) for name, runs, half, most in slow]
    description = "Duration of successful executions including waiting time, for pipelines with at least five of them."
    page.section("Slowest pipelines", description, page.bars("Median duration by pipeline", "ok", items, ["pipeline", "executions", "median", "p95"]))
    flaky = lake.query("SELECT org_id || '/' || project_id || '/' || pipeline_id, sum(commits), sum(flaky_commits) FROM flakiest_pipelines WHERE {where} GROUP BY 1 HAVING sum(flaky_commits) > 0 ORDER BY 3 DESC, 1 LIMIT %d" % SHOWN)
    items = [(name, int(bad), f"{bad} of {again} commits", [number(int(again)), number(int(bad)), share(bad, again)]) for name, again, bad in flaky]
    page.section("Flakiest pipelines", counts("flakiest_pipelines"), page.bars("Commits that both succeeded and failed, by pipeline", "bad", items, ["pipeline", "commits", "flaky", "share"]))
    failing = lake.query("SELECT org_id || '/' || project_id || '/' || pipeline_id || ': ' || coalesce(stage_id, '?'), sum(runs), sum(failures) FROM failed_stages WHERE {where} GROUP BY 1 HAVING sum(failures) > 0 ORDER BY 3 DESC, 1 LIMIT %d" % SHOWN)
    items = [(name, int(bad), f"{bad} of {runs} ({share(bad, runs)})", [number(int(runs)), number(int(bad)), share(bad, runs)]) for name, runs, bad in failing]
    page.section("Failures by stage", counts("failed_stages"), page.bars("Failures by stage", "bad", items, ["stage", "runs", "failures", "share"]))
    hours = dict(lake.query("SELECT hour_utc, sum(executions) FROM busiest_hours WHERE {where} GROUP BY 1"))
    page.section("Busiest hours", counts("busiest_hours"), page.columns("Executions by hour, UTC", [f"{hour:02}" for hour in range(24)], [("executions", "ok", [int(hours.get(hour, 0)) for hour in range(24)])]))


def projects(page, lake, now):
    counts = {row[:2]: row[2:] for row in lake.query("SELECT org_id, project_id, count(*), count(*) FILTER (WHERE status_category = 'success'), count(*) FILTER (WHERE status_category IN ('failure', 'expired')) FROM executions WHERE {where} GROUP BY ALL")}
    gone = set(lake.query("SELECT org_id, project_id FROM projects WHERE {scope} AND not_visible_since_ts IS NOT NULL"))
    rows = []
    for org, project, watermark_ms, open_, gaps, code in lake.query("SELECT org_id, project_id, epoch_ms(watermark_ts), open_execution_count, gap_count, last_error_code FROM scopes s WHERE {scope} ORDER BY 1, 2"):
        runs, good, bad = counts.get((org, project), (0, 0, 0))
        state = "not visible any more" if (org, project) in gone else f"failing: {code}" if code else f"{gaps} gaps" if gaps else "not read yet" if watermark_ms is None else "complete"
        rows.append([f"{org}/{project}", state, ago(watermark_ms, now), number(open_), number(runs), share(good, good + bad)])
    description = "Executions that started before the watermark are in the lake, except in gaps. Open executions are not known to be terminal."
    page.section("Projects and freshness", description, table("Projects", ["project", "state", "watermark", "open", "executions", "success rate"], rows))


def render(page, lake, account, now):
    time = f"{lake.first} to {lake.end - dt.timedelta(days=1)}" if lake and lake.first else "no executions yet"
    nav = "".join(f'<li><a href="#{at}">{esc(name)}</a></li>' for at, name in page.names)
    hatch = '<svg width="0" height="0" style="min-width:0;position:absolute" aria-hidden="true"><defs><pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="2.5" height="5" fill="var(--bad)"/></pattern></defs></svg>'
    title = f"Harness pipelines: {account}"
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">"
        f"<title>{esc(title)}</title><style>{STYLE}</style></head>"
    )
    top = f'<header><h1>{esc(title)}</h1><p class="dim">{esc(time)}, UTC days; generated {now:%Y-%m-%d %H:%M} UTC.</p></header>'
    nav = f'<nav aria-label="Sections"><ul>{nav}</ul></nav>' if nav else ""
    return f'{head}<body>{hatch}{top}{nav}<main>{"".join(page.parts)}</main></body></html>\n'


def read_statements(args):
    """Returns the statements that open the lake, or None if the lake has no rows yet."""
    if args.views:
        return read_file(args.views)
    if "://" in args.lake and not args.lake.startswith("file://"):
        fail("a lake in an object store needs --views", f"run `harness-lake schema ddl duckdb --lake {args.lake} > views.sql` and pass `--views views.sql`")
    lake = Path(args.lake)
    if not (lake / "_state/lake.json").exists():
        fail(f"{args.lake} is not a lake: _state/lake.json does not exist", f"run `harness-lake sync --lake {args.lake}` to create it")
    views = lake / "_views/duckdb.sql"
    return read_file(views) if views.exists() else None


def main():
    date = dt.date.fromisoformat
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lake", metavar="LAKE", help="lake directory, or the URL of an object store with --views")
    parser.add_argument("-o", "--output", metavar="FILE", default="report.html", help="HTML file to write [default: %(default)s]")
    parser.add_argument("--org", metavar="GLOB", default="*", help="organizations to include [default: all]")
    parser.add_argument("--project", metavar="GLOB", default="*", help="projects to include [default: all]")
    parser.add_argument("--from", metavar="DATE", dest="start", type=date, help="first day, UTC [default: first day of the lake]")
    parser.add_argument("--to", metavar="DATE", dest="end", type=date, help="day after the last day, UTC [default: end of the lake]")
    parser.add_argument("--environment-type", metavar="TYPE", default="Production", help="Production, PreProduction or all, for the key figures [default: %(default)s]")
    parser.add_argument("--views", metavar="FILE", help="SQL statements that open the lake [default: LAKE/_views/duckdb.sql]")
    parser.add_argument("--init", metavar="FILE", help="SQL statements to run first, such as CREATE SECRET")
    parser.add_argument("--now", type=dt.datetime.fromisoformat, help=argparse.SUPPRESS)
    args = parser.parse_args()
    now = args.now or dt.datetime.now(dt.timezone.utc)
    statements = read_statements(args)
    page, lake, account = Page(), None, "an account"
    if statements:
        try:
            lake = Lake(statements, args)
        except duckdb.Error as error:
            fail(
                f"failed to open {args.lake}: {str(error).splitlines()[0]}",
                "if the lake was moved, run `harness-lake sync` once to write new statements, or pass --views",
            )
        account = lake.con.execute("SELECT any_value(account_id) FROM executions").fetchone()[0]
    if lake and lake.first and lake.first < lake.end:
        key_figures(page, lake, now)
        executions(page, lake)
        deployments(page, lake)
        pipelines(page, lake)
        projects(page, lake, now)
    else:
        page.parts.append("<p>No executions to show: the lake is empty, or --org, --project, --from and --to exclude all of them.</p>")
    try:
        Path(args.output).write_text(render(page, lake, account, now), encoding="utf-8")
    except OSError as error:
        fail(f"failed to write {args.output}: {error.strerror}")
    print(f"Wrote {args.output}; open it in a browser")


if __name__ == "__main__":
    main()
