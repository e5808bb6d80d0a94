package review

// MaxTestWork is for the test that the page has it.
const MaxTestWork = maxTestWork
