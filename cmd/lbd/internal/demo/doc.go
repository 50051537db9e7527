// Package demo shows lbd at work without a GPU: two environments of six
// simulated replicas each, the baseline behind cycle and the managed one behind
// a strategy that knows the queues, with the same requests at the same times
// through both.
//
// The environments are alike in everything but the strategy, and each has
// replicas of its own so that neither disturbs the other. The figures rank
// strategies; they measure no GPU.
//
//	err := demo.Run(ctx, demo.DefaultOptions(), os.Stdout)
package demo
