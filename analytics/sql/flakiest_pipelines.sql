-- Pipelines with different outcomes for the same commit, by the UTC day on which the commit first ran.
-- Counts: executions that succeeded, failed or expired, including retries and reruns, by pipeline, repository and
-- commit_sha. A commit is flaky if the same pipeline both succeeded and failed with it. `flaky_share` is the share of
-- flaky commits among all commits.
-- Excludes: executions without a commit, and unfinished, aborted, rejected or skipped executions.
-- Reads all dates whatever the filter on start_date, because a commit can run again on another day.
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
    COUNT(*) FILTER (WHERE runs > 1) AS repeated_commits,
    COUNT(*) FILTER (WHERE successes > 0 AND successes < runs) AS flaky_commits,
    CAST(COUNT(*) FILTER (WHERE successes > 0 AND successes < runs) AS DOUBLE) / COUNT(*) AS flaky_share
FROM by_commit
GROUP BY start_date, org_id, project_id, pipeline_id;
