-- Time from commit to successful deployment, by UTC day, service and environment.
-- Counts: successful deployments, each once (rows of deployments_once). Lead time runs from the commit that the same
-- execution built (commit_sha) to the end of the deployment.
-- Excludes: from the times, deployments whose execution built no commit (pipelines that only deploy), and commits
-- without a time or with a time after the deployment. `covered_share` is the share of deployments with a lead time.
-- Below 0.5, do not rely on the times.
CREATE OR REPLACE VIEW lead_time_for_changes AS
WITH timed AS (
    SELECT
        d.start_date,
        d.org_id,
        d.project_id,
        d.service_id,
        d.environment_id,
        d.environment_type,
        CASE WHEN c.committed_ts <= d.end_ts THEN {ms d.end_ts} - {ms c.committed_ts} END AS lead_time_ms
    FROM deployments_once d
    JOIN executions e
        ON e.start_date = d.start_date
        AND e.plan_execution_id = d.plan_execution_id
    LEFT JOIN commits c
        ON c.start_date = e.start_date
        AND c.plan_execution_id = e.plan_execution_id
        AND c.commit_sha = e.commit_sha
    WHERE d.status_category = 'success'
)
SELECT
    start_date,
    org_id,
    project_id,
    service_id,
    environment_id,
    environment_type,
    COUNT(*) AS deployments,
    COUNT(lead_time_ms) AS covered_deployments,
    CAST(COUNT(lead_time_ms) AS DOUBLE) / COUNT(*) AS covered_share,
    {p50 lead_time_ms} AS median_lead_time_ms,
    {p90 lead_time_ms} AS p90_lead_time_ms
FROM timed
GROUP BY start_date, org_id, project_id, service_id, environment_id, environment_type;
