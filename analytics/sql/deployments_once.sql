-- Deployments, each counted once however often it was retried.
-- Counts: one row of deployment_attempts per retry root, stage, strategy instance, service and environment: that of the
-- last attempt, on the UTC day on which that attempt was started. Those still at work are here, see status_category.
-- Of attempts that ended before their service or environment was known, too, the last one stands for all.
-- Leaves out: earlier attempts, and what deployment_attempts leaves out.
-- A condition on start_date prunes. Of other dates only what finds later attempts is read.
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
