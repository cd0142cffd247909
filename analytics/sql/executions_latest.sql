-- Every execution, and whether it is the last attempt of its chain of retries.
-- Counts: all rows of executions. `is_latest_attempt` is true for an execution that was never retried, and for the
-- retry with the latest created_ts of its root. Where `is_latest_attempt` is true, each chain of retries stands once.
-- Leaves out: nothing. Older servers do not tell which execution a retry belongs to: there every execution is its own
-- root.
-- A condition on start_date prunes. Of other dates only the columns of retries are read.
CREATE OR REPLACE VIEW executions_latest AS
WITH retries AS (
    SELECT
        retry_root_execution_id,
        plan_execution_id,
        ROW_NUMBER() OVER (
            PARTITION BY retry_root_execution_id
            ORDER BY COALESCE(created_ts, start_ts) DESC, plan_execution_id DESC
        ) AS place_from_end
    FROM executions
    WHERE retry_root_execution_id IS NOT NULL
)
SELECT
    e.*,
    COALESCE(e.retry_root_execution_id, e.plan_execution_id) AS root_execution_id,
    COALESCE(r.plan_execution_id, e.plan_execution_id) = e.plan_execution_id AS is_latest_attempt
FROM executions e
LEFT JOIN retries r
    ON r.retry_root_execution_id = COALESCE(e.retry_root_execution_id, e.plan_execution_id)
    AND r.place_from_end = 1;
