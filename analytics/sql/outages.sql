-- Outages of a service in an environment.
-- Counts: an outage of a service, environment and infrastructure begins when a deployment fails, expires or is undone
-- later, and ends with the next good event: a successful deployment that nobody undid, or a successful rollback, by
-- whichever button, pipeline or project. Each attempt counts, so a failure that a retry repairs is an outage until
-- then. Failures in between belong to the same outage. Times run from end to end. `restored_ts` is null while it lasts.
-- Definition: failed deployment recovery time of DORA.
-- Excludes: aborted and rejected deployments, those without an end, and those whose service or environment is unknown.
-- Reads all dates whatever the filter on start_date, because earlier and later deployments decide the result.
CREATE OR REPLACE VIEW outages AS
WITH events AS (
    SELECT
        d.start_date, d.org_id, d.project_id, d.pipeline_id, d.plan_execution_id, d.target_org_id,
        d.service_id, d.service_key, d.environment_id, d.environment_key, d.environment_type,
        COALESCE(d.infrastructure_id, '') AS infrastructure_key, d.end_ts,
        d.status_category = 'success' AND u.plan_execution_id IS NULL AS is_good
    FROM deployment_attempts d
    LEFT JOIN undone_deployments u
        ON u.plan_execution_id = d.plan_execution_id
        AND u.service_key = d.service_key
        AND u.environment_key = d.environment_key
        AND u.infrastructure_key = COALESCE(d.infrastructure_id, '')
    WHERE d.status_category IN ('success', 'failure', 'expired')
    UNION ALL
    SELECT
        start_date, org_id, project_id, pipeline_id, plan_execution_id, target_org_id,
        service_id, service_key, environment_id, environment_key, environment_type,
        COALESCE(infrastructure_id, '') AS infrastructure_key, end_ts,
        TRUE AS is_good
    FROM rollbacks
    WHERE status_category = 'success' AND kind IN ('pipeline', 'post_deployment')
),
ordered AS (
    SELECT
        events.*,
        LAG(is_good) OVER (
            PARTITION BY target_org_id, service_key, environment_key, infrastructure_key
            ORDER BY end_ts, plan_execution_id
        ) AS was_good,
        MIN(CASE WHEN is_good THEN end_ts END) OVER (
            PARTITION BY target_org_id, service_key, environment_key, infrastructure_key
            ORDER BY end_ts, plan_execution_id
            ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING
        ) AS restored_ts
    FROM events
    WHERE end_ts IS NOT NULL AND service_key IS NOT NULL AND environment_key IS NOT NULL
)
SELECT
    start_date,
    org_id,
    project_id,
    pipeline_id,
    plan_execution_id,
    service_id,
    service_key,
    environment_id,
    environment_key,
    environment_type,
    end_ts AS began_ts,
    restored_ts,
    {ms restored_ts} - {ms end_ts} AS restore_ms
FROM ordered
WHERE NOT is_good AND COALESCE(was_good, TRUE);
