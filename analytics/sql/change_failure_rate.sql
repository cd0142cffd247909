-- What share of deployments fails, by UTC day, service and environment.
-- Counts: rows of deployments_once that succeeded, failed or expired. A deployment that failed and went well when it
-- was retried is a success, and so is one whose failures were ignored (IgnoreFailed).
-- Leaves out: aborted, rejected and skipped deployments, which people decided on, and those at work. A successful
-- deployment that was rolled back later counts as a success, since Harness does not say which one a rollback undoes.
-- Over a longer time add up both counts and divide them, do not average the rates.
CREATE OR REPLACE VIEW change_failure_rate AS
SELECT
    start_date,
    org_id,
    project_id,
    service_id,
    environment_id,
    environment_type,
    COUNT(*) AS deployments,
    COUNT(*) FILTER (WHERE status_category <> 'success') AS failed_deployments,
    CAST(COUNT(*) FILTER (WHERE status_category <> 'success') AS DOUBLE) / COUNT(*) AS failure_rate
FROM deployments_once
WHERE status_category IN ('success', 'failure', 'expired')
GROUP BY start_date, org_id, project_id, service_id, environment_id, environment_type;
