-- Number of deployments by UTC day, service and environment.
-- Counts: finished deployments by outcome, each once (rows of deployments_once). Frequency is
-- `successful_deployments` divided by the days of the period. A day without deployments has no row.
-- Excludes: unfinished and skipped deployments.
CREATE OR REPLACE VIEW deployment_frequency AS
SELECT
    start_date,
    org_id,
    project_id,
    service_id,
    environment_id,
    environment_type,
    COUNT(*) AS deployments,
    COUNT(*) FILTER (WHERE status_category = 'success') AS successful_deployments,
    COUNT(*) FILTER (WHERE status_category IN ('failure', 'expired')) AS failed_deployments,
    COUNT(*) FILTER (WHERE status_category IN ('aborted', 'rejected')) AS stopped_deployments
FROM deployments_once
WHERE status_category IN ('success', 'failure', 'expired', 'aborted', 'rejected')
GROUP BY start_date, org_id, project_id, service_id, environment_id, environment_type;
