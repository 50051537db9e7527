package replay

// Bounds are limits to hold a result against.
type Bounds struct{}
