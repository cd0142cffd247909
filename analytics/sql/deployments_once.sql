-- Deployments, with each retried deployment counted once.
-- Counts: one row of deployment_attempts per deployment: its last attempt that ended in success, failure or expiry,
-- else its last attempt, on the UTC start date of that attempt. Attempts at one deployment share the root execution,
-- pipeline, stage, strategy instance, service and environment. An attempt that ended before its service or environment
-- was known is matched by the rest. A failure that a rerun, or a retry of the parent pipeline, deployed successfully
-- later is an attempt, too. A success never is: deploying again is another deployment.
-- Excludes: earlier attempts, and everything that deployment_attempts excludes.
-- A filter on start_date prunes the attempts. From other dates, only the columns that identify later attempts are
-- read. A later retry can remove the row of an earlier day: rebuild the last 31 days of copies of this view.
CREATE OR REPLACE VIEW deployments_once AS
SELECT d.*
FROM deployment_attempts d
LEFT JOIN (
    SELECT
        deployment_runs.*,
        CASE WHEN status_category IN ('success', 'failure', 'expired') THEN 1 ELSE 0 END AS has_ended
    FROM deployment_runs
    WHERE NOT is_rollback
) other
    ON other.root_execution_id = d.root_execution_id
    AND other.plan_execution_id <> d.plan_execution_id
    AND other.pipeline_id IS NOT DISTINCT FROM d.pipeline_id
    AND other.strategy_stage_id IS NOT DISTINCT FROM d.strategy_stage_id
    AND other.strategy_instance = d.strategy_instance
    AND COALESCE(other.service_id = d.service_id, TRUE)
    AND COALESCE(other.environment_id = d.environment_id, TRUE)
    AND CASE
        -- Of a chain of retries, one attempt stands for all.
        WHEN other.retry_root_execution_id = d.retry_root_execution_id
            AND other.has_ended <> CASE WHEN d.status_category IN ('success', 'failure', 'expired') THEN 1 ELSE 0 END
            THEN other.has_ended = 1
        WHEN other.retry_root_execution_id = d.retry_root_execution_id
            THEN d.attempted_ts < other.attempted_ts
                OR (d.attempted_ts = other.attempted_ts AND d.plan_execution_id < other.plan_execution_id)
        -- Otherwise only a failure is replaced, and not by a deployment that the same parent ran.
        ELSE d.status_category <> 'success'
            AND other.has_ended = 1
            AND d.attempted_ts < other.attempted_ts
            AND COALESCE(d.parent_pipeline_execution_id <> other.parent_pipeline_execution_id, TRUE)
    END
WHERE other.plan_execution_id IS NULL;
