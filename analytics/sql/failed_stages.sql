-- Stage failures by UTC day.
-- Counts: stages that ran and succeeded, failed or expired. The instances of a matrix or loop count as runs of one
-- stage. A failure in a pipeline that another pipeline ran counts there, once. `example_error_message` is one of the messages of the day, the first in alphabetical order.
-- Excludes: stages of type Pipeline, stages carried over by a retry, rollback stages, and unfinished, aborted, rejected or skipped stages. A
-- stage without failures has a row with zero failures.
CREATE OR REPLACE VIEW failed_stages AS
SELECT
    start_date,
    org_id,
    project_id,
    pipeline_id,
    strategy_stage_id AS stage_id,
    stage_type,
    COUNT(*) AS runs,
    COUNT(*) FILTER (WHERE status_category <> 'success') AS failures,
    CAST(COUNT(*) FILTER (WHERE status_category <> 'success') AS DOUBLE) / COUNT(*) AS failure_rate,
    MIN(CASE WHEN status_category <> 'success' THEN error_message END) AS example_error_message
FROM stages
WHERE ran_in_this_execution
    AND NOT is_rollback
    AND COALESCE(stage_type, '') <> 'Pipeline'
    AND status_category IN ('success', 'failure', 'expired')
GROUP BY start_date, org_id, project_id, pipeline_id, strategy_stage_id, stage_type;
