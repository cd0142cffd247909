-- Time that executions wait for their first stage and for approvals, by UTC day and pipeline.
-- Counts: all executions, including retry attempts and child pipelines. Queue time covers executions that started a
-- stage. Approval time is the sum over the answered approval stages of an execution, and covers executions that have
-- one.
-- Excludes: pending approvals, approvals carried over by a retry, and approval steps inside other stages.
CREATE OR REPLACE VIEW queue_and_approval_time AS
WITH approvals AS (
    SELECT start_date, plan_execution_id, CAST(SUM(duration_ms) AS BIGINT) AS approval_ms
    FROM stages
    WHERE stage_type = 'Approval' AND ran_in_this_execution AND duration_ms IS NOT NULL
    GROUP BY start_date, plan_execution_id
)
SELECT
    e.start_date,
    e.org_id,
    e.project_id,
    e.pipeline_id,
    COUNT(*) AS executions,
    COUNT(e.queued_ms) AS started_executions,
    {p50 e.queued_ms} AS median_queued_ms,
    {p95 e.queued_ms} AS p95_queued_ms,
    COUNT(a.approval_ms) AS approved_executions,
    {p50 a.approval_ms} AS median_approval_ms,
    {p95 a.approval_ms} AS p95_approval_ms
FROM executions e
LEFT JOIN approvals a
    ON a.start_date = e.start_date
    AND a.plan_execution_id = e.plan_execution_id
GROUP BY e.start_date, e.org_id, e.project_id, e.pipeline_id;
