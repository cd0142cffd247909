-- Deployments that ended, and whether the change failed.
-- Counts: rows of deployments_once that succeeded, failed or expired. A change failed (is_failed_change) if its
-- deployment failed or expired after all retries, or rolled itself back, or was undone later by a rollback or a revert.
-- Definition: DORA counts deployments that need an immediate intervention. Harness' dashboards count those that were
-- reverted.
-- Excludes: unfinished, aborted, rejected and skipped deployments, and successes that were repaired by hand or by a
-- new version, because nothing connects the two.
CREATE OR REPLACE VIEW change_failures AS
SELECT
    d.*,
    d.status_category <> 'success' AS is_failed,
    u.plan_execution_id IS NOT NULL AS is_undone,
    d.status_category <> 'success' OR d.was_rolled_back OR u.plan_execution_id IS NOT NULL AS is_failed_change
FROM deployments_once d
LEFT JOIN undone_deployments u
    ON u.plan_execution_id = d.plan_execution_id
    AND u.service_key = d.service_key
    AND u.environment_key = d.environment_key
    AND u.infrastructure_key = COALESCE(d.infrastructure_id, '')
WHERE d.status_category IN ('success', 'failure', 'expired');
