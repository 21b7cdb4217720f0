// withGitops(repo: 'https://github.com/org/repo.git', branch: 'main', dir: 'repo') { … }
//
// Clones under the lock, runs the closure in the clone, pushes, and frees the lock whatever happens. The closure edits and commits.
def call(Map args, Closure body) {
    String repo = args.repo
    String branch = args.branch ?: 'main'
    String folder = args.dir ?: 'repo'
    if (!repo) {
        error 'withGitops needs repo: the URL of the repository'
    }
    // Each sh is a script of its own: the lock belongs to the clone.
    withEnv(['GITOPS_LOCK_SESSION=workspace', "GITOPS_REPO=${repo}", "GITOPS_BRANCH=${branch}", "GITOPS_DIR=${folder}"]) {
        try {
            sh 'git gitops clone "$GITOPS_REPO" -b "$GITOPS_BRANCH" "$GITOPS_DIR"'
            dir(folder) {
                body()
            }
            sh 'git gitops -C "$GITOPS_DIR" push'
        } finally {
            sh 'git gitops unlock --session'
        }
    }
}
