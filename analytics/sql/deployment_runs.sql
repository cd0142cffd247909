-- Deployments that an execution ran itself: attempts and rollbacks.
-- Counts: one row per row of deployments that ran in its execution. `root_execution_id` is the same for all attempts
-- at one deployment: the first execution of a chain of retries or reruns, or the parent (or the first attempt of the
-- parent) of a pipeline that another pipeline ran.
-- Excludes: stages that a retry carried over without running them.
-- A filter on start_date prunes deployments.
CREATE OR REPLACE VIEW deployment_runs AS
SELECT
    d.*,
    COALESCE(
        p.root_execution_id,
        d.parent_pipeline_execution_id,
        d.rerun_root_execution_id,
        d.retry_root_execution_id
    ) AS root_execution_id
FROM deployments d
LEFT JOIN (
    SELECT plan_execution_id, COALESCE(rerun_root_execution_id, retry_root_execution_id) AS root_execution_id
    FROM executions
    WHERE retry_root_execution_id IS NOT NULL OR rerun_root_execution_id IS NOT NULL
) p
    ON p.plan_execution_id = d.parent_pipeline_execution_id
WHERE d.ran_in_this_execution;
