-- Time that executions wait for their first stage and for approvals, by UTC day and pipeline.
-- Counts: all executions, including retry attempts and child pipelines. Queue time covers executions that started a
-- stage. `approved_executions` and the approval times cover executions whose approvals were all given.
-- `waiting_share` is the share of the total time of ended executions that was spent in the queue or waiting for
-- approvals, whatever their outcome.
-- Excludes: what approvals_waited excludes.
-- A filter on start_date prunes executions and stages.
CREATE OR REPLACE VIEW queue_and_wait_time AS
SELECT
    e.start_date,
    e.org_id,
    e.project_id,
    e.pipeline_id,
    COUNT(*) AS executions,
    COUNT(e.queued_ms) AS started_executions,
    {p50 e.queued_ms} AS median_queued_ms,
    {p95 e.queued_ms} AS p95_queued_ms,
    COUNT(*) FILTER (WHERE a.is_approved) AS approved_executions,
    COUNT(*) FILTER (WHERE a.rejected > 0) AS rejected_executions,
    COUNT(*) FILTER (WHERE a.expired > 0) AS expired_executions,
    {p50 CASE WHEN a.is_approved THEN a.waited_ms END} AS median_approval_ms,
    {p95 CASE WHEN a.is_approved THEN a.waited_ms END} AS p95_approval_ms,
    CAST(SUM(CASE
        WHEN e.duration_ms IS NOT NULL THEN LEAST(COALESCE(e.queued_ms, 0) + COALESCE(a.waited_ms, 0), e.duration_ms)
    END) AS BIGINT) AS waiting_ms,
    CAST(SUM(e.duration_ms) AS BIGINT) AS duration_ms,
    CAST(SUM(CASE
        WHEN e.duration_ms IS NOT NULL THEN LEAST(COALESCE(e.queued_ms, 0) + COALESCE(a.waited_ms, 0), e.duration_ms)
    END) AS DOUBLE) / NULLIF(SUM(e.duration_ms), 0) AS waiting_share
FROM executions e
LEFT JOIN approvals_waited a
    ON a.start_date = e.start_date
    AND a.plan_execution_id = e.plan_execution_id
GROUP BY e.start_date, e.org_id, e.project_id, e.pipeline_id;
