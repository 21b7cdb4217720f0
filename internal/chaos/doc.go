// Package chaos owns the fault suite: many real pipelines at a time against one repository, while a
// seeded plan kills and pauses them, restarts Redis, cuts connections and has the git server
// refuse; then a look at the repository's history and at what Redis remembers, whether anything was
// lost, overtaken or left behind. It has tests only.
//
// The seed decides what is done and in which order, not at which moment of a pipeline's life it
// strikes: the same seed is the same plan, and not the same run.
package chaos
