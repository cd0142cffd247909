-- Deployments that an execution ran itself: attempts and rollbacks.
-- Counts: one row per row of deployments that ran in its execution. `root_execution_id` is the same for all attempts
-- at one deployment: the first execution of a chain of retries or reruns, or the parent (or the first attempt of the
-- parent) of a pipeline that another pipeline ran.
-- Excludes: stages that a retry carried over without running them.
-- A filter on start_date prunes deployments.
CREATE OR REPLACE VIEW deployment_runs AS
SELECT
    d.*,
    COALESCE(again.root_execution_id, d.parent_pipeline_execution_id, d.plan_execution_id) AS root_execution_id
FROM deployments d
LEFT JOIN (
    SELECT
        e.plan_execution_id,
        COALESCE(first.rerun_root_execution_id, e.rerun_root_execution_id, e.retry_root_execution_id) AS root_execution_id
    FROM executions e
    LEFT JOIN executions first
        ON first.plan_execution_id = e.retry_root_execution_id
        AND first.rerun_root_execution_id IS NOT NULL
    WHERE e.retry_root_execution_id IS NOT NULL OR e.rerun_root_execution_id IS NOT NULL
) again
    ON again.plan_execution_id = COALESCE(d.parent_pipeline_execution_id, d.plan_execution_id)
WHERE d.ran_in_this_execution;
