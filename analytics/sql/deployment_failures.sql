-- Deployment attempts that failed, with the reason.
-- Counts: one row per attempt that failed or expired, including those that a retry repaired.
-- Excludes: aborted and rejected attempts.
-- A filter on start_date prunes deployments and stages.
CREATE OR REPLACE VIEW deployment_failures AS
SELECT d.*, s.error_message, s.failure_types
FROM deployment_attempts d
JOIN stages s
    ON s.start_date = d.start_date
    AND s.plan_execution_id = d.plan_execution_id
    AND s.stage_node_id = d.stage_node_id
WHERE d.status_category IN ('failure', 'expired');
