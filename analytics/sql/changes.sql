-- Commits that each successful deployment brought, with their lead time.
-- Counts: one row per successful deployment (rows of deployments_once) and commit. The commits are those of the
-- execution itself, else of the first execution of its chain of retries, else of its parent, else of the first attempt
-- of the parent. `lead_time_ms` runs from the commit to the end of the deployment. A deployment without a known commit
-- has one row without commit_sha.
-- Definition: lead time for changes of DORA, from commit to running in production.
-- Excludes: commits that a pipeline that only deploys does not name. The time is null if it is after the deployment.
-- Reads all dates of commits whatever the filter on start_date, because a build can be older than its deployment.
CREATE OR REPLACE VIEW changes AS
WITH sources AS (
    SELECT
        d.*,
        n.source_rank,
        CASE n.source_rank
            WHEN 1 THEN d.plan_execution_id
            WHEN 2 THEN CASE WHEN d.retry_root_execution_id <> d.plan_execution_id THEN d.retry_root_execution_id END
            WHEN 3 THEN d.parent_pipeline_execution_id
            WHEN 4 THEN CASE
                WHEN d.root_execution_id NOT IN (d.plan_execution_id, d.retry_root_execution_id)
                    AND d.root_execution_id <> COALESCE(d.parent_pipeline_execution_id, '')
                    THEN d.root_execution_id
            END
        END AS source_execution_id
    FROM deployments_once d
    CROSS JOIN (VALUES (1), (2), (3), (4)) AS n(source_rank)
    WHERE d.status_category = 'success'
),
found AS (
    SELECT
        s.*,
        c.commit_sha,
        c.committed_ts,
        MIN(CASE WHEN c.commit_sha IS NOT NULL THEN s.source_rank END) OVER (
            PARTITION BY s.start_date, s.plan_execution_id, s.stage_node_id, s.service_key, s.environment_key
        ) AS best_rank
    FROM sources s
    LEFT JOIN commits c
        ON c.plan_execution_id = s.source_execution_id
    WHERE s.source_execution_id IS NOT NULL
)
SELECT
    start_date,
    deployed_date,
    org_id,
    project_id,
    pipeline_id,
    plan_execution_id,
    stage_node_id,
    service_id,
    service_key,
    environment_id,
    environment_key,
    environment_type,
    commit_sha,
    committed_ts,
    end_ts AS deployed_ts,
    CASE WHEN committed_ts <= end_ts THEN {ms end_ts} - {ms committed_ts} END AS lead_time_ms
FROM found
WHERE source_rank = COALESCE(best_rank, 1);
