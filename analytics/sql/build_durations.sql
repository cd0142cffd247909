-- How long builds take, by UTC day and pipeline.
-- Counts: a build is one stage of type CI. The percentiles are over those that succeeded.
-- Leaves out: stages carried over by a retry, builds at work, aborted, rejected or skipped. Of the percentiles, failed
-- builds, which tend to end early. Percentiles of days do not add up to those of a month: ask the table stages for
-- these.
CREATE OR REPLACE VIEW build_durations AS
SELECT
    start_date,
    org_id,
    project_id,
    pipeline_id,
    COUNT(*) AS builds,
    COUNT(*) FILTER (WHERE status_category <> 'success') AS failed_builds,
    {p50 CASE WHEN status_category = 'success' THEN duration_ms END} AS median_ms,
    {p90 CASE WHEN status_category = 'success' THEN duration_ms END} AS p90_ms,
    {p95 CASE WHEN status_category = 'success' THEN duration_ms END} AS p95_ms,
    MAX(CASE WHEN status_category = 'success' THEN duration_ms END) AS longest_ms
FROM stages
WHERE stage_type = 'CI'
    AND ran_in_this_execution
    AND status_category IN ('success', 'failure', 'expired')
GROUP BY start_date, org_id, project_id, pipeline_id;
