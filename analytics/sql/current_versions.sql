-- The version that runs now, by service, environment and infrastructure.
-- Counts: the last successful deployment that no rollback undid. A rollback therefore puts back the version before.
-- Excludes: changes that were made without a pipeline, and deployments whose service or environment is unknown.
-- Reads all dates whatever the filter on start_date.
CREATE OR REPLACE VIEW current_versions AS
WITH ranked AS (
    SELECT
        change_failures.*,
        ROW_NUMBER() OVER (
            PARTITION BY target_org_id, service_key, environment_key, COALESCE(infrastructure_id, '')
            ORDER BY end_ts DESC, plan_execution_id DESC
        ) AS rank_from_end
    FROM change_failures
    WHERE NOT is_failed_change
        AND end_ts IS NOT NULL
        AND service_key IS NOT NULL
        AND environment_key IS NOT NULL
)
SELECT
    start_date,
    org_id,
    project_id,
    service_id,
    service_key,
    environment_id,
    environment_key,
    environment_type,
    infrastructure_id,
    artifact,
    plan_execution_id,
    end_ts AS deployed_ts
FROM ranked
WHERE rank_from_end = 1;
