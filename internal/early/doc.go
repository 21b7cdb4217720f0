// Package early lets git have its own commands before the rest of this program is made ready. Most
// of what a Go program does before main is to initialize its packages, and a pass-through has no
// use for any of them. They are initialized in the order of their import paths, each after those
// that it imports (Go specification, "Program initialization"): this one, which needs little of the
// standard library, comes before the connection to Redis, TLS, HTTP and the command line library.
// That saves a third of a pass-through.
//
// Nothing is decided here: a command line that needs a second look is left to package cli, which
// knows all routes.
package early
