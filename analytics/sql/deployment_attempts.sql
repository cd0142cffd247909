-- All deployment attempts: the input of deployments_once.
-- Counts: one row per deployment that an execution ran, including every attempt of a retry, by the UTC start date of
-- that execution. `strategy_instance` holds the axis values of a matrix, or the index within a loop, or an empty
-- text. `root_execution_id` is the first attempt of the retry chain.
-- Excludes: stages that a retry carried over without running them, rollback stages, and executions that only roll
-- back.
-- A filter on start_date prunes partitions.
CREATE OR REPLACE VIEW deployment_attempts AS
SELECT
    d.*,
    COALESCE(NULLIF({text s.matrix}, ''), CAST(s.iteration AS VARCHAR(20)), '') AS strategy_instance,
    COALESCE(e.retry_root_execution_id, e.plan_execution_id) AS root_execution_id,
    COALESCE(e.created_ts, e.start_ts) AS attempted_ts
FROM deployments d
JOIN stages s
    ON s.start_date = d.start_date
    AND s.plan_execution_id = d.plan_execution_id
    AND s.stage_node_id = d.stage_node_id
JOIN executions e
    ON e.start_date = d.start_date
    AND e.plan_execution_id = d.plan_execution_id
WHERE d.ran_in_this_execution
    AND NOT d.is_rollback
    AND COALESCE(e.execution_mode, 'NORMAL') NOT IN ('POST_EXECUTION_ROLLBACK', 'PIPELINE_ROLLBACK');
