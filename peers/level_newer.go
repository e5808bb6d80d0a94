//go:build vpnd_newer

package peers

// newer makes this vpnd one of the next level, for tests of the way back from it.
const newer = 1
