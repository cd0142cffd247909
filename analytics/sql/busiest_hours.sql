-- Executions by UTC day and hour of their start.
-- Counts: all executions by the hour of start_ts, including retry attempts and child pipelines. `duration_ms` is the
-- sum over terminal executions.
-- Excludes: hours without executions, which have no row.
CREATE OR REPLACE VIEW busiest_hours AS
SELECT
    start_date,
    CAST((MOD({ms start_ts}, 86400000) - MOD({ms start_ts}, 3600000)) / 3600000 AS INTEGER) AS hour_utc,
    org_id,
    project_id,
    COUNT(*) AS executions,
    CAST(SUM(duration_ms) AS BIGINT) AS duration_ms
FROM executions
GROUP BY
    start_date,
    CAST((MOD({ms start_ts}, 86400000) - MOD({ms start_ts}, 3600000)) / 3600000 AS INTEGER),
    org_id,
    project_id;
