-- Build durations by UTC day and pipeline.
-- Counts: stages of type CI, each as one build. The percentiles cover successful builds only.
-- Excludes: stages carried over by a retry, and unfinished, aborted, rejected or skipped builds. Failed builds are
-- not part of the percentiles because they tend to end early. Daily percentiles do not add up to monthly ones: query
-- the stages table for those.
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
