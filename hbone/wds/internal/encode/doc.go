// Package encode writes what istiod sends of what package wds has read: for the file that a Client keeps, and for tests.
package encode
