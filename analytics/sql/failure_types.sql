-- Failed stages by UTC day, pipeline and type of failure.
-- Counts: stages that ran and failed or expired, once for each of their failure types. A stage of type Pipeline is
-- counted in the pipeline that it ran.
-- Excludes: stages without a failure type, and stages carried over by a retry.
-- A filter on start_date prunes stages.
CREATE OR REPLACE VIEW failure_types AS
SELECT
    start_date,
    org_id,
    project_id,
    pipeline_id,
    value AS failure_type,
    COUNT(*) AS failures
FROM {stages_by failure_types}
WHERE ran_in_this_execution AND status_category IN ('failure', 'expired') AND COALESCE(stage_type, '') <> 'Pipeline'
GROUP BY start_date, org_id, project_id, pipeline_id, value;
