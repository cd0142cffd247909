-- Deployments that a rollback or a revert undid.
-- Counts: one row per execution, service, environment and infrastructure that a successful row of rollbacks names.
-- Excludes: stages that rolled themselves back, because these failed.
-- Reads all dates.
CREATE OR REPLACE VIEW undone_deployments AS
SELECT
    undone_execution_id AS plan_execution_id,
    service_key,
    environment_key,
    COALESCE(infrastructure_id, '') AS infrastructure_key
FROM rollbacks
WHERE status_category = 'success' AND kind <> 'stage' AND undone_execution_id IS NOT NULL
GROUP BY undone_execution_id, service_key, environment_key, COALESCE(infrastructure_id, '');
