-- Which pipelines end differently for the same commit, by the UTC day on which a commit was first run.
-- Counts: executions that succeeded, failed or expired, retries and reruns included, by pipeline, repository and
-- commit_sha. A commit is flaky where the same pipeline succeeded and failed with it. `flaky_share` is of the commits
-- that were run more than once.
-- Leaves out: executions that built no commit, and those aborted, rejected, skipped or at work.
-- Reads all dates whatever start_date is asked for: a commit can be run again on another day.
CREATE OR REPLACE VIEW flakiest_pipelines AS
WITH by_commit AS (
    SELECT
        MIN(start_date) AS start_date,
        org_id,
        project_id,
        pipeline_id,
        COUNT(*) AS runs,
        COUNT(*) FILTER (WHERE status_category = 'success') AS successes
    FROM executions
    WHERE commit_sha IS NOT NULL AND status_category IN ('success', 'failure', 'expired')
    GROUP BY org_id, project_id, pipeline_id, repo_name, commit_sha
)
SELECT
    start_date,
    org_id,
    project_id,
    pipeline_id,
    COUNT(*) AS commits,
    COUNT(*) FILTER (WHERE 1 < runs) AS repeated_commits,
    COUNT(*) FILTER (WHERE 0 < successes AND successes < runs) AS flaky_commits,
    CAST(COUNT(*) FILTER (WHERE 0 < successes AND successes < runs) AS DOUBLE)
        / NULLIF(COUNT(*) FILTER (WHERE 1 < runs), 0) AS flaky_share
FROM by_commit
GROUP BY start_date, org_id, project_id, pipeline_id;
