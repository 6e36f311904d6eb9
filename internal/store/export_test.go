package store

import "context"

// Compact makes the store forget all but the present.
func Compact(ctx context.Context, s *Store) error {
	resp, err := s.client.Get(ctx, prefix)
	if err != nil {
		return err
	}
	_, err = s.client.Compact(ctx, resp.Header.Revision)
	return err
}

// Tidy does what is done every minute.
func Tidy(ctx context.Context, s *Store) error { return s.tidy(ctx, false) }
