-- Time to restore a service after a failed deployment, by the UTC day of that deployment.
-- Counts: an outage begins when a deployment fails or expires after a successful one (or as the first of all), and
-- ends with the next successful deployment of the same service, environment and strategy instance. Failures in
-- between belong to the same outage. Its time runs from the end of the failed deployment to the end of the successful
-- one. `restored_outages` counts the outages that ended, and the times cover only those.
-- Excludes: unfinished, aborted, rejected and skipped deployments, those without an end time, and those without a
-- known service or environment. An outage that was fixed another way (a rollback, by hand) lasts until the next
-- successful deployment.
-- Reads all dates whatever the filter on start_date, because earlier and later deployments decide the result.
CREATE OR REPLACE VIEW time_to_restore AS
WITH outcomes AS (
    SELECT
        start_date,
        org_id,
        project_id,
        service_id,
        environment_id,
        environment_type,
        end_ts,
        status_category = 'success' AS succeeded,
        LAG(status_category = 'success') OVER (
            PARTITION BY org_id, project_id, service_id, environment_id, strategy_instance
            ORDER BY end_ts, plan_execution_id, stage_node_id
        ) AS previous_succeeded,
        MIN(CASE WHEN status_category = 'success' THEN end_ts END) OVER (
            PARTITION BY org_id, project_id, service_id, environment_id, strategy_instance
            ORDER BY end_ts, plan_execution_id, stage_node_id
            ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING
        ) AS restored_ts
    FROM deployments_once
    WHERE status_category IN ('success', 'failure', 'expired')
        AND end_ts IS NOT NULL
        AND service_id IS NOT NULL
        AND environment_id IS NOT NULL
),
outages AS (
    SELECT outcomes.*, {ms restored_ts} - {ms end_ts} AS restore_ms
    FROM outcomes
    WHERE NOT succeeded AND COALESCE(previous_succeeded, TRUE)
)
SELECT
    start_date,
    org_id,
    project_id,
    service_id,
    environment_id,
    environment_type,
    COUNT(*) AS outages,
    COUNT(restore_ms) AS restored_outages,
    {p50 restore_ms} AS median_restore_ms,
    MAX(restore_ms) AS longest_restore_ms
FROM outages
GROUP BY start_date, org_id, project_id, service_id, environment_id, environment_type;
