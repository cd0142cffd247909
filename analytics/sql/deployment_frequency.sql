-- How often is deployed, by UTC day, service and environment.
-- Counts: rows of deployments_once that are over, by how they ended. Frequency is `successful_deployments` over the
-- days of a period: a day without any deployment has no row.
-- Leaves out: deployments at work, and skipped ones.
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
