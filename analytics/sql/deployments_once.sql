-- Deployments, with each retried deployment counted once.
-- Counts: one row of deployment_attempts per retry root, stage, strategy instance, service and environment. The row
-- is the last attempt, on the UTC start date of that attempt. Unfinished deployments are included, see
-- status_category. An attempt that ended before its service or environment was known is matched by stage and instance
-- alone.
-- Excludes: earlier attempts, and everything that deployment_attempts excludes.
-- A filter on start_date prunes partitions. From other dates, only the columns that identify later attempts are read.
CREATE OR REPLACE VIEW deployments_once AS
SELECT d.*
FROM deployment_attempts d
LEFT JOIN deployment_attempts later
    ON later.root_execution_id = d.root_execution_id
    AND later.root_execution_id <> later.plan_execution_id
    AND later.strategy_instance = d.strategy_instance
    AND later.stage_id IS NOT DISTINCT FROM d.stage_id
    AND (
        d.attempted_ts < later.attempted_ts
        OR (d.attempted_ts = later.attempted_ts AND d.plan_execution_id < later.plan_execution_id)
    )
    AND COALESCE(d.service_id = later.service_id AND d.environment_id = later.environment_id, TRUE)
WHERE later.plan_execution_id IS NULL;
