-- When pipelines are started: executions by UTC day and hour.
-- Counts: every execution by the hour of its start_ts, attempts and children of other pipelines included. `duration_ms`
-- is the sum of those that are over.
-- Leaves out: hours without an execution have no row.
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
