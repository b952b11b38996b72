// Package storytest starts the story's world for tests: New ends it with the test, and keeps its folder when the test has failed. It works
// only inside a world (story.Funcs).
package storytest
