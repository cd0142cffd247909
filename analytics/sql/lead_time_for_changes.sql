-- Time from commit to successful deployment, by UTC day, service and environment.
-- Counts: every commit of every successful deployment (rows of changes). `covered_share` is the share of deployments
-- with a commit of known time. Below 0.5, do not rely on the times.
-- Definition: lead time for changes of DORA, from commit to running in production.
-- Excludes: what changes excludes. For a longer period, take the percentiles of changes.
CREATE OR REPLACE VIEW lead_time_for_changes AS
WITH deployed AS (
    SELECT
        changes.*,
        ROW_NUMBER() OVER (
            PARTITION BY start_date, plan_execution_id, stage_node_id, service_key, environment_key
            ORDER BY CASE WHEN lead_time_ms IS NULL THEN 1 ELSE 0 END, commit_sha
        ) AS commit_number
    FROM changes
)
SELECT
    start_date,
    org_id,
    project_id,
    service_id,
    environment_id,
    environment_type,
    COUNT(*) FILTER (WHERE commit_number = 1) AS deployments,
    COUNT(*) FILTER (WHERE commit_number = 1 AND lead_time_ms IS NOT NULL) AS covered_deployments,
    CAST(COUNT(*) FILTER (WHERE commit_number = 1 AND lead_time_ms IS NOT NULL) AS DOUBLE)
        / COUNT(*) FILTER (WHERE commit_number = 1) AS covered_share,
    COUNT(lead_time_ms) AS changes,
    {p50 lead_time_ms} AS median_lead_time_ms,
    {p90 lead_time_ms} AS p90_lead_time_ms
FROM deployed
GROUP BY start_date, org_id, project_id, service_id, environment_id, environment_type;
