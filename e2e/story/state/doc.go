// Package state reads all objects of a cluster, to see later what has come, gone or changed. It works on any cluster.
package state
