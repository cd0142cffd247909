-- Time to restore a service after a failed change, by the UTC day on which the failed deployment started.
-- Counts: rows of outages. `restored_outages` counts the outages that ended, and the times cover only those.
-- Definition: failed deployment recovery time of DORA.
-- Excludes: what outages excludes. For a longer period, take the percentiles of outages.
CREATE OR REPLACE VIEW time_to_restore AS
SELECT
    start_date,
    org_id,
    project_id,
    service_id,
    environment_id,
    environment_type,
    COUNT(*) AS outages,
    COUNT(restore_ms) AS restored_outages,
    {p50 restore_ms} AS median_restore_ms,
    MAX(restore_ms) AS longest_restore_ms
FROM outages
GROUP BY start_date, org_id, project_id, service_id, environment_id, environment_type;
