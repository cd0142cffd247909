-- All deployment attempts, including every attempt of a retry.
-- Counts: one row per row of deployment_runs that deploys, by the UTC start date of its execution. A run that failed
-- before Harness had resolved its environment takes service, environment and infrastructure from the other runs of the
-- same pipeline, stage and instance if these agree, and is_environment_inferred is true.
-- Excludes: rollbacks, which are in the view rollbacks.
-- A filter on start_date prunes deployments, but for the few columns that identify environments.
CREATE OR REPLACE VIEW deployment_attempts AS
WITH targets AS (
    SELECT
        org_id,
        project_id,
        pipeline_id,
        strategy_stage_id,
        strategy_instance,
        CASE WHEN MIN(service_key) = MAX(service_key) THEN MAX(service_key) END AS service_key,
        CASE WHEN MIN(service_key) = MAX(service_key) THEN MAX(service_id) END AS service_id,
        MAX(environment_key) AS environment_key,
        MAX(environment_id) AS environment_id,
        MAX(environment_type) AS environment_type,
        CASE WHEN MIN(infrastructure_id) = MAX(infrastructure_id) THEN MAX(infrastructure_id) END AS infrastructure_id
    FROM deployments
    WHERE ran_in_this_execution AND NOT is_rollback AND environment_key IS NOT NULL
    GROUP BY org_id, project_id, pipeline_id, strategy_stage_id, strategy_instance
    HAVING MIN(environment_key) = MAX(environment_key)
)
SELECT
    d.start_date,
    d.org_id,
    d.project_id,
    d.pipeline_id,
    d.plan_execution_id,
    d.stage_node_id,
    d.stage_id,
    d.strategy_stage_id,
    d.strategy_instance,
    d.root_execution_id,
    d.retry_root_execution_id,
    d.parent_pipeline_execution_id,
    CASE
        WHEN COALESCE(d.service_key, t.service_key) LIKE 'org.%'
            OR COALESCE(d.environment_key, t.environment_key) LIKE 'org.%'
            THEN d.org_id
        ELSE ''
    END AS target_org_id,
    COALESCE(d.service_id, t.service_id) AS service_id,
    COALESCE(d.service_key, t.service_key) AS service_key,
    COALESCE(d.environment_id, t.environment_id) AS environment_id,
    COALESCE(d.environment_key, t.environment_key) AS environment_key,
    COALESCE(d.environment_type, t.environment_type) AS environment_type,
    COALESCE(d.infrastructure_id, t.infrastructure_id) AS infrastructure_id,
    t.environment_key IS NOT NULL AS is_environment_inferred,
    d.artifact,
    d.status,
    d.status_category,
    d.was_rolled_back,
    d.rollback_ms,
    d.reverts_execution_id,
    d.triggered_by_name,
    d.attempted_ts,
    d.start_ts,
    d.end_ts,
    d.deployed_date,
    d.duration_ms,
    d.observed_ts
FROM deployment_runs d
LEFT JOIN targets t
    ON d.environment_key IS NULL
    AND t.org_id = d.org_id
    AND t.project_id = d.project_id
    AND t.pipeline_id = d.pipeline_id
    AND t.strategy_stage_id = d.strategy_stage_id
    AND t.strategy_instance = d.strategy_instance
WHERE NOT d.is_rollback;
