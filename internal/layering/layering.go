// Package layering keeps the table of docs/ARCHITECTURE.md true: which of our
// packages may import which, which package is the one address of each third
// party, and who may touch the outside world (the clock, files, the network)
// directly. It holds no code, only a test that reads the source tree.
package layering
