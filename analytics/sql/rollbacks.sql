-- Rollbacks: what each undid, when, and by whom.
-- Counts: one row per rollback of a service in an environment. `kind` is `stage` for a stage that rolled itself back,
-- `revert` for an execution that names what it reverts (tag revert_execution_id, the definition of Harness'
-- dashboards), `pipeline` for the rollback stages of a failed pipeline, and `post_deployment` for a rollback that
-- somebody started. `undone_execution_id` is what it undid: the named execution, the execution itself, or else the
-- last successful deployment before of the same service, environment and infrastructure.
-- Excludes: repairs by a new version, which nothing marks as rollbacks.
-- Reads all dates whatever the filter on start_date, because a rollback can undo a deployment of another day.
CREATE OR REPLACE VIEW rollbacks AS
WITH runs AS (
    SELECT
        deployments.*,
        CASE WHEN service_key LIKE 'org.%' OR environment_key LIKE 'org.%' THEN org_id ELSE '' END AS target_org_id,
        CASE
            WHEN execution_mode = 'POST_EXECUTION_ROLLBACK' THEN 'post_deployment'
            WHEN is_rollback THEN 'pipeline'
            WHEN reverts_execution_id IS NOT NULL THEN 'revert'
            WHEN was_rolled_back THEN 'stage'
        END AS kind
    FROM deployments
    WHERE ran_in_this_execution
),
events AS (
    SELECT
        runs.*,
        {last CASE WHEN NOT is_rollback AND status_category = 'success' THEN plan_execution_id END} OVER (
            PARTITION BY target_org_id, service_key, environment_key, COALESCE(infrastructure_id, '')
            ORDER BY CASE WHEN is_rollback THEN start_ts ELSE COALESCE(end_ts, start_ts) END, plan_execution_id
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS last_success_execution_id
    FROM runs
)
SELECT
    start_date,
    org_id,
    project_id,
    pipeline_id,
    plan_execution_id,
    target_org_id,
    service_id,
    service_key,
    environment_id,
    environment_key,
    environment_type,
    infrastructure_id,
    kind,
    status_category,
    triggered_by_name,
    start_ts,
    end_ts,
    CASE kind
        WHEN 'revert' THEN reverts_execution_id
        WHEN 'stage' THEN plan_execution_id
        -- Nothing is known of what a rollback of an unknown target undid.
        ELSE CASE WHEN service_key IS NOT NULL AND environment_key IS NOT NULL THEN last_success_execution_id END
    END AS undone_execution_id
FROM events
WHERE kind IS NOT NULL;
