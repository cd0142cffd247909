-- All executions, with a flag for the last attempt of each retry chain.
-- Counts: every row of executions. `is_latest_attempt` is true for an execution that was never retried, and for the
-- retry with the latest created_ts of each root. Filter on it to count each retry chain once.
-- Excludes: nothing. Older servers do not report the root of a retry, so there each execution is its own root.
-- A filter on start_date prunes partitions. From other dates, only the retry columns are read.
CREATE OR REPLACE VIEW executions_latest AS
WITH retries AS (
    SELECT
        retry_root_execution_id,
        plan_execution_id,
        ROW_NUMBER() OVER (
            PARTITION BY retry_root_execution_id
            ORDER BY COALESCE(created_ts, start_ts) DESC, plan_execution_id DESC
        ) AS rank_from_end
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
    AND r.rank_from_end = 1;
