package benchmark

import "context"

func viewRefresh(ctx context.Context, o Options, r *reporter) (any, error) { return nil, nil }
func logAlone(ctx context.Context, o Options, r *reporter) (any, error)    { return nil, nil }
