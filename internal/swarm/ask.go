package swarm

import "context"

// Ask asks the Docker engine at a host what it is, once. For the arguments see
// [Config].
func Ask(ctx context.Context, host string, t *TLS, s *SSH) (Info, error) {
	if host == "" {
		host = DefaultHost
	}
	d, err := newDocker(host, t, s)
	if err != nil {
		return Info{}, err
	}
	info, err := d.Info(ctx)
	_ = d.Close() // nothing is lost by it
	return info, err
}
