// Package apps holds the story's two ordinary programs: the backend, and a caller that sends what it is told to; and the certificate that their edge needs. They know nothing of a
// mesh. They run until they are killed, as processes of pods.
package apps
