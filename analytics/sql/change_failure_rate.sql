-- Share of changes that fail, by UTC day of the deployment, service and environment.
-- Counts: deployments that ended (rows of change_failures). `failed_deployments` are those that failed after all
-- retries, rolled themselves back, or were undone later by a rollback or a revert.
-- Definition: change failure rate of DORA.
-- Excludes: what change_failures excludes. A failure that a retry or rerun repaired is in outages, not here.
-- For a longer period, sum both counts and divide them. Do not average the rates.
CREATE OR REPLACE VIEW change_failure_rate AS
SELECT
    start_date,
    org_id,
    project_id,
    service_id,
    environment_id,
    environment_type,
    COUNT(*) AS deployments,
    COUNT(*) FILTER (WHERE is_failed_change) AS failed_deployments,
    COUNT(*) FILTER (WHERE is_undone) AS undone_deployments,
    CAST(COUNT(*) FILTER (WHERE is_failed_change) AS DOUBLE) / COUNT(*) AS failure_rate
FROM change_failures
GROUP BY start_date, org_id, project_id, service_id, environment_id, environment_type;
