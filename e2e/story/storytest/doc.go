// Package storytest starts the story's world for tests: New for one test, Shared for several. Either keeps the world's folder when a test has
// failed. It works only inside a world (story.Funcs).
package storytest
