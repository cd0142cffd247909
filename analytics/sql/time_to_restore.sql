-- How long a service stays broken after a failed deployment, by the UTC day of that deployment.
-- Counts: an outage begins when a deployment fails or expires after one that went well (or as the first of all), and
-- ends when the next one of the same service, environment and strategy instance goes well. Further failures in between
-- belong to it. Its time runs from end to end. `restored_outages` have ended, and the times are theirs.
-- Leaves out: deployments at work, aborted, rejected or skipped, without an end, and those whose service or environment
-- never was known. An outage that ended otherwise (by a rollback, by hand) lasts until the next deployment.
-- Reads all dates whatever start_date is asked for: what came before and after decides.
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
        status_category = 'success' AS went_well,
        LAG(status_category = 'success') OVER (
            PARTITION BY org_id, project_id, service_id, environment_id, strategy_instance
            ORDER BY end_ts, plan_execution_id, stage_node_id
        ) AS went_well_before,
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
    WHERE NOT went_well AND COALESCE(went_well_before, TRUE)
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
