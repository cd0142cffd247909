-- Executions that waited for approvals, and how long.
-- Counts: one row per execution with an approval stage that ended. `waited_ms` is the time during which at least one
-- approval was pending: approvals that wait side by side are not added up. An execution is approved if all its
-- approvals were.
-- Excludes: pending approvals, approvals carried over by a retry, and approval steps inside other stages.
-- A filter on start_date prunes stages.
CREATE OR REPLACE VIEW approvals_waited AS
WITH approvals AS (
    SELECT
        start_date,
        org_id,
        project_id,
        pipeline_id,
        plan_execution_id,
        status_category,
        {ms start_ts} AS from_ms,
        {ms end_ts} AS to_ms,
        MAX({ms end_ts}) OVER (
            PARTITION BY start_date, plan_execution_id
            ORDER BY start_ts, end_ts, stage_node_id
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS waited_until_ms
    FROM stages
    WHERE stage_type = 'Approval' AND ran_in_this_execution AND duration_ms IS NOT NULL
)
SELECT
    start_date,
    org_id,
    project_id,
    pipeline_id,
    plan_execution_id,
    COUNT(*) AS approvals,
    COUNT(*) FILTER (WHERE status_category = 'success') AS approved,
    COUNT(*) FILTER (WHERE status_category = 'rejected') AS rejected,
    COUNT(*) FILTER (WHERE status_category = 'expired') AS expired,
    COUNT(*) FILTER (WHERE status_category = 'success') = COUNT(*) AS is_approved,
    CAST(SUM(GREATEST(to_ms - GREATEST(from_ms, COALESCE(waited_until_ms, from_ms)), 0)) AS BIGINT) AS waited_ms
FROM approvals
GROUP BY start_date, org_id, project_id, pipeline_id, plan_execution_id;
