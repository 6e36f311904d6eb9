package photon

import (
	"encoding/json"
	"fmt"
	"strings"

	"bootd/internal/fleet"
	"bootd/internal/photon/wire"
)

// lines are amounts on the wire, by key.
func lines(a fleet.Amounts) []wire.QuotaLine {
	out := []wire.QuotaLine{}
	for _, k := range a.Keys() {
		out = append(out, wire.QuotaLine{Key: k, Value: json.Number(a[k].Number()), Unit: string(a[k].Unit())})
	}
	return out
}

var units = []fleet.Unit{fleet.Gigabytes, fleet.Megabytes, fleet.Kilobytes, fleet.Bytes, fleet.Count}

// amounts reads lines, and adds what is wrong with them to m. The error is for
// units that do not exist, which are no JSON to Photon's servers.
func amounts(m *fleet.Mistakes, path string, in []wire.QuotaLine) (fleet.Amounts, error) {
	out := fleet.Amounts{}
	wrong := false
	add := func(path, rule string, was any) { wrong = true; m.Add(path, rule, was) }
	for i, l := range in {
		at := fmt.Sprintf("%s[%d]", path, i)
		if l.Key == "" {
			add(at+".key", "may not be null", "null")
			continue
		}
		if _, twice := out[l.Key]; twice {
			add(at+".key", "is given twice", l.Key)
			continue
		}
		if l.Unit == "" {
			add(at+".unit", "may not be null", "null")
			continue
		}
		zero, err := fleet.NewAmount(0, fleet.Unit(l.Unit))
		if err != nil {
			return nil, oneOf(at+".unit", l.Unit, units...)
		}
		out[l.Key] = zero
		switch a, err := fleet.ParseAmount(l.Value.String(), fleet.Unit(l.Unit)); {
		case l.Value == "":
			add(at+".value", "may not be null", "null")
		case err != nil && strings.HasPrefix(l.Value.String(), "-"):
			add(at+".value", "must be greater than or equal to 0", l.Value)
		case err != nil:
			add(at+".value", "cannot be counted with", l.Value)
		default:
			out[l.Key] = a
		}
	}
	if !wrong {
		m.Limits(path, out)
	}
	return out, nil
}

// both is the error of mistakes, unless there is a worse one.
func both(m fleet.Mistakes, err error) error {
	if err != nil {
		return err
	}
	return m.Err()
}
