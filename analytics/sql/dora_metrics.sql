-- The four metrics of DORA by day, week and month, project and type of environment.
-- Counts: deployments and failed changes of change_failures, commits of changes, outages of outages, by the UTC date on
-- which their execution started. `grain` is day, week (from Monday) or month, and `period_start` its first date. Times
-- are percentiles of the single rows. A period without a deployment has a row with zero deployments.
-- Definition: DORA. Deployment frequency is `successful_deployments` divided by the days of the period.
-- Excludes: what those views exclude. Filter on one grain. The last period is not over.
-- Reads all dates whatever the filter.
CREATE OR REPLACE VIEW dora_metrics AS
WITH facts AS (
    SELECT
        start_date,
        org_id,
        project_id,
        environment_type,
        1 AS deployments,
        CASE WHEN status_category = 'success' THEN 1 ELSE 0 END AS successful_deployments,
        CASE WHEN is_failed_change THEN 1 ELSE 0 END AS failed_deployments,
        CAST(NULL AS BIGINT) AS lead_time_ms,
        0 AS outages,
        CAST(NULL AS BIGINT) AS restore_ms
    FROM change_failures
    UNION ALL
    SELECT start_date, org_id, project_id, environment_type, 0, 0, 0, lead_time_ms, 0, NULL
    FROM changes
    WHERE lead_time_ms IS NOT NULL
    UNION ALL
    SELECT start_date, org_id, project_id, environment_type, 0, 0, 0, NULL, 1, restore_ms
    FROM outages
    UNION ALL
    SELECT CAST(value AS DATE), org_id, project_id, environment_type, 0, 0, 0, NULL, 0, NULL
    FROM (
        SELECT
            p.org_id,
            p.project_id,
            p.environment_type,
            MIN(b.first_date) AS first_date,
            MAX(b.last_date) AS last_date
        FROM (SELECT DISTINCT org_id, project_id, environment_type FROM deployments) p
        CROSS JOIN (SELECT MIN(start_date) AS first_date, MAX(start_date) AS last_date FROM executions) b
        GROUP BY p.org_id, p.project_id, p.environment_type
    ) bounds
    {days first_date, last_date}
),
periods AS (
    SELECT
        facts.*,
        grain,
        CASE grain
            WHEN 'day' THEN start_date
            WHEN 'week' THEN CAST(DATE_TRUNC('week', start_date) AS DATE)
            ELSE CAST(DATE_TRUNC('month', start_date) AS DATE)
        END AS period_start
    FROM facts
    CROSS JOIN (VALUES ('day'), ('week'), ('month')) AS g(grain)
)
SELECT
    grain,
    period_start,
    org_id,
    project_id,
    environment_type,
    SUM(deployments) AS deployments,
    SUM(successful_deployments) AS successful_deployments,
    SUM(failed_deployments) AS failed_deployments,
    CAST(SUM(failed_deployments) AS DOUBLE) / NULLIF(SUM(deployments), 0) AS change_failure_rate,
    {p50 lead_time_ms} AS median_lead_time_ms,
    SUM(outages) AS outages,
    COUNT(restore_ms) AS restored_outages,
    {p50 restore_ms} AS median_restore_ms
FROM periods
GROUP BY grain, period_start, org_id, project_id, environment_type;
