#!/usr/bin/env python3
# /// script
# requires-python = ">=3.10"
# dependencies = ["duckdb>=1.3"]
# ///
"""One page of a lake, to look at without a network: `uv run analytics/report.py ./lake -o report.html`.

It opens the lake by the statements that the lake brings (`_views/duckdb.sql`); for a lake in S3 make them
by `harness-lake schema ddl duckdb --lake s3://…` and name the file by `--views`.
"""

import argparse
import datetime as dt
import html
import math
import re
import sys
from pathlib import Path

import duckdb

SHOWN = 12

# The views whose first comment says what is counted.
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


def shorten(text, most=38):
    return text if len(text) <= most else text[: most - 1] + "…"


def caveat(view):
    """What a view counts, in the words of its first comment."""
    lines = (SQL / f"{view}.sql").read_text().splitlines()
    said = " ".join(line[3:] for line in lines if line.startswith("-- "))
    counted = re.search(r"Counts: (.*?\.)(?: |$)", said)
    told = counted.group(1).replace("`", "") if counted else ""
    return told[:1].upper() + told[1:]


class Page:
    def __init__(self):
        self.parts, self.names, self.ids = [], [], 0

    def section(self, name, told, *body):
        self.ids += 1
        self.names.append((f"s{self.ids}", name))
        head = f'<h2 id="s{self.ids}-h">{esc(name)}</h2><p class="dim">{esc(told)}</p>'
        self.parts.append(f'<section id="s{self.ids}" aria-labelledby="s{self.ids}-h">{head}{"".join(body)}</section>')

    def figure(self, title, summary, width, height, drawn, rows, keys=()):
        """A drawing with its text alternative, and a table of the same numbers."""
        self.ids += 1
        at = self.ids
        legend = "".join(f'<span class="key {kind}" aria-hidden="true"></span>{esc(name)}' for name, kind in keys)
        return (
            f'<figure><figcaption>{esc(title)}{legend}</figcaption><div class="scroll" tabindex="0" role="group" aria-label="{esc(title)}">'
            f'<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="f{at}-t f{at}-d"><title id="f{at}-t">{esc(title)}</title>'
            f'<desc id="f{at}-d">{esc(summary)}</desc>{drawn}</svg></div><details><summary>Numbers: {esc(title)}</summary>{rows}</details></figure>'
        )

    def columns(self, title, labels, series):
        """Bars over days or hours; `series` are (name, class, values), one upon the other."""
        if not labels:
            return "<p>Nothing in this time.</p>"
        width, height, left, bottom, top = 720, 210, 48, 24, 10
        totals = [sum(values) for values in zip(*(values for _, _, values in series))]
        step = nice(max(totals + [1]) / 3)
        most = step * math.ceil(max(totals + [1]) / step)
        room, tall = (width - left) / len(labels), height - bottom - top
        drawn = []
        for tick in range(0, most + 1, step):
            y = top + tall * (1 - tick / most)
            drawn.append(f'<line class="grid" x1="{left}" x2="{width}" y1="{y:.1f}" y2="{y:.1f}"/><text class="aside" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:,}</text>')
        every = max(1, math.ceil(len(labels) / 8))
        for at, label in enumerate(labels):
            x, y = left + at * room, top + tall
            for name, kind, values in series:
                h = tall * values[at] / most
                y -= h
                if values[at]:
                    drawn.append(f'<rect class="{kind}" x="{x + room * 0.12:.1f}" y="{y:.1f}" width="{room * 0.76:.1f}" height="{h:.1f}"><title>{esc(label)}: {values[at]:,} {esc(name)}</title></rect>')
            if at % every == 0:
                drawn.append(f'<text class="aside" x="{x + room / 2:.1f}" y="{height - 6}" text-anchor="middle">{esc(label)}</text>')
        peak = max(range(len(labels)), key=lambda at: totals[at])
        summary = f"{sum(totals):,} in all, at most {totals[peak]:,} ({labels[peak]})."
        head = ["", *(name for name, _, _ in series)]
        rows = [[label, *(number(values[at]) for _, _, values in series)] for at, label in enumerate(labels)]
        keys = [(name, kind) for name, kind, _ in series] if len(series) > 1 else ()
        return self.figure(title, summary, width, height, "".join(drawn), table(title, head, rows), keys)

    def bars(self, title, kind, items, head):
        """Horizontal bars; `items` are (label, value, text beside it, cells of the table)."""
        if not items:
            return "<p>Nothing in this time.</p>"
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
    """The least of 1, 2, 5, 10, 20 … that is not less."""
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
    """The views of a lake, and which rows of them are asked for."""

    def __init__(self, statements, asked):
        self.con = duckdb.connect()
        if asked.init:
            self.con.execute(Path(asked.init).read_text())
        self.con.execute("SET TimeZone = 'UTC'")
        self.con.execute(statements)
        self.scope = "org_id GLOB $org AND project_id GLOB $project"
        self.where = f"{self.scope} AND start_date >= $from AND start_date < $to"
        self.values = {"org": asked.org, "project": asked.project}
        first, last = self.con.execute(f"SELECT min(start_date), max(start_date) FROM executions WHERE {self.scope}", self.values).fetchone()
        day = dt.timedelta(days=1)
        self.first = asked.start or first
        self.end = asked.end or (last and last + day)
        self.values |= {"from": self.first, "to": self.end}

    def ask(self, sql):
        sql = sql.replace("{where}", self.where).replace("{scope}", self.scope)
        values = {name: value for name, value in self.values.items() if f"${name}" in sql}
        return self.con.execute(sql, values).fetchall()

    def by_day(self, view, *sums):
        """Sums of a view for each day of the time, those without any row included."""
        found = {row[0]: row[1:] for row in self.ask(f"SELECT start_date, {', '.join(sums)} FROM {view} WHERE {{where}} GROUP BY 1")}
        days = [self.first + dt.timedelta(days=at) for at in range((self.end - self.first).days)]
        return [f"{day:%b} {day.day}" for day in days], [[int(found.get(day, [0] * len(sums))[at] or 0) for day in days] for at in range(len(sums))]


def key_figures(page, lake, now):
    executions, good, bad = lake.ask("SELECT count(*), count(*) FILTER (WHERE status_category = 'success'), count(*) FILTER (WHERE status_category IN ('failure', 'expired')) FROM executions WHERE {where}")[0]
    deployed, failed = lake.ask("SELECT coalesce(sum(deployments), 0), coalesce(sum(failed_deployments), 0) FROM change_failure_rate WHERE {where}")[0]
    [(oldest,)] = lake.ask("SELECT min(watermark_ts) FROM scopes WHERE {scope}")
    figures = [
        ("Executions", number(executions)),
        ("Succeeded, of those that ended either way", share(good, good + bad)),
        ("Deployments that ended either way", number(int(deployed))),
        ("Of these failed", share(int(failed), int(deployed))),
        ("Every project is read up to", f"{duration((now - oldest).total_seconds() * 1000)} ago" if oldest else "–"),
    ]
    page.parts.append("<dl>" + "".join(f"<div><dt>{esc(name)}</dt><dd>{esc(value)}</dd></div>" for name, value in figures) + "</dl>")


def executions(page, lake):
    kinds = ["status_category = 'success'", "status_category IN ('failure', 'expired')", "status_category NOT IN ('success', 'failure', 'expired')"]
    days, (good, bad, rest) = lake.by_day("executions", *(f"count(*) FILTER (WHERE {kind})" for kind in kinds))
    series = [("succeeded", "ok", good), ("failed", "bad", bad), ("aborted, rejected, skipped or at work", "other", rest)]
    page.section("Executions", "Every run of every pipeline by the UTC day on which it was started, attempts of a retry each.", page.columns("Executions by day", days, series))


def deployments(page, lake):
    days, (good, bad, stopped) = lake.by_day("deployment_frequency", "sum(successful_deployments)", "sum(failed_deployments)", "sum(stopped_deployments)")
    frequency = page.columns("Deployments by day", days, [("succeeded", "ok", good), ("failed", "bad", bad), ("aborted or rejected", "other", stopped)])
    page.section("Deployment frequency", caveat("deployment_frequency"), frequency)
    found = lake.ask("SELECT coalesce(service_id, 'unknown'), sum(deployments), sum(failed_deployments) FROM change_failure_rate WHERE {where} GROUP BY 1 HAVING sum(failed_deployments) > 0 ORDER BY 3 DESC, 1 LIMIT %d" % SHOWN)
    items = [(service, int(bad), f"{bad} of {all_} ({share(bad, all_)})", [number(all_), number(bad), share(bad, all_)]) for service, all_, bad in found]
    restored = lake.ask("SELECT coalesce(service_id, 'unknown'), sum(outages), sum(restored_outages), max(longest_restore_ms) FROM time_to_restore WHERE {where} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT %d" % SHOWN)
    rows = [[service, number(outages), number(over), duration(longest)] for service, outages, over, longest in restored]
    weekly = lake.ask("SELECT date_trunc('week', start_date), sum(deployments), sum(failed_deployments) FROM change_failure_rate WHERE {where} GROUP BY 1 ORDER BY 1 DESC LIMIT %d" % SHOWN)
    weeks = [(f"week of {week:%Y-%m-%d}", bad / all_, f"{share(bad, all_)}, {bad} of {all_}", [number(all_), number(bad), share(bad, all_)]) for week, all_, bad in reversed(weekly)]
    body = page.bars("Share of deployments that failed by week", "bad", weeks, ["week", "deployments", "failed", "share"])
    body += page.bars("Failed deployments by service", "bad", items, ["service", "deployments", "failed", "share"])
    page.section("Change failure rate", caveat("change_failure_rate"), body)
    page.section("Time to restore", caveat("time_to_restore"), table("Outages by service", ["service", "outages", "restored", "longest until restored"], rows) if rows else "<p>No outage in this time.</p>")
    led = lake.ask("SELECT coalesce(service_id, 'unknown'), sum(deployments), sum(covered_deployments), median(median_lead_time_ms) FROM lead_time_for_changes WHERE {where} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT %d" % SHOWN)
    rows = [[service, number(all_), share(known, all_), duration(half)] for service, all_, known, half in led]
    page.section("Lead time for changes", caveat("lead_time_for_changes"), table("From commit to deployment by service; below one half known, do not trust it", ["service", "deployments", "known of", "median of its days"], rows) if rows else "<p>No deployment in this time.</p>")


def pipelines(page, lake):
    slow = lake.ask("SELECT org_id || '/' || project_id || '/' || pipeline_id, count(*), quantile_cont(duration_ms, 0.5), quantile_cont(duration_ms, 0.95) FROM executions WHERE {where} AND status_category = 'success' AND duration_ms IS NOT NULL GROUP BY 1 HAVING count(*) >= 5 ORDER BY 3 DESC, 1 LIMIT %d" % SHOWN)
    items = [(name, half, f"{duration(half)}, 95 %: {duration(most)}", [number(runs), duration(half), duration(most)]) for name, runs, half, most in slow]
    told = "Successful executions from start to end, waiting included; pipelines with five of them at the least, by their median."
    page.section("Slowest pipelines", told, page.bars("Median duration by pipeline", "ok", items, ["pipeline", "executions", "median", "95 %"]))
    flaky = lake.ask("SELECT org_id || '/' || project_id || '/' || pipeline_id, sum(repeated_commits), sum(flaky_commits) FROM flakiest_pipelines WHERE {where} GROUP BY 1 HAVING sum(flaky_commits) > 0 ORDER BY 3 DESC, 1 LIMIT %d" % SHOWN)
    items = [(name, int(bad), f"{bad} of {again} commits", [number(int(again)), number(int(bad)), share(bad, again)]) for name, again, bad in flaky]
    page.section("Flakiest pipelines", caveat("flakiest_pipelines"), page.bars("Commits that ended both ways, by pipeline", "bad", items, ["pipeline", "commits run again", "flaky", "share"]))
    failing = lake.ask("SELECT org_id || '/' || project_id || '/' || pipeline_id || ': ' || coalesce(stage_id, '?'), sum(runs), sum(failures) FROM failed_stages WHERE {where} GROUP BY 1 HAVING sum(failures) > 0 ORDER BY 3 DESC, 1 LIMIT %d" % SHOWN)
    items = [(name, int(bad), f"{bad} of {runs} ({share(bad, runs)})", [number(int(runs)), number(int(bad)), share(bad, runs)]) for name, runs, bad in failing]
    page.section("Failures by stage", caveat("failed_stages"), page.bars("Failures by stage", "bad", items, ["stage", "runs", "failures", "share"]))
    hours = dict(lake.ask("SELECT hour_utc, sum(executions) FROM busiest_hours WHERE {where} GROUP BY 1"))
    page.section("Busiest hours", caveat("busiest_hours"), page.columns("Executions by hour, UTC", [f"{hour:02}" for hour in range(24)], [("executions", "ok", [int(hours.get(hour, 0)) for hour in range(24)])]))


def projects(page, lake, now):
    counts = {row[:2]: row[2:] for row in lake.ask("SELECT org_id, project_id, count(*), count(*) FILTER (WHERE status_category = 'success'), count(*) FILTER (WHERE status_category IN ('failure', 'expired')) FROM executions WHERE {where} GROUP BY ALL")}
    rows = []
    for org, project, mark, open_, gaps, code in lake.ask("SELECT org_id, project_id, watermark_ts, open_execution_count, gap_count, last_error_code FROM scopes WHERE {scope} ORDER BY 1, 2"):
        runs, good, bad = counts.get((org, project), (0, 0, 0))
        state = f"failing: {code}" if code else f"{gaps} gaps" if gaps else "never read" if mark is None else "whole"
        ago = "–" if mark is None else f"{duration((now - mark).total_seconds() * 1000)} ago"
        rows.append([f"{org}/{project}", state, ago, number(open_), number(runs), share(good, good + bad)])
    told = "Executions that started before the time it is read up to are in the lake. Open ones are not known to be over."
    page.section("Projects and freshness", told, table("Projects", ["project", "state", "read up to", "open", "executions", "succeeded"], rows))


def render(page, lake, account, now):
    time = f"{lake.first} to {lake.end - dt.timedelta(days=1)}" if lake and lake.first else "no executions yet"
    nav = "".join(f'<li><a href="#{at}">{esc(name)}</a></li>' for at, name in page.names)
    hatch = '<svg width="0" height="0" style="min-width:0;position:absolute" aria-hidden="true"><defs><pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="2.5" height="5" fill="var(--bad)"/></pattern></defs></svg>'
    title = f"Pipelines of {account}"
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">"
        f"<title>{esc(title)}</title><style>{STYLE}</style></head>"
    )
    top = f'<header><h1>{esc(title)}</h1><p class="dim">{esc(time)}, UTC days; made {now:%Y-%m-%d %H:%M} UTC.</p></header>'
    nav = f'<nav aria-label="Sections"><ul>{nav}</ul></nav>' if nav else ""
    return f'{head}<body>{hatch}{top}{nav}<main>{"".join(page.parts)}</main></body></html>\n'


def read(asked):
    """The statements that open the lake; none where it has no rows yet."""
    if asked.views:
        return Path(asked.views).read_text()
    if asked.lake.startswith("s3://"):
        sys.exit(f"for a lake in S3, make the statements first: harness-lake schema ddl duckdb --lake {asked.lake} > views.sql; then --views views.sql")
    lake = Path(asked.lake)
    if not (lake / "_state/lake.json").exists():
        sys.exit(f"there is no lake in {asked.lake}: `harness-lake sync --lake {asked.lake}` makes one")
    views = lake / "_views/duckdb.sql"
    return views.read_text() if views.exists() else None


def main():
    date = dt.date.fromisoformat
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lake", help="a lake in a folder, or s3://bucket/prefix with --views")
    parser.add_argument("-o", "--output", default="report.html", help="the page (default: %(default)s)")
    parser.add_argument("--org", default="*", help="organizations (glob)")
    parser.add_argument("--project", default="*", help="projects (glob)")
    parser.add_argument("--from", dest="start", type=date, help="the first day (default: of the lake)")
    parser.add_argument("--to", dest="end", type=date, help="the first day after")
    parser.add_argument("--views", help="file of the statements that open the lake")
    parser.add_argument("--init", help="file of statements that DuckDB runs first, such as a secret for S3")
    parser.add_argument("--now", type=dt.datetime.fromisoformat, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    now = asked.now or dt.datetime.now(dt.timezone.utc)
    statements = read(asked)
    page, lake, account = Page(), None, "an account"
    if statements:
        try:
            lake = Lake(statements, asked)
        except duckdb.Error as error:
            sys.exit(f"the lake cannot be opened: {str(error).splitlines()[0]}. A lake that was moved brings new statements with its next run, or use --views")
        account = lake.con.execute("SELECT any_value(account_id) FROM executions").fetchone()[0]
    if lake and lake.first and lake.first < lake.end:
        key_figures(page, lake, now)
        executions(page, lake)
        deployments(page, lake)
        pipelines(page, lake)
        projects(page, lake, now)
    else:
        page.parts.append("<p>There is nothing to show: no execution is in the lake, or none passes --org, --project, --from and --to.</p>")
    Path(asked.output).write_text(render(page, lake, account, now), encoding="utf-8")
    print(f"{asked.output}: open it in a browser")


if __name__ == "__main__":
    main()
