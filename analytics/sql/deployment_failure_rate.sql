-- Share of deployments that fail, by UTC day, service and environment.
-- Counts: deployments that succeeded, failed or expired, each once (rows of deployments_once). A deployment that
-- succeeded on a retry or rerun is a success, and so is one whose failures were ignored (IgnoreFailed).
-- Definition: Failure Rate of Harness' deployment dashboard.
-- Excludes: unfinished, aborted, rejected and skipped deployments. A rollback does not count: see change_failure_rate.
-- For a longer period, sum both counts and divide them. Do not average the rates.
CREATE OR REPLACE VIEW deployment_failure_rate AS
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
